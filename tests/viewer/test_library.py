"""Networks are read beside the frames: a large file holds up nobody but who wants it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sg3.errors import DataError
from sg3.viewer import library
from sg3.viewer.pictures import Painter
from sg3.viewer.state import State
from sg3.viewer.viewer import MemoryFull, Viewer, Visit
from tests.helpers.for_tools import saved, tiny3
from tests.helpers.viewers import viewer_of

SOON = 20.0


class Slow:
    """`load`, which waits at one file until it is let go on, and counts."""

    def __init__(self, name: str) -> None:
        self.name, self.load = name, library.load
        self.began, self.go_on = threading.Event(), threading.Event()
        self.read: list[str] = []
        self.error: Exception | None = None

    def __call__(self, path: Path, device):
        self.read.append(path.name)
        if path.name == self.name:
            self.began.set()
            assert self.go_on.wait(SOON)
            if self.error is not None:
                raise self.error
        return self.load(path, device)


@pytest.fixture
def viewer(tmp_path: Path) -> Iterator[Viewer]:
    made = viewer_of(*(saved(tiny3(), tmp_path / f"{name}.pkl") for name in ("first", "large", "c", "d", "e")))
    yield made
    made.close()


@pytest.fixture
def slow(monkeypatch) -> Slow:
    made = Slow("large.pkl")
    monkeypatch.setattr(library, "load", made)
    return made


def test_frames_go_on_while_a_file_is_read(viewer: Viewer, slow: Slow) -> None:
    async def use() -> None:
        await viewer.frame("a", State())
        waiting = [asyncio.create_task(viewer.frame(Visit("full"), State(network="large.pkl", seed=n))) for n in (1, 2)]
        facts = asyncio.create_task(viewer.facts("large.pkl"))
        assert await asyncio.to_thread(slow.began.wait, SOON)
        shown = await asyncio.wait_for(viewer.frame("a", State(seed=5)), SOON)
        assert np.array_equal(shown.pixels, Painter(tiny3()).picture(State(seed=5)))
        assert (await asyncio.wait_for(viewer.facts(""), SOON))["resolution"] == 16
        assert not any(task.done() for task in (*waiting, facts))
        slow.go_on.set()
        frames = await asyncio.wait_for(asyncio.gather(*waiting), SOON)
        for seed, frame in enumerate(frames, 1):
            assert np.array_equal(frame.pixels, Painter(tiny3()).picture(State(seed=seed)))
        assert (await facts)["resolution"] == 16
        assert slow.read == ["first.pkl", "large.pkl"]  # once for all three

    asyncio.run(use())


def test_facts_wait_for_no_frame(viewer: Viewer) -> None:
    began, go_on = threading.Event(), threading.Event()

    def work(_: object) -> None:
        began.set()
        assert go_on.wait(SOON)

    async def use() -> None:
        await viewer.facts("c.pkl")
        running = asyncio.wrap_future(viewer.engine.submit("long", work))
        assert await asyncio.to_thread(began.wait, SOON)
        assert (await asyncio.wait_for(viewer.facts("c.pkl"), SOON))["layers"][0] == "input"
        assert not running.done()
        go_on.set()
        await running

    asyncio.run(use())


def test_who_is_gone_before_its_turn_has_nothing_read(viewer: Viewer, slow: Slow) -> None:
    async def use() -> None:
        await viewer.frame("a", State())
        first = asyncio.create_task(viewer.facts("large.pkl"))
        assert await asyncio.to_thread(slow.began.wait, SOON)
        others = [asyncio.create_task(viewer.facts(f"{name}.pkl")) for name in "cde"]
        await asyncio.sleep(0.1)
        for task in (*others, first):
            task.cancel()
        await asyncio.gather(first, *others, return_exceptions=True)
        slow.go_on.set()
        await viewer.frame("a", State(network="e.pkl"))
        assert slow.read == ["first.pkl", "large.pkl", "e.pkl"]

    asyncio.run(use())


@pytest.mark.parametrize(
    ("error", "raised"),
    [(DataError("no network"), DataError), (MemoryError(), MemoryFull), (RuntimeError("a bug"), RuntimeError)],
)
def test_what_fails_while_it_is_read_is_said(viewer: Viewer, slow: Slow, error: Exception, raised: type) -> None:
    slow.error = error
    slow.go_on.set()

    async def use() -> None:
        with pytest.raises(raised):
            await viewer.frame("a", State(network="large.pkl"))
        assert (await viewer.frame("a", State())).pixels.shape == (16, 16, 3)

    asyncio.run(use())
