"""What nobody waits for any more is given up after the layer that runs: an old frame, a request of who has left."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from websockets.asyncio.client import connect

from sg3.viewer import stepwise
from sg3.viewer.pictures import Painter
from sg3.viewer.state import State
from sg3.viewer.stepwise import Step
from tests.helpers.for_tools import saved, tiny3
from tests.helpers.viewers import FULL, Served, served, viewer_of

SOON = 20.0
LAYER = 0.25  # seconds of each layer: more than anything else here takes


class Layers:
    """The layers of every network, each of which takes its time; and when which of them began."""

    def __init__(self) -> None:
        self.began: list[tuple[float, int]] = []
        self.plain = stepwise._stylegan3_steps
        self.first = threading.Event()

    def __call__(self, network) -> list[Step]:
        def slowed(index: int, step: Step) -> Step:
            def run(*arguments):
                self.began.append((time.perf_counter(), index))
                self.first.set()
                time.sleep(LAYER)
                return step.run(*arguments)

            return Step(step.first, step.stop, run, step.has_noise, step.other)

        return [slowed(index, step) for index, step in enumerate(self.plain(network))]


@pytest.fixture
def layers(monkeypatch) -> Layers:
    Painter(tiny3()).picture(State())  # kernels are compiled: that takes longer than a layer
    made = Layers()
    monkeypatch.setattr(stepwise, "_stylegan3_steps", made)
    return made


@pytest.fixture
def server(layers: Layers, tmp_path) -> Iterator[Served]:
    with served(viewer_of(saved(tiny3(), tmp_path / "net.pkl"))) as made:
        yield made


def when_free(server: Served) -> float:
    """When the networks' thread had time for something else."""
    return server.viewer.engine.submit("next", lambda _: time.perf_counter()).result(SOON)


def test_the_first_frame_of_all_is_dropped_within_a_layer(server: Served, layers: Layers) -> None:
    async def use() -> tuple[float, float]:
        async with connect(server.url(f"/api/socket?token={FULL}", "ws")) as page:
            async def ask(number: int, seed: int) -> None:
                state = {"type": "state", "id": number, "moving": False, "state": {"seed": seed}}
                await page.send(json.dumps(state))

            await ask(1, 1)
            assert await asyncio.to_thread(layers.first.wait, SOON)
            await asyncio.sleep(3 * LAYER)  # longer than what is finished anyway
            asked = time.perf_counter()
            await ask(2, 2)
            return asked, await asyncio.to_thread(when_free, server)

    asked, free = asyncio.run(use())
    assert free - asked < 2 * LAYER
    assert [index for began, index in layers.began if asked + 0.1 < began < free] == []


PATHS = ["/api/layers?", "/api/spectrum?layer=L3_16_3&", "/api/equivariance?rotate=9&", "/api/image.png?"]


@pytest.mark.parametrize("path", PATHS)
def test_a_request_is_given_up_when_who_asked_is_gone(server: Served, layers: Layers, path: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(f"GET {path}token={FULL} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert layers.first.wait(SOON)
        time.sleep(2 * LAYER)
    left = time.perf_counter()
    assert when_free(server) - left < 2 * LAYER
    assert len(layers.began) < 5
