"""Input-to-frame latency of `sg3 view`: `python -m bench.viewer`.

A client moves through latent space and waits for each frame, as a page does: from sending a state to having the frame
decoded, over a real websocket on this machine. Then it rests, and waits for the lossless frame. Networks have random
weights; their widths are those of the demo, of a middle-sized one and, with --full, of the original's StyleGAN3-T and
StyleGAN2 at 256 pixels.

Also: how soon other requests are answered while a network is read and while a frame is made; how soon a frame that is
out of date is given up, and how long the longest layer takes, which is what that is to be held against. Where there is
a Chromium (and Playwright), the page itself is used while a frame is made: how soon its controls answer, how soon the
last frame is marked as old, and whether it stays so (see `viewer_page`).

Each part ends after --seconds, and each network after --minutes, whatever is done by then.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import AsyncExitStack
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
import uvicorn
from PIL import Image
from websockets.asyncio.client import connect

import sg3
from bench.machine import facts
from bench.viewer_page import used
from sg3.device import choose_device
from sg3.formats import Snapshot
from sg3.models import Generator, stylegan2, stylegan3
from sg3.terminal import show
from sg3.viewer.catalogue import Catalogue
from sg3.viewer.guard import Tokens
from sg3.viewer.server import application, configuration, listen, take_short_turns
from sg3.viewer.state import State
from sg3.viewer.viewer import Viewer

# name -> StyleGAN, pixels, channel_base, channel_max
NETWORKS = {"t-64": (3, 64, 1024, 32), "t-256": (3, 256, 4096, 64)}
FULL = {"t-256-full": (3, 256, 32768, 512), "sg2-256-full": (2, 256, 32768, 512)}
LARGE = {"t-1024-full": (3, 1024, 32768, 512)}
ALL = {**NETWORKS, **FULL, **LARGE}
TOKEN = "bench"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=20, help="for each part of each network, once begun")
    parser.add_argument("--minutes", type=float, default=10, help="for each network")
    parser.add_argument("--full", action="store_true", help="networks as wide as the original's, too")
    parser.add_argument("--networks", nargs="+", choices=ALL, metavar="NAME", help=f"only these: {', '.join(ALL)}")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="write the results there")
    options = parser.parse_args()
    names = options.networks or [*NETWORKS, *(FULL if options.full else {})]
    device = choose_device(options.device)
    results: dict[str, Any] = {**facts(device, torch.get_num_threads(), " ".join(sys.argv)), "networks": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            sg3.save(Snapshot(G_ema=network(*ALL[name])), Path(folder) / f"{name}.pkl")
        viewer = Viewer(Catalogue([], [Path(folder)]), device, Tokens(TOKEN, "look"))
        take_short_turns()
        listening = listen("127.0.0.1", 0)
        server = uvicorn.Server(configuration(application(viewer)))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        where = f"127.0.0.1:{listening.getsockname()[1]}"
        for name in names:
            found: dict[str, Any] = {}
            results["networks"][name] = found
            shown = f"{Path(folder).name}/{name}.pkl"
            until = time.monotonic() + 60 * options.minutes
            try:
                asyncio.run(measure(viewer, where, shown, options.frames, options.seconds, until, found))
                found["page"] = used(f"http://{where}/#token={TOKEN}&network={shown}", options.seconds, until)
            except TimeoutError:
                found["unfinished"] = f"after {options.minutes:g} minutes"
            show(f"{name:13} " + "   ".join(words(found)))
            viewer.engine.submit("rest", lambda _: None).result()  # whatever is given up takes a layer to end
        server.should_exit = True
        thread.join()
        viewer.close()
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def network(family: int, size: int, base: int, most: int) -> Generator:
    """One with random weights."""
    torch.manual_seed(0)
    kind = stylegan3.Generator if family == 3 else stylegan2.Generator
    return kind(512, 0, 512, size, 3, channel_base=base, channel_max=most).eval().requires_grad_(False)


def words(found: dict[str, Any]) -> list[str]:
    """What has been measured, in one line."""
    formats = {
        "moving_median_ms": "moving {:.1f} ms median", "moving_p95_ms": "{:.1f} ms p95",
        "frames_per_second": "{:.1f} frames/s", "rest_median_ms": "at rest {:.1f} ms",
        "answer_while_read_worst_ms": "answers while it is read {:.1f} ms at worst",
        "answer_worst_ms": "while frames are made {:.1f} ms", "given_up_ms": "given up after {:.1f} ms",
        "longest_layer_ms": "longest layer {:.1f} ms",
    }  # fmt: skip
    said = [text.format(found[name]) for name, text in formats.items() if found.get(name) is not None]
    page = found.get("page")
    if isinstance(page, dict):
        said.append("page: " + ", ".join(f"{name.removesuffix('_ms').replace('_', ' ')} {value:.1f}"
                                         + (" ms" if name.endswith("_ms") else "") for name, value in page.items()))
    elif "page" in found:
        said.append(f"page: {page}")
    return said + ([f"unfinished {found['unfinished']}"] if "unfinished" in found else [])


def longest_layer(viewer: Viewer, network: str) -> float:
    """Seconds, of a frame that nothing is kept of; on the networks' thread."""
    painter = viewer.painter(network)
    painter.stepwise.forget()
    stamps: list[float] = []
    painter.image(State(network=network, seed=9), lambda: stamps.append(time.perf_counter()), by_layers=True)
    stamps.append(time.perf_counter())
    return max(after - before for before, after in pairwise(stamps))


async def measure(
    viewer: Viewer, where: str, network: str, frames: int, seconds: float, until: float, found: dict[str, Any]
) -> None:
    """All numbers of a network, in milliseconds, into `found`. Raises TimeoutError, at `until` or a layer later."""
    async with (
        asyncio.timeout(until - time.monotonic()),
        connect(f"ws://{where}/api/socket?token={TOKEN}", max_size=None) as socket,
        AsyncExitStack() as stack,
    ):
        page = Page(socket, network)
        stack.callback(page.reading.cancel)

        async def several(count: int, first: float, step: float, moving: bool) -> list[float]:
            """Seconds of frames, as many as there is time for, one at least."""
            began, times = time.perf_counter(), []
            for number in range(count):
                times.append(await page.see(x=first + step * number, moving=moving, whole=not moving))
                if time.perf_counter() - began > seconds:
                    break
            return times

        await page.ask(x=0, moving=False)  # the network is read, kernels are compiled
        answers = await asked(where, ["session?", "networks?"], lambda: page.arrived(page.number), seconds)
        found["answer_while_read_worst_ms"] = 1e3 * max(answers)
        await page.until(page.number, whole=True)
        await several(2, 1, 1, moving=False)  # small frames learn
        moving = sorted(await several(frames, 0.05, 0.05, moving=True))
        found["moving_median_ms"], found["moving_p95_ms"] = 1e3 * median(moving), 1e3 * moving[int(0.95 * len(moving))]
        found["moving_frames"], found["frames_per_second"] = len(moving), len(moving) / sum(moving)
        found["rest_median_ms"] = 1e3 * median(await several(max(3, frames // 10), 100, 1, moving=False))
        await page.ask(x=1000, moving=False)
        paths = ["session?", "networks?", f"network?network={network}&"]
        answers = await asked(where, paths, lambda: page.arrived(page.number), seconds)
        found["answer_worst_ms"], found["answers"] = 1e3 * max(answers), len(answers)
        await page.until(page.number, whole=True)
        found["given_up_ms"] = await given_up(viewer, page)
        found["longest_layer_ms"] = 1e3 * await asyncio.wrap_future(
            viewer.engine.submit("layers", lambda _: longest_layer(viewer, network))
        )


async def asked(where: str, paths: list[str], is_over: Callable[[], bool], seconds: float) -> list[float]:
    """Seconds that requests take, one after the other, as long as a frame is made; ten at least."""
    began, times = time.perf_counter(), []

    def ask(path: str) -> float:
        began = time.perf_counter()
        urllib.request.urlopen(f"http://{where}/api/{path}token={TOKEN}").read()
        return time.perf_counter() - began

    while len(times) < 10 or not (is_over() or time.perf_counter() - began > seconds):
        times.append(await asyncio.to_thread(ask, paths[len(times) % len(paths)]))
        await asyncio.sleep(0.02)
    return times


async def given_up(viewer: Viewer, page: Page) -> float | None:
    """Milliseconds from a newer state to when the networks' thread has time for something else; None for a frame that
    is made before anything newer can come."""
    await page.ask(x=2000, moving=False)
    await asyncio.sleep(0.5)
    if page.arrived(page.number):
        return None
    began = time.perf_counter()
    await page.ask(x=3000, moving=False)
    free = await asyncio.wrap_future(viewer.engine.submit("next", lambda _: time.perf_counter()))
    await page.until(page.number)
    return 1e3 * (free - began)


class Page:
    """A page that shows one network."""

    def __init__(self, socket: Any, network: str) -> None:
        self.socket = socket
        self.network = network
        self.number = 0
        self.seen: set[int] = set()
        self.whole: set[int] = set()
        self.news = asyncio.Condition()
        self.reading = asyncio.create_task(self._read())

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

    async def until(self, number: int, whole: bool = False) -> None:
        """Wait for that frame, small or `whole`, to be decoded."""
        async with self.news:
            await self.news.wait_for(lambda: self.reading.done() or number in (self.whole if whole else self.seen))
        if self.reading.done():
            self.reading.result()

    async def _read(self) -> None:
        async for message in self.socket:
            if not isinstance(message, bytes):
                sys.exit(f"bench.viewer: {message}")
            (length,) = struct.unpack(">I", message[:4])
            header = json.loads(message[4 : 4 + length])
            await self.socket.send(json.dumps({"type": "got", "id": header["id"]}))
            Image.open(BytesIO(message[4 + length :])).load()
            async with self.news:
                self.seen.add(header["id"])
                if not header["small"]:
                    self.whole.add(header["id"])
                self.news.notify_all()

    def arrived(self, number: int) -> bool:
        """Whether the whole frame is there."""
        return number in self.whole


if __name__ == "__main__":
    main()
