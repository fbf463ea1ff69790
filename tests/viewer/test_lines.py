"""Connections that only hold a server up: there are so many of them, they get so much of its time, and no more."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="uvicorn is not installed (sg3[viewer])")
pytest.importorskip("websockets", reason="websockets is not installed (sg3[viewer])")

import uvicorn

from sg3.viewer import lines as module
from sg3.viewer.lines import Line, Lines

SOON = 30.0
LARGE = 20_000_000
ASK = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Server:
    """Answers `/` with a little, `/trusted` too, `/large` with much, `/body` with the length of what was sent."""

    def __init__(self) -> None:
        self.lines = Lines()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        config = uvicorn.Config(self.app, http=self.lines.protocol, log_config=None, lifespan="off",
                                interface="asgi3", timeout_graceful_shutdown=1)  # fmt: skip
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/trusted":
            self.lines.trust(tuple(scope["client"]))
        body = b"x" * (LARGE if scope["path"] == "/large" else 10)
        if scope["path"] == "/body":
            size, more = 0, True
            while more:
                message = await receive()
                size, more = size + len(message["body"]), message["more_body"]
            body = str(size).encode()
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-length", str(len(body)).encode())]})  # fmt: skip
        await send({"type": "http.response.body", "body": body})

    def client(self, data: bytes = b"") -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port), timeout=SOON)
        made.sendall(data)
        return made


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.server.should_exit = True
    made.thread.join(SOON)


def answers(client: socket.socket, path: bytes = b"/") -> bool:
    """Whether it is answered on this connection, or finds it closed."""
    answer = b""
    try:
        client.sendall(ASK % path)
        while not answer.endswith(b"x" * 10):
            more = client.recv(1000)
            if not more:
                return False
            answer += more
    except ConnectionError:
        return False
    return answer.startswith(b"HTTP/1.1 200")


def test_of_those_that_have_shown_no_token_the_oldest_go(server: Server, monkeypatch) -> None:
    monkeypatch.setattr(module, "MOST_STRANGERS", 5)
    trusted = server.client()
    assert answers(trusted, b"/trusted")
    idle = []
    for _ in range(8):  # each of them has begun to ask, and does not go on
        idle.append(server.client(b"GET / HT"))
        time.sleep(0.05)  # in this order
    for client in idle[:3]:
        assert client.recv(10) == b"" if not _is_reset(client) else True
    assert answers(server.client())
    assert answers(trusted)
    idle[-1].sendall(b"TP/1.1\r\nHost: localhost\r\n\r\n")
    assert idle[-1].recv(1000).startswith(b"HTTP/1.1 200")


def _is_reset(client: socket.socket) -> bool:
    try:
        client.recv(10, socket.MSG_PEEK)
    except ConnectionResetError:
        return True
    return False


def test_who_does_not_read_is_cut_off_and_who_reads_slowly_is_not(server: Server, monkeypatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    monkeypatch.setattr(module, "LEAST", 2**12)
    received = []
    for seconds in (4 * module.PATIENCE, 0.05):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
        client.settimeout(SOON)
        client.connect(("127.0.0.1", server.port))
        client.sendall(ASK % b"/large")
        received.append(0)
        for _ in range(8):  # slowly at first
            time.sleep(seconds)
            try:
                received[-1] += len(client.recv(2**20))
            except ConnectionResetError:
                break
            if seconds > 1:
                break
        try:
            while len(data := client.recv(2**20)):
                received[-1] += len(data)
                if received[-1] >= LARGE:
                    break
        except ConnectionResetError:
            pass
        client.close()
    assert received[0] < LARGE <= received[1]


def test_a_large_body_comes_whole(server: Server) -> None:
    size = 3_000_001
    with server.client(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"z" * size) as client:
        answer = b""
        while not answer.endswith(b"\r\n\r\n%d" % size):
            more = client.recv(1000)
            assert more, answer
            answer += more


class Inner(asyncio.Protocol):
    """A protocol that takes its time for each piece."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.spent = 0.0

    def data_received(self, data: bytes) -> None:
        began = time.thread_time()
        while time.thread_time() < began + 0.005:
            pass
        self.got += data
        self.spent += time.thread_time() - began


class Transport:
    """One that keeps what it was told."""

    def __init__(self) -> None:
        self.paused = False
        self.size = 0
        self.cut = False

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else None

    def get_write_buffer_size(self) -> int:
        return self.size

    def is_closing(self) -> bool:
        return self.cut

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def abort(self) -> None:
        self.cut = True


def test_reading_takes_a_share_of_the_time_and_loses_nothing(monkeypatch) -> None:
    monkeypatch.setattr(module, "BURST", 0.05)
    monkeypatch.setattr(module, "SHARE", 0.01)

    async def use() -> None:
        inner, transport = Inner(), Transport()
        line = Line(Lines(), inner)
        line.connection_made(transport)  # type: ignore[arg-type]
        sent = bytes(range(256)) * (60 * module.PIECE // 256)
        began = time.monotonic()
        line.data_received(sent)
        await asyncio.sleep(1)
        assert inner.spent <= module.BURST + module.SHARE * (time.monotonic() - began) + 0.05  # which a piece may take
        assert transport.paused
        monkeypatch.setattr(module, "SHARE", 10.0)
        while len(inner.got) < len(sent):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert inner.got == sent
        assert not transport.paused
        line.data_received(b"more")
        assert inner.got.endswith(b"more")

    asyncio.run(asyncio.wait_for(use(), SOON))


def test_nothing_is_read_from_who_does_not_read(monkeypatch) -> None:
    """Otherwise its pings would be answered into a buffer without end."""
    monkeypatch.setattr(module, "PATIENCE", 0.4)

    async def use() -> None:
        inner, transport = Inner(), Transport()
        line = Line(Lines(), inner)
        line.connection_made(transport)  # type: ignore[arg-type]
        transport.size = 30 * module.LEAST
        line.pause_writing()
        line.data_received(b"ping")
        assert transport.paused
        assert inner.got == b""
        for _ in range(20):
            transport.size -= module.LEAST
            await asyncio.sleep(0.05)
        assert not transport.cut
        line.resume_writing()
        await asyncio.sleep(0.05)
        assert inner.got == b"ping"
        line._left = -0.001  # its share is used up while the protocol has enough, too
        line.data_received(b"x")
        line.hold("protocol")
        await asyncio.sleep(0.5)
        line.release("protocol")
        await asyncio.sleep(0.05)
        assert not transport.paused
        line.pause_writing()
        await asyncio.sleep(1)
        assert transport.cut

    asyncio.run(asyncio.wait_for(use(), SOON))
