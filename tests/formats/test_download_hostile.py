"""Servers that want to keep us, fill the disk or send us elsewhere; files of the cache that are links to others."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from sg3 import limits
from sg3.errors import DataError, StorageError, UsageError
from sg3.formats.download import fetch
from tests.helpers.webserver import CONTENT, Handler, Server, Step, get, one_line, status, visible

HEADER = b"HTTP/1.1 200 OK\r\n"


def endless(start: bytes, piece: bytes, pause: float = 0.0) -> Step:
    """Sends the start, and then pieces until nobody listens any more."""

    def step(handler: Handler) -> None:
        try:
            handler.wfile.write(start)
            while True:
                handler.wfile.write(piece)
                handler.wfile.flush()
                time.sleep(pause)
        except OSError:
            pass

    return step


CHUNKED = HEADER + b"Transfer-Encoding: chunked\r\n\r\n"
KEEPING = {
    "100 Continue": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.001),
    "headers, drop by drop": endless(HEADER + b"X-A: ", b"a", 0.02),
    "a status, drop by drop": endless(b"HTTP/1.1 ", b"2", 0.02),
    "the size of a chunk": endless(CHUNKED, b"0", 0.02),
    "trailers": endless(CHUNKED + b"0\r\n", b"X-A: a\r\n", 0.002),
    "silence": endless(b"", b"", 0.02),
}


@pytest.mark.parametrize("what", KEEPING)
def test_kept_waiting(what: str, server: Server, cache: Path) -> None:
    server.steps = [KEEPING[what]]
    start = time.monotonic()
    with pytest.raises(StorageError, match="the download failed: ") as caught:
        get(server.url, waits=(), timeout=0.2)
    assert one_line(caught)
    assert time.monotonic() - start < 10
    assert visible(cache) == []


@pytest.mark.parametrize("length", ["Content-Length: 1000000\r\nETag: \"1\"\r\n\r\n", "\r\n"])
def test_content_drop_by_drop(length: str, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something comes all the time, on every attempt; but at this speed it would take a year."""
    monkeypatch.setattr(limits, "DOWNLOAD_PATIENCE", 0.3)
    server.steps = [endless(HEADER + length.encode(), b"a", 0.01)]
    with pytest.raises(StorageError, match=r"is too slow, 0\.0 MB in 0 minutes; try again later") as caught:
        get(server.url)
    assert one_line(caught)


def test_interrupted_again_and_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every attempt brings a byte more, and so another five attempts, until there is no time left."""
    count = 0

    def step(handler: Handler) -> None:
        nonlocal count
        where = f"bytes {count}-{len(CONTENT) - 1}/{len(CONTENT)}"
        code, headers = (206, {"Content_Range": where}) if count else (200, {})
        handler.answer(code, CONTENT[count : count + 1], length=len(CONTENT) - count, ETag='"1"', **headers)
        count += 1
        if count == 9:
            monkeypatch.setattr(limits, "DOWNLOAD_PATIENCE", 0.0)

    server.steps = [step]
    with pytest.raises(StorageError, match="the download is too slow"):
        get(server.url, waits=(0.001,) * 4)
    assert count == 9


# ---- size


@pytest.mark.parametrize("header", [
    b"\r\n", b"Transfer-Encoding: chunked\r\n\r\n", b"Content-Length: 100001\r\n\r\n",
    b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", b"Content-Length: -1\r\n\r\n",
])  # fmt: skip
def test_larger_than_any_network(
    header: bytes, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOWNLOAD", 100_000)
    piece = b"1000\r\n" + bytes(4096) + b"\r\n" if b"chunked" in header else bytes(4096)
    server.steps = [endless(HEADER + header, piece)]
    with pytest.raises(DataError, match="is larger than 0 GiB, which no network is; check the address") as caught:
        get(server.url)
    assert one_line(caught)
    assert not list(cache.glob(".*.part*"))


def test_larger_than_any_network_on_continuing(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DOWNLOAD", 100_000)

    def more(handler: Handler) -> None:
        handler.answer(206, bytes(200_000), ETag='"1"', Content_Range="bytes 10-200009/*")

    server.steps = [lambda h: h.answer(200, CONTENT[:10], length=1000, ETag='"1"'), more]
    with pytest.raises((DataError, StorageError)):
        get(server.url)
    assert all(path.stat().st_size <= 100_000 for path in cache.iterdir())


def test_a_disk_that_becomes_full_of_unknown_length(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As much stays free as other programs may need; what has come is of no use, for it may be endless."""
    free = [limits.DISK_RESERVE + 2]
    monkeypatch.setattr(limits, "DISK_RESERVE", 10_000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free.pop() if len(free) > 1 else free[0]))
    free[:] = [9_999, 10_001, 10_001]
    server.steps = [endless(HEADER + b"\r\n", bytes(4096))]
    with pytest.raises(StorageError, match="MB are free; make room, or set SG3_CACHE") as caught:
        get(server.url)
    assert one_line(caught)
    assert not list(cache.glob(".*.part*"))


@pytest.mark.parametrize("where", [
    "bytes 10-99999999999999999999999999999/*", "bytes " + "9" * 5000 + "-1/2", "bytes ٣-٤/*", "bytes 10-5/",
])  # fmt: skip
def test_ranges_that_are_no_numbers(where: str, server: Server) -> None:
    def more(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 206 P\r\nETag: \"1\"\r\nContent-Range: " + where.encode() + b"\r\n\r\n")

    server.steps = [lambda h: h.answer(200, CONTENT[:10], length=len(CONTENT), ETag='"1"'), more,
                    status(200, CONTENT, ETag='"1"')]  # fmt: skip
    assert get(server.url).read_bytes() == CONTENT


# ---- addresses

IMPOSSIBLE = [
    "http://a..b/net.pkl", f"http://{'a' * 64}.com/x", "http://.a/", "http://é..b/", "http://\udcff/x", "http://a\udc80b/",
    "http://x:99999/", "http://x:abc/", "http://[::1/", "http://[zz]/", "http://user:secret@host/x", "http:///x",
    "http://a/\udcff", "http://" + "a." * 5000 + "com/", "http://a/" + "x" * 10_000, "https://xn--\x80/",
    "http://\u2024\u2024/", "http://a\u3002\u3002b/", "http://-/\ud800", "http://%zz@/", "http://a:/b@c:0x1/",
]  # fmt: skip


@pytest.mark.parametrize("url", IMPOSSIBLE)
def test_addresses_that_cannot_be_sent(url: str, cache: Path) -> None:
    with pytest.raises((UsageError, StorageError)) as caught:
        fetch(url, waits=(), timeout=1)
    assert one_line(caught)
    assert visible(cache) == []


@pytest.mark.parametrize("url", ["file:///a%00b", "file:///\udcff%00"])
def test_files_that_cannot_be(url: str) -> None:
    with pytest.raises(UsageError, match="is not an http") as caught:
        fetch(url)
    assert one_line(caught)


@pytest.mark.parametrize("location", [*IMPOSSIBLE[:4], *IMPOSSIBLE[6:12], "", "http:", "//", "http://\x1b[2J/", "ftp://a/",
                                      "file:///etc/passwd", "data:,x", "http://a b/", "//a..b/", "///"])  # fmt: skip
def test_redirections_that_cannot_be_followed(location: str, server: Server, cache: Path) -> None:
    def step(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: " + location.encode() + b"\r\nContent-Length: 0\r\n\r\n")

    server.steps = [step]
    with pytest.raises(StorageError) as caught:
        get(server.url, waits=(), timeout=5)
    assert one_line(caught)
    assert visible(cache) == []


def test_names_in_other_scripts() -> None:
    from sg3.formats.web_request import normalized

    assert normalized("http://bücher.example/é") == "http://xn--bcher-kva.example/%C3%A9"
    assert normalized("http://[::1]:80/a b") == "http://[::1]:80/a%20b"
    assert normalized("HTTPS://Example.COM:443/a?b=c#d") == "https://example.com:443/a?b=c#d"


# ---- links in the cache


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_bytes(b"precious")
    return path


LINKS: dict[str, Callable[[Path, Path], object]] = {
    "a link": lambda path, victim: path.symlink_to(victim),
    "a link to nothing": lambda path, victim: path.symlink_to(victim.with_name("new")),
    "another name": lambda path, victim: os.link(victim, path),
}


@pytest.mark.parametrize("kind", LINKS)
def test_a_partial_file_that_is_a_link(kind: str, victim: Path, server: Server, cache: Path) -> None:
    get(server.url)
    (file,) = (path for path in cache.iterdir() if path.name.endswith("net.pkl"))
    file.unlink()
    LINKS[kind](cache / f".{file.name}.part", victim)
    (cache / f".{file.name}.part.json").write_text('{"version": "\\"1\\"", "total": 300002}')
    assert get(server.url).read_bytes() == CONTENT
    assert not file.is_symlink()
    assert victim.read_bytes() == b"precious"
    assert not victim.with_name("new").exists()


@pytest.mark.parametrize("kind", [*LINKS, "a pipe", "a folder"])
def test_a_lock_that_is_a_link(kind: str, victim: Path, server: Server, cache: Path) -> None:
    get(server.url)
    (file,) = (path for path in cache.iterdir() if path.name.endswith("net.pkl"))
    file.unlink()
    lock = cache / f".{file.name}.lock"
    lock.unlink()
    special: dict[str, Callable[[Path, Path], object]] = {
        "a pipe": lambda path, _: os.mkfifo(path), "a folder": lambda path, _: path.mkdir()
    }
    (LINKS | special)[kind](lock, victim)
    with pytest.raises(StorageError, match=r"net\.pkl\.lock: is .*; remove it") as caught:
        get(server.url)
    assert one_line(caught)
    assert victim.read_bytes() == b"precious"
    assert not victim.with_name("new").exists()


def test_the_watch_ends_with_the_request(server: Server) -> None:
    before = threading.active_count()
    get(server.url)
    names = [thread.name for thread in threading.enumerate()]
    assert "download deadline" not in names
    assert threading.active_count() <= before + 1  # the server's
