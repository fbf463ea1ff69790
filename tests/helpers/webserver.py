"""A server on this machine that does everything servers do: resets, redirections, lies."""

from __future__ import annotations

import hashlib
import os
import re
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sg3.formats.download import fetch

CONTENT = b"\x80\x04" + bytes(i * i % 251 for i in range(300_000))
PART = 10_000  # bytes that surely arrive before a reset: more might wait in the sender's buffer
SUM = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers with the next step of the server's script, and with the last one from then on."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        with self.server.changing:
            steps = self.server.steps
            step = steps.pop(0) if len(steps) > 1 else steps[0]
            self.server.requests.append((self.path, dict(self.headers)))
        self.close_connection = True
        step(self)

    def answer(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def reset(self) -> None:
        """Drop the connection so that the other side sees ECONNRESET, not an end."""
        self.wfile.flush()
        self.connection.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER: on, 0 seconds
        self.connection.close()

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.steps: list[Step] = [whole()]
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.changing = threading.Lock()
        self.base = f"http://127.0.0.1:{self.server_port}"
        self.url = f"{self.base}/files/net.pkl"

    def handle_error(self, *_: Any) -> None:
        pass

    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.requests]


Step = Callable[[Handler], None]


def whole(content: bytes = CONTENT, tag: str = '"1"', **headers: str) -> Step:
    """The file, or the rest of it if a range of this version is asked for."""

    def step(handler: Handler) -> None:
        asked = handler.headers.get("Range")
        if asked and handler.headers.get("If-Range") in (None, tag):
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])  # type: ignore[index]
            where = f"bytes {start}-{len(content) - 1}/{len(content)}"
            handler.answer(206, content[start:], ETag=tag, Content_Range=where, **headers)
        else:
            handler.answer(200, content, ETag=tag, **headers)

    return step


def broken(count: int, end: str = "reset", content: bytes = CONTENT, tag: str = '"1"') -> Step:
    """Announces the whole file, sends so many bytes, and ends in an error or as if nothing had happened."""

    def step(handler: Handler) -> None:
        headers = {"ETag": tag} if tag else {}
        handler.answer(200, content[:count], length=len(content), **headers)
        if end == "reset":
            handler.reset()

    return step


def status(code: int, body: bytes = b"", **headers: str) -> Step:
    return lambda handler: handler.answer(code, body, **headers)


def get(url: str, **arguments: Any) -> Path:
    """`fetch` in a hurry: five attempts without pauses."""
    return fetch(url, **{"waits": (0.0,) * 4, "timeout": 20.0, **arguments})


def visible(cache: Path) -> list[str]:
    """Names in the cache as `ls` shows them, without their hashes."""
    names = [path.name for path in cache.iterdir() if not path.name.startswith(".")] if cache.exists() else []
    return sorted(re.sub("^[0-9a-f]{16}-", "", name) for name in names)


def one_line(caught: pytest.ExceptionInfo[Exception]) -> str:
    message = str(caught.value)
    assert message.isprintable()
    return message


def failing(number: int) -> Any:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail
