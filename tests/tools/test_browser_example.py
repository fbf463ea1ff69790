"""examples/browser: an exported network draws in Chromium what sg3 draws."""

from __future__ import annotations

import base64
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

import sg3
from sg3.models import stylegan3
from sg3.tools.export import trace, write_onnx
from tests.helpers.browsers import PIXELS, chromium, opened

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "browser"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.slow
def test_a_network_in_a_browser(tmp_path) -> None:
    pytest.importorskip("onnx")
    if shutil.which("npm") is None:
        pytest.skip("no npm on this machine, which installs onnxruntime-web")
    torch.manual_seed(1)
    G = stylegan3.Generator(16, 0, 16, 32, 3, channel_base=256, channel_max=8, num_layers=6)
    G.eval().requires_grad_(False)
    G.mapping.w_avg.normal_()
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    module, program = trace(G)
    write_onnx(module, program, tmp_path / "network.onnx")
    npm = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    if subprocess.run(npm, cwd=tmp_path, capture_output=True, timeout=300).returncode:
        pytest.skip("npm cannot install onnxruntime-web here")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with chromium() as browser, opened(browser, f"http://127.0.0.1:{server.server_port}/") as page:
            page.wait_for_function("document.getElementById('picture').dataset.drawn >= 1")
            for seed, truncation, angle in ((0, "0.7", "0"), (7, "1", "30")):
                drawn = page.evaluate("Number(document.getElementById('picture').dataset.drawn)")
                for name, value in (("truncation", truncation), ("angle", angle), ("seed", str(seed))):
                    page.fill(f"#{name}", value)
                page.wait_for_function(f"document.getElementById('picture').dataset.drawn > {drawn}")
                page.wait_for_function(f"document.getElementById('status').textContent.startsWith('Seed {seed}:')")
                page.wait_for_timeout(500)
                height, width, text = page.evaluate(PIXELS)
                pixels = np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)
                expected = sg3.generate(G, seed, trunc=float(truncation), rotate=float(angle), device="cpu")[0]
                assert np.abs(pixels[:, :, :3].astype(int) - expected.astype(int)).max() <= 1
                assert (pixels[:, :, 3] == 255).all()
            page.fill("#seed", "8")
            page.set_input_files("#file", files=[{"name": "x.onnx", "mimeType": "", "buffer": b"no network"}])
            page.wait_for_function("document.getElementById('status').textContent.startsWith('This does not work')")
    finally:
        server.shutdown()
