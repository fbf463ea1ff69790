"""`sg3 view` as a command: what it prints, serves and refuses."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from sg3.viewer.engine import Engine
from tests.helpers.commands import start
from tests.helpers.for_tools import saved, tiny3
from tests.helpers.viewers import pixels_of


def test_it_prints_an_address_serves_and_stops(tmp_path: Path, run) -> None:
    (tmp_path / "other").mkdir()
    path = saved(tiny3(), tmp_path / "net.pkl")
    other = saved(tiny3(), tmp_path / "other" / "net.pkl")
    process = start("view", f"--network={path}", f"--network-b={other}", "--port=0", "--open=0", "--device=cpu")
    assert process.stdout is not None
    try:
        url = urlsplit(process.stdout.readline().strip())
        assert url.hostname == "127.0.0.1"
        words = parse_qs(url.fragment)
        assert (words["compare"], words["network_b"]) == (["split"], ["net.pkl (2)"])
        (token,) = words["token"]
        assert len(token) >= 32
        request = f"http://{url.netloc}/api/image.png?seed=2&token={token}"
        with urllib.request.urlopen(request, timeout=30) as answer:
            shown = pixels_of(answer.read())
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert token not in err
    assert run("generate", f"--network={path}", "--seeds=2", f"--outdir={tmp_path}").code == 0
    assert np.array_equal(shown, pixels_of((tmp_path / "seed0002.png").read_bytes()))


def test_refusals(tmp_path: Path, run) -> None:
    path = saved(tiny3(), tmp_path / "net.pkl")
    empty = tmp_path / "empty"
    empty.mkdir()
    for options, code, words in [
        (["--network=missing.pkl"], 66, "--network=missing.pkl: there is no such file"),
        ([f"--network={path}", "--network-b=no.pkl"], 66, "--network-b=no.pkl: there is no such file"),
        ([f"--folder={tmp_path / 'no'}"], 66, "there is no such folder"),
        ([f"--folder={empty}"], 66, "holds no networks; name one with --network=FILE"),
        ([f"--network={path}", "--host=256.0.0.1"], 2, "--host=256.0.0.1 --port=8765: cannot listen there"),
        ([f"--network={path}", "--port=99999"], 2, "--port"),
    ]:
        result = run("view", *options, "--open=0")
        assert result.code == code, result.err
        assert words in result.error_line()


def test_without_the_extra_it_says_what_to_install(monkeypatch, run) -> None:
    plain = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else plain(name))
    result = run("view")
    assert result.code == 66
    assert "needs uvicorn; pip install 'sg3[viewer]'" in result.error_line()


def test_a_port_that_is_taken(tmp_path: Path, run) -> None:
    from sg3.viewer.server import listen

    path = saved(tiny3(), tmp_path / "net.pkl")
    with listen("127.0.0.1", 0) as taken:
        result = run("view", f"--network={path}", f"--port={taken.getsockname()[1]}", "--open=0")
    assert "try --port=0 for any that is free" in result.error_line()


def test_the_token_is_in_no_argument_of_a_browser(tmp_path: Path, run, monkeypatch) -> None:
    opened: list[str] = []
    seen: list[tuple[int, str]] = []

    def browse(url: str) -> None:
        opened.append(url)
        path = Path(urlsplit(url).path)
        seen.append((path.stat().st_mode & 0o777, path.read_text()))

    monkeypatch.setattr("webbrowser.open", browse)
    monkeypatch.setattr("sg3.viewer.server.serve", lambda application, listening: listening.close())
    result = run("view", f"--network={saved(tiny3(), tmp_path / 'net.pkl')}", "--port=0", "--open=1")
    assert result.code == 0, result.err
    url = result.out.strip()
    ((mode, text),) = seen
    assert opened[0].startswith("file:///")
    assert mode == 0o600
    assert f"url={url}" in text
    assert url.partition("token=")[2] not in opened[0]
    assert not Path(urlsplit(opened[0]).path).exists()


@pytest.mark.parametrize("has_ended", [True, False])
def test_it_ends_though_a_layer_goes_on(tmp_path: Path, run, monkeypatch, has_ended: bool) -> None:
    left: list[int] = []
    monkeypatch.setattr("os._exit", left.append)
    monkeypatch.setattr("sg3.viewer.engine.ENDING_SECONDS", 60.0 if has_ended else 0.01)
    go_on = threading.Event()

    def serve(application: Any, listening: Any) -> None:
        listening.close()
        if not has_ended:
            began = threading.Event()
            made[-1].submit("slow", lambda _: (began.set(), go_on.wait(60)))
            assert began.wait(60)

    made: list[Engine] = []
    plain = Engine.__init__
    monkeypatch.setattr(Engine, "__init__", lambda self: (plain(self), made.append(self))[0])
    monkeypatch.setattr("sg3.viewer.server.serve", serve)
    assert run("view", f"--network={saved(tiny3(), tmp_path / 'net.pkl')}", "--port=0", "--open=0").code == 0
    assert left == ([] if has_ended else [0])
    go_on.set()


@pytest.mark.parametrize("words", [["view", "--help"]])
def test_help_imports_no_torch(words: list[str]) -> None:
    code = f"import sys; from sg3.cli import _run; _run({words}, False); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")
