"""The websocket: frames, the newest first, and clients that behave as clients do. Against a real server."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from sg3.viewer import sockets
from sg3.viewer import viewer as viewers
from sg3.viewer.pictures import Painter
from sg3.viewer.state import State
from tests.helpers.for_tools import saved, tiny3
from tests.helpers.viewers import FULL, Served, pixels_of, served, viewer_of

SOON = 60.0  # something hangs if it takes longer; how quick things are is not for busy machines to say


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Served]:
    path = saved(tiny3(), tmp_path_factory.mktemp("networks") / "net.pkl")
    expected()  # kernels are compiled, or read, in no test's time
    with served(viewer_of(path)) as made:
        yield made


def expected(**state: object) -> np.ndarray:
    return Painter(tiny3()).picture(State.read(state))


class Page:
    """What a page does."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def ask(self, number: int, moving: bool = False, **state: object) -> None:
        message = {"type": "state", "id": number, "moving": moving, "state": state}
        await self.connection.send(json.dumps(message))

    async def got(self, number: int) -> None:
        await self.connection.send(json.dumps({"type": "got", "id": number}))

    async def frame(self) -> tuple[dict, bytes]:
        message = await asyncio.wait_for(self.connection.recv(), SOON)
        assert isinstance(message, bytes), message
        (length,) = struct.unpack(">I", message[:4])
        return json.loads(message[4 : 4 + length]), message[4 + length :]

    async def text(self) -> dict:
        return json.loads(await asyncio.wait_for(self.connection.recv(decode=True), SOON))

    async def see(self, number: int, **state: object) -> np.ndarray:
        """Ask, and wait for the still frame."""
        await self.ask(number, **state)
        while True:
            header, data = await self.frame()
            await self.got(header["id"])
            if header["id"] == number:
                return pixels_of(data)


def page(server: Served, origin: str | None = None):
    # Who has flooded the server waits long for its goodbye: messages are read at their rate. Not here.
    return connect(server.url(f"/api/socket?token={FULL}", "ws"), max_queue=None, origin=origin, close_timeout=1)


def test_still_frames_are_lossless_and_moving_ones_jpeg(server: Served) -> None:
    async def use() -> None:
        async with page(server, origin=server.url("")) as connection:
            mine = Page(connection)
            assert np.array_equal(await mine.see(1, seed=3, trunc=0.7), expected(seed=3, trunc=0.7))
            await mine.ask(2, moving=True, seed=4)
            header, data = await mine.frame()
            assert (header["id"], header["mime"], header["size"]) == (2, "image/jpeg", [16, 16])
            assert data[:3] == b"\xff\xd8\xff"

    asyncio.run(use())


def test_one_frame_is_on_its_way_and_then_the_newest(server: Served) -> None:
    async def use() -> None:
        async with page(server) as connection:
            mine = Page(connection)
            for number in range(1, 100):
                await mine.ask(number, moving=True, seed=number)
            header, _ = await mine.frame()
            with pytest.raises(asyncio.TimeoutError):  # not before the first has arrived
                await asyncio.wait_for(connection.recv(), 0.3)
            seen = [header["id"]]
            while seen[-1] != 99:
                await mine.got(seen[-1])
                seen.append((await mine.frame())[0]["id"])
            assert seen == sorted(seen)
            assert len(seen) <= 4

    asyncio.run(use())


def test_a_slow_frame_is_dropped_for_a_newer_one(server: Served, monkeypatch) -> None:
    began, go_on = threading.Event(), threading.Event()
    plain, stopped = Painter.picture, []

    def slow(self: Painter, state: State, check) -> np.ndarray:
        if state.seed == 1:
            began.set()
            assert go_on.wait(SOON)
            try:
                check()
            except Exception as error:
                stopped.append(type(error).__name__)
                raise
        return plain(self, state, check)

    monkeypatch.setattr(Painter, "picture", slow)
    monkeypatch.setattr(viewers, "FINISHED_ANYWAY", 0.0)

    async def use() -> None:
        async with page(server) as connection:
            mine = Page(connection)
            await mine.ask(1, seed=1)
            assert await asyncio.to_thread(began.wait, SOON)
            await mine.ask(2, seed=2)
            await asyncio.sleep(0.1)
            go_on.set()
            header, _ = await mine.frame()
            assert header["id"] == 2

    asyncio.run(use())
    assert stopped == ["Stale"]


def test_what_cannot_be_shown_is_said(server: Served) -> None:
    async def use() -> None:
        async with page(server) as connection:
            mine = Page(connection)
            await mine.ask(1, network="nothing.pkl")
            error = await mine.text()
            assert (error["type"], error["id"], error["error"]["status"]) == ("error", 1, 404)
            await mine.ask(2, seed="x")
            assert "seed=x: expected a whole number" in (await mine.text())["error"]["message"]
            assert np.array_equal(await mine.see(3, seed=1), expected(seed=1))

    asyncio.run(use())


GARBAGE = ["", "[]", "null", "{", '{"type": "state"}', '{"type": "state", "id": 1}', '{"type": "x", "id": 1}',
           '{"type": "state", "id": true, "state": {}}', "[" * 50_000, '{"type": "state", "id": 1, "state": []}',
           '{"type": "got", "id": 1e400}', "\x00\ufffd"]  # fmt: skip


def test_garbage_is_answered_and_then_hung_up_on(server: Served) -> None:
    async def use() -> None:
        async with page(server) as connection:
            for text in (*GARBAGE, b"\x00binary"):
                await connection.send(text)
                answer = json.loads(await asyncio.wait_for(connection.recv(), SOON))
                assert answer["error"]["status"] == 400
            assert np.array_equal(await Page(connection).see(1, seed=1), expected(seed=1))
        async with page(server) as connection:
            for _ in range(sockets.MOST_BAD):
                await connection.send("garbage")
                await asyncio.wait_for(connection.recv(), SOON)
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(connection.recv(), SOON)
        async with page(server) as connection:
            await connection.send("x" * 100_000)
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(connection.recv(), SOON)

    asyncio.run(use())


def test_clients_that_do_not_read_flood_or_vanish_cost_the_others_nothing(server: Served) -> None:
    async def use() -> None:
        async with page(server) as deaf, page(server) as flooding, page(server) as vanishing, page(server) as good:
            await Page(deaf).ask(1, moving=True, seed=1)  # and never says that it has got it
            stop = asyncio.Event()

            async def flood() -> None:
                number = 0
                while not stop.is_set():
                    number += 1
                    await Page(flooding).ask(number, moving=True, seed=number)
                    await asyncio.sleep(0)

            async def read() -> None:
                async for _ in flooding:
                    pass

            tasks = [asyncio.create_task(flood()), asyncio.create_task(read())]
            await Page(vanishing).ask(1, seed=1)
            vanishing.transport.abort()
            for number in range(5):
                shown = await asyncio.wait_for(Page(good).see(number, seed=number), 5)
                assert np.array_equal(shown, expected(seed=number))
            stop.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(use())


def test_forty_clients_at_once(server: Served) -> None:
    wanted = {seed: expected(seed=seed) for seed in range(4)}

    async def one(client: int) -> None:
        async with page(server) as connection:
            for number in range(3):
                seed = (client + number) % 4
                assert np.array_equal(await Page(connection).see(number, seed=seed), wanted[seed])

    async def use() -> None:
        await asyncio.gather(*(one(client) for client in range(40)))

    asyncio.run(use())


def test_there_is_a_last_client(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sockets, "MOST_CLIENTS", 1)

    async def use(server: Served) -> None:
        async with page(server) as connection:
            await Page(connection).see(1)
            with pytest.raises(Exception, match=r"rejected|1013"):
                async with page(server) as another:
                    await Page(another).see(1)
        await asyncio.sleep(0.1)
        async with page(server) as connection:
            await Page(connection).see(1)

    with served(viewer_of(saved(tiny3(), tmp_path / "net.pkl"))) as server:
        asyncio.run(use(server))
