"""Input-to-frame latency of `sg3 view`: `python -m bench.viewer`.

A client moves through latent space and waits for each frame, as a page does: from sending a state to having the frame
decoded, over a real websocket on this machine. Then it rests, and waits for the lossless frame. Networks have random
weights; their widths are those of the demo, of a middle-sized one and, with --full, of StyleGAN3-T at 1024 pixels. With
that one also: how soon other requests are answered while a frame is made, and how soon a frame that is out of date is
given up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import struct
import sys
import tempfile
import threading
import time
import urllib.request
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
import uvicorn
from PIL import Image
from websockets.asyncio.client import connect

import sg3
from bench.machine import facts
from sg3.device import choose_device
from sg3.formats import Snapshot
from sg3.models import stylegan3
from sg3.terminal import show
from sg3.viewer.catalogue import Catalogue
from sg3.viewer.guard import Tokens
from sg3.viewer.server import application, configuration, listen
from sg3.viewer.viewer import Viewer

NETWORKS = {"t-64": (64, 1024, 32), "t-256": (256, 4096, 64)}  # name -> pixels, channel_base, channel_max
FULL = {"t-1024": (1024, 32768, 512)}
TOKEN = "bench"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--full", action="store_true", help="StyleGAN3-T at 1024 pixels, too: minutes on a CPU")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="write the results there")
    options = parser.parse_args()
    networks = {**NETWORKS, **(FULL if options.full else {})}
    device = choose_device(options.device)
    results: dict[str, Any] = {**facts(device, torch.get_num_threads(), " ".join(sys.argv)), "networks": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name, (size, base, most) in networks.items():
            torch.manual_seed(0)
            G = stylegan3.Generator(512, 0, 512, size, 3, channel_base=base, channel_max=most)
            sg3.save(Snapshot(G_ema=G.eval().requires_grad_(False)), Path(folder) / f"{name}.pkl")
        viewer = Viewer(Catalogue([], [Path(folder)]), device, Tokens(TOKEN, "look"))
        listening = listen("127.0.0.1", 0)
        server = uvicorn.Server(configuration(application(viewer)))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        where = f"127.0.0.1:{listening.getsockname()[1]}"
        label = Path(folder).name
        for name in networks:
            frames = options.frames if name in NETWORKS else 3
            found = asyncio.run(measure(where, f"{label}/{name}.pkl", frames))
            results["networks"][name] = found
            show(f"{name:8} moving {found['moving_median_ms']:8.1f} ms median {found['moving_p95_ms']:8.1f} ms p95 "
                 f"{found['frames_per_second']:6.1f} frames/s   at rest {found['rest_median_ms']:8.1f} ms   answers "
                 f"{found['answer_worst_ms']:6.1f} ms at worst   given up after {found['given_up_ms']} ms")  # fmt: skip
        server.should_exit = True
        thread.join()
        viewer.close()
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


async def measure(where: str, network: str, frames: int) -> dict[str, Any]:
    """All numbers of a network, in milliseconds."""
    async with connect(f"ws://{where}/api/socket?token={TOKEN}", max_size=None) as socket:
        page = Page(socket, network)
        for number in range(3):  # the network is read, kernels are compiled, small frames learn
            await page.see(x=number, moving=False)
        began = time.perf_counter()
        moving = [await page.see(x=0.05 * number, moving=True) for number in range(1, frames + 1)]
        seconds = time.perf_counter() - began
        rest = [await page.see(x=100 + number, moving=False, whole=True) for number in range(max(3, frames // 10))]
        answers, given_up = await busy(page, where)
    moving.sort()
    return {
        "moving_median_ms": 1e3 * statistics.median(moving), "moving_p95_ms": 1e3 * moving[int(0.95 * len(moving))],
        "frames_per_second": frames / seconds, "rest_median_ms": 1e3 * statistics.median(rest),
        "answer_worst_ms": 1e3 * max(answers), "given_up_ms": None if given_up is None else round(1e3 * given_up, 1),
    }  # fmt: skip


async def busy(page: Page, where: str) -> tuple[list[float], float | None]:
    """While a frame is made: seconds of other requests, and from a newer state to its first frame's beginning."""

    def ask() -> float:
        began = time.perf_counter()
        urllib.request.urlopen(f"http://{where}/api/session?token={TOKEN}").read()
        return time.perf_counter() - began

    await page.ask(x=1000, moving=False)
    answers = [await asyncio.to_thread(ask) for _ in range(10)]
    await page.until(page.number, whole=True)
    await page.ask(x=2000, moving=False)
    await asyncio.sleep(0.5)
    if page.arrived(page.number):  # too quick to be given up
        return answers, None
    began = time.perf_counter()
    await page.ask(x=3000, moving=False)
    header = await page.until(page.number)
    return answers, time.perf_counter() - began - header["ms"] / 1e3


class Page:
    """A page that shows one network."""

    def __init__(self, socket: Any, network: str) -> None:
        self.socket = socket
        self.network = network
        self.number = 0
        self.seen: set[int] = set()

    async def ask(self, x: float, moving: bool) -> None:
        self.number += 1
        state = {"network": self.network, "x": x}
        await self.socket.send(json.dumps({"type": "state", "id": self.number, "moving": moving, "state": state}))

    async def see(self, x: float, moving: bool, whole: bool = False) -> float:
        """Seconds from asking to having the pixels."""
        began = time.perf_counter()
        await self.ask(x, moving)
        await self.until(self.number, whole)
        return time.perf_counter() - began

    async def until(self, number: int, whole: bool = False) -> dict[str, Any]:
        """The header of that frame, when its picture is decoded."""
        while True:
            message = await self.socket.recv()
            if not isinstance(message, bytes):
                sys.exit(f"bench.viewer: {message}")
            (length,) = struct.unpack(">I", message[:4])
            header = json.loads(message[4 : 4 + length])
            await self.socket.send(json.dumps({"type": "got", "id": header["id"]}))
            Image.open(BytesIO(message[4 + length :])).load()
            self.seen.add(header["id"])
            if header["id"] == number and not (whole and header["small"]):
                return header

    def arrived(self, number: int) -> bool:
        return number in self.seen


if __name__ == "__main__":
    main()
