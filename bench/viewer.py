"""Input-to-frame latency of `sg3 view`: `python -m bench.viewer`.

A client moves through latent space and waits for each frame, as a page does: from sending a state to having the frame
decoded, over a real websocket on this machine. Then it rests, and waits for the lossless frame. Networks have random
weights; their widths are those of the demo, of a middle-sized one and, with --full, of StyleGAN3-T at 1024 pixels.
Also: how soon other requests are answered while a frame is made, how soon a frame that is out of date is given up, and
how long the longest layer takes, which is what that is to be held against. Each part ends after --seconds, whatever is
done by then, so that the whole takes a few minutes even where a frame takes half of one.
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
from itertools import pairwise
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
from sg3.viewer.state import State
from sg3.viewer.viewer import Viewer

NETWORKS = {"t-64": (64, 1024, 32), "t-256": (256, 4096, 64)}  # name -> pixels, channel_base, channel_max
FULL = {"t-1024": (1024, 32768, 512)}
TOKEN = "bench"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=30, help="for each part of each network, once begun")
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
            frames = options.frames if name in NETWORKS else 20
            found = asyncio.run(measure(where, f"{label}/{name}.pkl", frames, options.seconds))
            found["longest_layer_ms"] = 1e3 * longest_layer(viewer, f"{label}/{name}.pkl")
            results["networks"][name] = found
            show(f"{name:8} moving {found['moving_median_ms']:8.1f} ms median {found['moving_p95_ms']:8.1f} ms p95 "
                 f"{found['frames_per_second']:6.1f} frames/s   at rest {found['rest_median_ms']:8.1f} ms   answers "
                 f"{found['answer_worst_ms']:6.1f} ms at worst   given up after {found['given_up_ms']} ms, "
                 f"longest layer {found['longest_layer_ms']:.1f} ms")  # fmt: skip
        server.should_exit = True
        thread.join()
        viewer.close()
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def longest_layer(viewer: Viewer, network: str) -> float:
    """Seconds, of a frame that nothing is kept of."""

    def work(_: object) -> float:
        painter = viewer.painter(network)
        painter.stepwise.forget()
        stamps: list[float] = []
        painter.image(State(network=network, seed=9), lambda: stamps.append(time.perf_counter()), by_layers=True)
        stamps.append(time.perf_counter())
        return max(after - before for before, after in pairwise(stamps))

    return viewer.engine.submit("layers", work).result()


async def measure(where: str, network: str, frames: int, seconds: float) -> dict[str, Any]:
    """All numbers of a network, in milliseconds."""
    async with connect(f"ws://{where}/api/socket?token={TOKEN}", max_size=None) as socket:
        page = Page(socket, network)

        async def several(count: int, first: float, step: float, moving: bool) -> list[float]:
            """Seconds of frames, as many as there is time for, one at least."""
            began, found = time.perf_counter(), []
            for number in range(count):
                found.append(await page.see(x=first + step * number, moving=moving, whole=not moving))
                if time.perf_counter() - began > seconds:
                    break
            return found

        await several(3, 0, 1, moving=False)  # the network is read, kernels are compiled, small frames learn
        moving = await several(frames, 0.05, 0.05, moving=True)
        rest = await several(max(3, frames // 10), 100, 1, moving=False)
        answers, given_up = await busy(page, where)
    per_second = len(moving) / sum(moving)
    moving.sort()
    return {
        "moving_median_ms": 1e3 * statistics.median(moving), "moving_p95_ms": 1e3 * moving[int(0.95 * len(moving))],
        "moving_frames": len(moving), "frames_per_second": per_second, "rest_median_ms": 1e3 * statistics.median(rest),
        "answer_worst_ms": 1e3 * max(answers), "given_up_ms": None if given_up is None else round(1e3 * given_up, 1),
    }  # fmt: skip


async def busy(page: Page, where: str) -> tuple[list[float], float | None]:
    """While a frame is made: seconds of other requests, and from a newer state to its first frame's beginning."""

    def ask(path: str) -> float:
        began = time.perf_counter()
        urllib.request.urlopen(f"http://{where}/api/{path}token={TOKEN}").read()
        return time.perf_counter() - began

    await page.ask(x=1000, moving=False)
    paths = ["session?", f"network?network={page.network}&"] * 5
    answers = [await asyncio.to_thread(ask, path) for path in paths]
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
