"""A GET request whose every part ends in time: the connection, the headers, each piece of the content.

urllib and http.client wait as long as a byte comes now and then: a server that drips, or sends "100 Continue" without
end, keeps them forever. So somebody watches (`_Watch`), and shuts down a connection that has kept a call waiting.
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from math import inf
from typing import Any
from urllib.error import URLError
from urllib.parse import quote, urljoin, urlsplit

from sg3 import limits
from sg3.errors import StorageError
from sg3.terminal import printable

BY_HAND = "or download it yourself and give its path"
CHUNK = 2**18


class Interrupted(Exception):
    """An attempt failed in a way that another one may not."""


class Answer:
    """A response that is being read."""

    def __init__(self, response: HTTPResponse, watch: _Watch, timeout: float) -> None:
        self._response = response
        self._watch = watch
        self._timeout = timeout
        self.status = response.status
        self.headers = response.headers
        self.length = response.length  # of the content, if known

    def read(self) -> bytes:
        """What has arrived, as soon as anything has: bytes that wait in a buffer are lost when the connection is.
        Empty at the end. Raises Interrupted."""
        with self._watch.over(2 * self._timeout):
            try:
                data = self._response.read1(CHUNK)
            except (OSError, ValueError, HTTPException) as error:
                raise Interrupted(self._watch.said or _cause(error)) from error
        if self._watch.said:  # a connection that is shut down looks like one that has ended
            raise Interrupted(self._watch.said)
        return data


@contextmanager
def requested(url: str, headers: dict[str, str], timeout: float) -> Iterator[Answer]:
    """The answer to a GET request, redirections followed. Nothing in it waits for a byte longer than `timeout` seconds,
    nor for a piece of the content or all headers of an answer longer than twice that.

    urllib's own redirections know less well where not to go, and its errors hide the answer. So the opener has
    handlers for proxies, http and https only, and the loop is here. Never to another scheme, never from https
    back to http. Raises Interrupted, StorageError.
    """
    with closing(_Watch()) as watch:
        opener = urllib.request.OpenerDirector()
        for handler in (urllib.request.ProxyHandler(), _Plain(watch), _Secure(watch)):
            opener.add_handler(handler)
        target = url
        for _ in range(limits.REDIRECTS + 1):
            with watch.over(2 * timeout):
                try:
                    request = urllib.request.Request(target, headers=headers)
                    response: HTTPResponse = opener.open(request, timeout=timeout)
                except (OSError, ValueError, HTTPException) as error:
                    raise Interrupted(watch.said or _cause(error)) from error
            with closing(response):
                if response.status not in (301, 302, 303, 307, 308):
                    yield Answer(response, watch, timeout)
                    return
            before, location = urlsplit(target).scheme, response.headers.get("Location", "")
            followed = normalized(_joined(target, location))
            if followed is None or urlsplit(followed).scheme not in (before, "https"):
                raise StorageError(f"{shown(url)}: is redirected to {shown(location)}, which is not followed")
            target = followed
        raise StorageError(
            f"{shown(url)}: is redirected more than {limits.REDIRECTS} times; check the address, {BY_HAND}"
        )


def size_of(url: str, timeout: float = 10.0) -> int | None:
    """How many bytes a file has, if its server says so; the file itself is not read."""
    try:
        with requested(url, {"User-Agent": "sg3"}, timeout) as answer:
            return answer.length if answer.status == 200 else None
    except (Interrupted, StorageError):
        return None


def normalized(url: str) -> str | None:
    """An http or https address as it can be sent: unusual characters quoted, the machine's name in ASCII. None if there
    is no such form."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port  # raises if it is no number
        if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or len(url) > limits.ADDRESS:
            return None
        name = host.encode("idna").decode()  # raises for names that no machine can have
        if ":" in name:  # of IP version 6
            name = f"[{name}]"
        netloc = name if port is None else f"{name}:{port}"
        return quote(parts._replace(netloc=netloc).geturl(), safe="%/:=&?~#+!$,;'@()*[]")
    except ValueError:  # also UnicodeError
        return None


def shown(url: str) -> str:
    """The address as messages show it."""
    return printable(url, limit=300)


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return ""


def _cause(error: BaseException) -> str:
    if isinstance(error, URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    text = error.strerror if isinstance(error, OSError) else None
    return printable(text or str(error) or type(error).__name__)


class _Watch:
    """Shuts the connection down when a call that it watches over takes longer than it may."""

    def __init__(self) -> None:
        self.said = ""  # why it has shut it down
        self._until = inf
        self._socket: socket.socket | None = None
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="download deadline", daemon=True)
        self._thread.start()

    def connected(self, connection: socket.socket) -> None:
        """From now on this is the connection."""
        with self._changed:
            self._socket = connection

    @contextmanager
    def over(self, seconds: float) -> Iterator[None]:
        """What is done inside may take so long."""
        with self._changed:
            self._until = time.monotonic() + seconds
            self._changed.notify()
        try:
            yield
        finally:
            self._until = inf

    def close(self) -> None:
        """End it."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        with self._changed:
            while not self._ended:
                left = self._until - time.monotonic()
                if left > 0:
                    self._changed.wait(None if left == inf else left)
                    continue
                self.said = "the server took too long"
                if self._socket is not None:
                    with suppress(OSError):
                        self._socket.shutdown(socket.SHUT_RDWR)
                self._changed.wait(0.1)  # a connection that is only being made comes later


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def http_open(self, request: urllib.request.Request) -> HTTPResponse:
        watch = self._watch

        class Connection(http.client.HTTPConnection):
            def connect(self) -> None:
                super().connect()
                watch.connected(self.sock)

        return self.do_open(Connection, request)


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def https_open(self, request: urllib.request.Request) -> HTTPResponse:
        watch = self._watch

        class Connection(http.client.HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                watch.connected(self.sock)

        context: Any = self._context  # type: ignore[attr-defined]  # certificates, as HTTPSHandler chose them
        return self.do_open(Connection, request, context=context)
