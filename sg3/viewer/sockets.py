"""The websocket of a page: states come in, frames go out, one of them on its way at a time.

From the page, JSON: `{"type": "state", "id": 7, "moving": true, "state": {...}}`, and `{"type": "got", "id": 7}` for a
frame that has arrived. To the page: a frame, four bytes with the length of a JSON header, the header, the picture (JPEG
while moving, else PNG; where pictures take long, a `small` one comes first); or JSON text
`{"type": "error", "id": 7, "error": {...}}`.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from sg3.errors import Sg3Error, UsageError
from sg3.transparency import opaque
from sg3.viewer import encode
from sg3.viewer.engine import Stale
from sg3.viewer.guard import error_body
from sg3.viewer.settings import Whole
from sg3.viewer.state import State
from sg3.viewer.viewer import Frame, Viewer, Wanted

MOST_CLIENTS = 64  # with each token
MESSAGE_BYTES = 2**16
MESSAGES_PER_SECOND = 200
BURST = 400
PATIENCE = 30.0  # seconds that a frame may take to arrive
NUMBER = Whole(0, 2**53 - 1)  # as far as JavaScript counts
MOST_BAD = 50  # messages that make no sense, before we hang up


class Sockets:
    """All websockets."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._counts = {"full": 0, "look": 0}  # however many look, whoever may do more finds a place

    async def serve(self, socket: WebSocket) -> None:
        """One of them, until it is closed."""
        role = socket.state.role
        if self._counts[role] >= MOST_CLIENTS:
            await socket.close(1013, "too many pages are open")
            return
        self._counts[role] += 1
        try:
            await socket.accept()
            await Client(self._viewer, socket).run()
        finally:
            self._counts[role] -= 1


class Client:
    """One page."""

    def __init__(self, viewer: Viewer, socket: WebSocket) -> None:
        self._viewer = viewer
        self._socket = socket
        self._sending = asyncio.Lock()
        self._newest: Wanted | None = None
        self._has_new = asyncio.Event()
        self._arrived = asyncio.Event()
        self._on_its_way: int | None = None
        self._arrived.set()
        self._bad = 0

    async def run(self) -> None:
        """Until the page goes away, stops reading, or makes no sense."""
        tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._show())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._viewer.engine.forget(self)
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect | TimeoutError):
                    self._viewer.explain(result)
            with suppress(Exception):
                await self._socket.close(1008 if self._bad >= MOST_BAD else 1000)

    async def _listen(self) -> None:
        allowance, then = float(BURST), time.monotonic()
        while self._bad < MOST_BAD:
            received = await self._socket.receive()
            if received["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(received["code"])
            text = received.get("text") or ""  # bytes are no message of ours: a bad one
            now = time.monotonic()
            allowance, then = min(BURST, allowance + (now - then) * MESSAGES_PER_SECOND) - 1, now
            if allowance < 0:  # who writes faster than that waits: we do not read on
                await asyncio.sleep(1 / MESSAGES_PER_SECOND)
            try:
                self._take(text)
            except UsageError as error:
                self._bad += 1
                await self._say(None, error)

    def _take(self, text: str) -> None:
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise UsageError("message: expected a JSON object")
        number = message.get("id")
        try:
            number = NUMBER.read(number)
        except ValueError as error:
            raise UsageError(f"id: {error}") from None
        if message.get("type") == "got":
            if number == self._on_its_way:
                self._arrived.set()
        elif message.get("type") == "state" and isinstance(message.get("state"), dict):
            self._newest = Wanted(number, State.read(message["state"]), message.get("moving") is True)
            self._viewer.engine.outdate(self)
            self._has_new.set()
        else:
            raise UsageError("type: expected state, with the state, or got")

    async def _show(self) -> None:
        """Make the newest picture, again and again; the next one is made while the last is on its way."""
        while True:
            await self._has_new.wait()
            self._has_new.clear()
            try:
                wanted, frame = await self._viewer.newest(self, self._newest_state)
            except Stale:
                continue
            except (Sg3Error, Exception) as error:
                await self._say(self._newest_state().number, error)
                continue
            if wanted is self._newest:
                self._has_new.clear()
                if frame.is_small:
                    self._newest = replace(wanted, had_small=True)
                    self._has_new.set()
            data = await asyncio.to_thread(_packed, wanted, frame)
            async with asyncio.timeout(PATIENCE):
                await self._arrived.wait()
                self._arrived.clear()
                self._on_its_way = wanted.number
                async with self._sending:
                    await self._socket.send_bytes(data)

    def _newest_state(self) -> Wanted:
        assert self._newest is not None
        return self._newest

    async def _say(self, number: int | None, error: Exception) -> None:
        status, words = await asyncio.to_thread(self._viewer.explain, error)
        message: dict[str, Any] = {"type": "error", "id": number, **error_body(status, words)}
        async with asyncio.timeout(PATIENCE), self._sending:
            await self._socket.send_text(json.dumps(message))


def _packed(wanted: Wanted, frame: Frame) -> bytes:
    """A frame as it is sent; with alpha, over a checkerboard."""
    lossy = wanted.moving or frame.is_small
    picture = encode.jpeg(frame.pixels) if lossy else encode.png(opaque(frame.pixels), level=encode.FAST)
    header = {
        "type": "frame", "id": wanted.number, "mime": "image/jpeg" if lossy else "image/png", "small": frame.is_small,
        "ms": round(1000 * frame.seconds, 2), "size": [frame.pixels.shape[1], frame.pixels.shape[0]],
    }  # fmt: skip
    head = json.dumps(header).encode()
    return struct.pack(">I", len(head)) + head + picture
