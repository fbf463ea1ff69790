"""Connections that hold the server up: those that only lie there, that do not read, that keep it busy with nothing.

A `Line` stands between the network and uvicorn's protocol and lets through what is sensible:

- Of connections that have not shown a token only so many may be open; for a new one the oldest goes. So whoever opens
  them by the hundred shuts out nobody else.
- Who takes too little of what was written, for too long, is cut off; meanwhile nothing more is read from there.
- Reading what comes may take a share of the server's time, no more: endless empty fragments or pings come slowly.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_STRANGERS = 200  # connections that have not shown a token
PATIENCE = 30.0  # seconds in which at least LEAST bytes of what is written have to be taken
LEAST = 2**16
PIECE = 2**13  # bytes that are read at a time: others have their turn in between
SHARE = 0.1  # of the server's time that reading from one connection may take,
BURST = 0.2  # and seconds of it at once

Address = tuple[str, int]


class Lines:
    """All connections of a server."""

    def __init__(self) -> None:
        self._strangers: dict[Address, Line] = {}  # in the order they came

    def protocol(self, **uvicorn: Any) -> Line:
        """One more, as uvicorn's own protocol is made."""
        return Line(self, H11Protocol(**uvicorn))

    def came(self, line: Line, address: Address) -> None:
        """It is open. The oldest stranger makes room."""
        self._strangers[address] = line
        if len(self._strangers) > MOST_STRANGERS:
            self._strangers.pop(next(iter(self._strangers))).cut()

    def trust(self, address: Address) -> None:
        """It has shown a token."""
        self._strangers.pop(address, None)

    def went(self, line: Line, address: Address) -> None:
        """It is closed."""
        if self._strangers.get(address) is line:
            del self._strangers[address]


class Line(asyncio.Protocol):
    """One connection; `inner` is what uvicorn made for it, and after an upgrade its websocket."""

    def __init__(self, lines: Lines, inner: asyncio.Protocol) -> None:
        self.inner = inner
        self._lines = lines
        self._loop = asyncio.get_running_loop()
        self._rest = bytearray()  # has come, is not read yet
        self._left, self._then = BURST, time.monotonic()
        self._is_reading = False  # or has to wait for its next turn
        self._holds: set[str] = set()  # why nothing is taken from the network
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._address: Address = tuple((transport.get_extra_info("peername") or ("", 0))[:2])
        self._lines.came(self, self._address)
        self.inner.connection_made(cast(asyncio.Transport, _Front(self._transport, self)))

    def connection_lost(self, error: Exception | None) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._rest.clear()
        self._lines.went(self, self._address)
        self.inner.connection_lost(error)

    def eof_received(self) -> bool | None:
        return self.inner.eof_received()

    def data_received(self, data: bytes) -> None:
        self._rest += data
        self._go_on()

    def _go_on(self) -> None:
        """Read a piece, unless one is being read, or there is a reason to wait."""
        if self._is_reading or self._holds - {"turns"}:
            return
        if not self._rest:
            self.release("turns")
            return
        self._is_reading = True
        began = time.thread_time()
        piece = bytes(self._rest[:PIECE])
        del self._rest[:PIECE]
        try:
            self.inner.data_received(piece)
        except Exception:
            self.cut()
            raise
        now, spent = time.monotonic(), time.thread_time() - began
        self._left = min(BURST, self._left + (now - self._then) * SHARE) - spent
        self._then = now
        if self._transport.is_closing():
            self._rest.clear()
        if self._rest or self._left < 0:  # others first
            self.hold("turns")
            self._later("turns", max(0.0, -self._left) / SHARE, self._next)
        else:
            self._next()

    def _next(self) -> None:
        self._is_reading = False
        if self._rest or "turns" in self._holds:
            self._go_on()

    def pause_writing(self) -> None:
        self.hold("writing")
        self._look(self._transport.get_write_buffer_size() + LEAST)
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        if (timer := self._timers.pop("writing", None)) is not None:
            timer.cancel()
        self.release("writing")
        self.inner.resume_writing()

    def _look(self, before: int) -> None:
        """Whether enough has been taken since there were so many bytes to write."""
        size = self._transport.get_write_buffer_size()
        if size > before - LEAST:
            self.cut()
        else:
            self._later("writing", PATIENCE, lambda: self._look(size))

    def _later(self, name: str, seconds: float, do: Any) -> None:
        self._timers[name] = self._loop.call_later(seconds, do)

    def hold(self, why: str) -> None:
        """Take nothing from the network."""
        if not self._holds and not self._transport.is_closing():
            self._transport.pause_reading()
        self._holds.add(why)

    def release(self, why: str) -> None:
        """This is no reason any more."""
        if why not in self._holds:
            return
        self._holds.remove(why)
        if not self._holds and not self._transport.is_closing():
            self._transport.resume_reading()
        if (self._rest or self._holds) and not self._holds - {"turns"}:
            self._loop.call_soon(self._go_on)

    def cut(self) -> None:
        """End it, whatever is still to be written."""
        self._transport.abort()


class _Front:
    """The transport as uvicorn's protocols see it."""

    def __init__(self, transport: asyncio.Transport, line: Line) -> None:
        self._transport = transport
        self._line = line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        self._line.inner = protocol

    def pause_reading(self) -> None:
        self._line.hold("protocol")

    def resume_reading(self) -> None:
        self._line.release("protocol")
