"""Downloads that go wrong: broken connections, changed files, a full disk, killed and competing processes."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sg3.errors import DataError, StorageError
from sg3.formats import download
from tests.helpers.webserver import (
    CONTENT,
    PART,
    SUM,
    Handler,
    Server,
    broken,
    failing,
    get,
    one_line,
    status,
    visible,
    whole,
)

ROOT = Path(__file__).parents[2]


# ---- interruptions


@pytest.mark.parametrize("end", ["reset", "silence"])
def test_resumes_after_an_interruption(end: str, server: Server, cache: Path) -> None:
    server.steps = [broken(PART, end), whole()]
    assert get(server.url, sha256=SUM).read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=10000-"]
    assert server.requests[1][1]["If-Range"] == '"1"'
    assert not list(cache.glob(".*.part*"))


def test_resumes_in_another_call(server: Server, cache: Path) -> None:
    server.steps = [broken(PART), whole()]
    with pytest.raises(StorageError, match=r"the download failed: .*; try again later, or download it yourself"):
        get(server.url, waits=())
    assert visible(cache) == []
    assert get(server.url).read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=10000-"]


def test_servers_without_ranges(server: Server) -> None:
    server.steps = [broken(PART), status(200, CONTENT, ETag='"1"')]
    assert get(server.url).read_bytes() == CONTENT


@pytest.mark.parametrize("tag", ["", 'W/"1"'])
def test_no_resuming_without_a_version(tag: str, server: Server) -> None:
    """A weak tag allows other bytes."""
    server.steps = [broken(PART, tag=tag), whole()]
    assert get(server.url).read_bytes() == CONTENT
    assert server.ranges() == [None, None]


def test_the_date_is_a_version(server: Server) -> None:
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    server.steps = [lambda h: h.answer(200, CONTENT[:9], length=len(CONTENT), Last_Modified=date), whole(tag=date)]
    assert get(server.url).read_bytes() == CONTENT
    assert server.requests[1][1]["If-Range"] == date
    assert server.ranges() == [None, "bytes=9-"]


NEW = b"\x80\x04" + CONTENT[:1:-1]  # as long as the old one


def test_changed_on_the_server(server: Server) -> None:
    server.steps = [broken(PART), whole(NEW, '"2"')]
    assert get(server.url).read_bytes() == NEW
    assert server.ranges() == [None, "bytes=10000-"]


@pytest.mark.parametrize(
    "lie",
    [
        {"ETag": '"2"', "Content_Range": f"bytes 10000-{len(NEW) - 1}/{len(NEW)}"},  # ignores If-Range
        {"ETag": '"1"', "Content_Range": f"bytes 10000-{len(NEW) - 1}/{len(NEW) + 7}"},
        {"ETag": '"1"', "Content_Range": f"bytes 20000-{len(NEW) - 1}/{len(NEW)}"},
        {"ETag": '"1"'},
        {"ETag": '"1"', "Content_Range": "nonsense"},
    ],
)
def test_ranges_of_something_else(lie: dict[str, str], server: Server) -> None:
    """The rest of a file that is not ours: start over, without asking for a range."""
    server.steps = [broken(PART), status(206, NEW[PART:], **lie), whole(NEW, '"2"')]
    assert get(server.url).read_bytes() == NEW
    assert server.ranges() == [None, "bytes=10000-", None]


def test_a_range_beyond_the_end(server: Server) -> None:
    server.steps = [broken(PART), status(416), whole(CONTENT[:50_000], '"2"')]
    assert get(server.url).read_bytes() == CONTENT[:50_000]
    assert server.ranges() == [None, "bytes=10000-", None]


def test_errors_that_pass(server: Server) -> None:
    def gone(handler: Handler) -> None:
        handler.reset()

    server.steps = [status(500), status(503), status(429), gone, whole()]
    assert get(server.url).read_bytes() == CONTENT


def test_waits_between_attempts(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """They grow, and start anew when something has come."""
    waited: list[float] = []
    others = time.sleep

    def sleep(seconds: float) -> None:
        if threading.current_thread() is threading.main_thread():
            waited.append(seconds)
        else:
            others(seconds)

    monkeypatch.setattr("time.sleep", sleep)
    server.steps = [status(500), status(500), broken(100), status(500), status(500), whole()]
    assert get(server.url, waits=(1, 2, 3)).read_bytes() == CONTENT
    assert waited == [1, 2, 1, 2, 3]
    server.steps = [status(500)]
    with pytest.raises(StorageError, match="HTTP 500"):
        get(server.base + "/other", waits=(1, 2, 3))
    assert waited[5:] == [1, 2, 3]


@pytest.mark.parametrize(("tag", "requests"), [("", 5), ('"1"', 6)])
def test_always_interrupted_at_the_same_place(tag: str, requests: int, server: Server, cache: Path) -> None:
    """Bytes that have come before do not count; those of an unknown version never do."""
    server.steps = [status(500), broken(1000, tag=tag)]
    with pytest.raises(StorageError, match="the download failed"):
        get(server.url)
    assert len(server.requests) == requests
    assert visible(cache) == []


def test_silence(server: Server) -> None:
    done = threading.Event()

    def silent(handler: Handler) -> None:
        handler.answer(200, CONTENT[:10], length=len(CONTENT), ETag='"1"')
        handler.wfile.flush()
        done.wait(20)

    server.steps = [silent]
    with pytest.raises(StorageError, match="the download failed: timed out"):
        get(server.url, waits=(), timeout=0.05)
    done.set()


@pytest.mark.parametrize("length", [len(CONTENT) + 5, 10**6])
def test_length_of_more_than_comes(length: int, server: Server, cache: Path) -> None:
    server.steps = [lambda handler: handler.answer(200, CONTENT, length=length)]
    with pytest.raises(StorageError, match=f"the connection ended after {len(CONTENT)} of {length} bytes"):
        get(server.url)
    assert visible(cache) == []


def test_length_of_less_than_comes(server: Server, cache: Path) -> None:
    """Where it ends is what the server says; only the sum can tell."""
    server.steps = [lambda handler: handler.answer(200, CONTENT, length=1000)]
    with pytest.raises(DataError, match="has sha256"):
        get(server.url, sha256=SUM)
    assert visible(cache) == []


@pytest.mark.parametrize("complete", [True, False])
def test_no_length(complete: bool, server: Server, cache: Path) -> None:
    """In chunks, which have an end of their own."""

    def chunked(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for start in range(0, len(CONTENT), 50_000):
            part = CONTENT[start : start + 50_000]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        if complete:
            handler.wfile.write(b"0\r\n\r\n")

    server.steps = [chunked]
    if complete:
        assert get(server.url).read_bytes() == CONTENT
    else:
        with pytest.raises(StorageError, match="the download failed"):
            get(server.url)
        assert visible(cache) == []


def test_nobody_there(server: Server) -> None:
    url = server.url
    server.server_close()
    with pytest.raises(StorageError) as caught:
        get(url)
    assert one_line(caught) == (
        f"{url}: the download failed: Connection refused; try again later, or download it yourself and give its path"
    )


# ---- the disk


def test_the_cache_cannot_be_made(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("SG3_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StorageError, match=r"cannot keep http.*: Not a directory; set SG3_CACHE to another"):
        get(server.url)
    assert not server.requests


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_the_cache_cannot_be_written(server: Server, cache: Path) -> None:
    cache.mkdir(mode=0o500, parents=True)
    with pytest.raises(StorageError, match="Permission denied; set SG3_CACHE"):
        get(server.url)
    assert not server.requests


@pytest.mark.parametrize("fault", ["os.open", "pathlib.Path.open", "os.fsync", "os.replace", "pathlib.Path.mkdir"])
def test_the_cache_fails(fault: str, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(fault, failing(errno.EACCES))
        with pytest.raises(StorageError, match="Permission denied") as caught:
            get(server.url)
        assert one_line(caught)
    assert visible(cache) in ([], ["net.pkl.json"])
    assert get(server.url).read_bytes() == CONTENT


class FullDisk:
    """A file on a disk with room for so many bytes."""

    def __init__(self, file: Any, room: list[int]) -> None:
        self._file = file
        self._room = room

    def write(self, data: bytes) -> int:
        if len(data) > self._room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._room[0] -= len(data)
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()


def test_the_disk_becomes_full(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, room = download.open_plain, [len(CONTENT) // 2]
    with monkeypatch.context() as patch:
        patch.setattr(download, "open_plain", lambda path, mode: FullDisk(plain(path, mode), room))
        with pytest.raises(StorageError) as caught:
            get(server.url)
    assert one_line(caught).startswith(f"{cache}: cannot keep {server.url}: No space left on device; set SG3_CACHE")
    assert visible(cache) == []
    assert len(server.requests) == 1
    assert get(server.url).read_bytes() == CONTENT
    assert re.fullmatch(r"bytes=\d+-", server.ranges()[1] or "")


def test_the_disk_has_no_room(server: Server, cache: Path) -> None:
    server.steps = [lambda handler: handler.answer(200, b"", length=10**17)]
    with pytest.raises(StorageError, match=r"the file needs 100000000000.0 MB, and .* MB are free; make room"):
        get(server.url)
    assert visible(cache) == []


# ---- several processes

SCRIPT = """
import sys
from sg3.formats import download
download.NOTICE_AFTER = 0.0
print(download.fetch(sys.argv[1]))
"""


def start(url: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, url]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_one_download(server: Server, cache: Path) -> None:
    halfway, go_on = threading.Event(), threading.Event()

    def slow(handler: Handler) -> None:
        handler.answer(200, CONTENT[:1000], length=len(CONTENT), ETag='"1"')
        handler.wfile.flush()
        halfway.set()
        go_on.wait(60)
        handler.wfile.write(CONTENT[1000:])

    server.steps = [slow]
    processes = [start(server.url), start(server.url)]
    assert halfway.wait(60)
    assert visible(cache) == []
    lines = []  # one of them says that it waits; then the other one may go on
    for process in processes:
        assert process.stderr is not None
        lines.append(process.stderr.readline())
    assert sorted(lines) == [
        f"downloading {server.url}\n",
        f"waiting for another process that downloads {server.url}\n",
    ]
    assert visible(cache) == []
    go_on.set()
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "waiting" not in outputs[0][1] + outputs[1][1]  # it has said so once
    assert outputs[0][0] == outputs[1][0]
    assert Path(outputs[0][0].strip()).read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_killed_process_is_continued(server: Server, cache: Path) -> None:
    sent, done = threading.Event(), threading.Event()

    def stuck(handler: Handler) -> None:
        handler.answer(200, CONTENT[:200_000], length=len(CONTENT), ETag='"1"')
        handler.wfile.flush()
        sent.set()
        done.wait(60)

    server.steps = [stuck, whole()]
    process = start(server.url)
    assert sent.wait(60)
    while not any(path.stat().st_size for path in cache.glob(".*.part")):  # until some of it is on the disk
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    done.set()
    assert visible(cache) == []
    assert get(server.url, sha256=SUM).read_bytes() == CONTENT
    assert re.fullmatch(r"bytes=\d+-", server.ranges()[1] or "")


def leave_partial(cache: Path, server: Server, content: bytes, record: object) -> None:
    """What a process leaves that ended at a bad moment."""
    server.steps = [broken(10), whole()]
    with pytest.raises(StorageError):
        get(server.url, waits=())
    (part,) = cache.glob(".*.part")
    part.write_bytes(content)
    state = part.with_name(part.name + ".json")
    if record is None:
        state.unlink()
    else:
        state.write_text(record if isinstance(record, str) else json.dumps(record))
    server.requests.clear()


FULL = {"version": '"1"', "total": len(CONTENT)}


@pytest.mark.parametrize(
    ("content", "record", "ranges"),
    [
        (CONTENT, FULL, []),  # ended before the file got its name
        (b"", FULL, [None]),
        (b"something else", None, [None]),
        (b"something else", "{", [None]),
        (b"something else", {"version": 7, "total": 100}, [None]),
        (b"something else", {"version": None, "total": 100}, [None]),
        (CONTENT + b"!", FULL, [None]),
        (CONTENT[:10], {**FULL, "total": None}, ["bytes=10-"]),
    ],
)
def test_what_a_process_may_leave(
    content: bytes, record: object, ranges: list[str | None], server: Server, cache: Path
) -> None:
    leave_partial(cache, server, content, record)
    assert get(server.url).read_bytes() == CONTENT
    assert server.ranges() == ranges


def test_the_name_appears_last(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is on the disk before the file has its name, and the record before that."""
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def renamed(old: Path, new: Path) -> None:
        events.append(re.sub("^[0-9a-f]{16}-", "", Path(new).name.lstrip(".")))
        replace(old, new)

    monkeypatch.setattr("os.fsync", lambda handle: (events.append("fsync"), fsync(handle)))
    monkeypatch.setattr("os.replace", renamed)
    get(server.url)
    assert events == [
        "fsync", "net.pkl.part.json", "fsync", "fsync", "fsync", "net.pkl.json", "fsync", "net.pkl", "fsync",
    ]  # fmt: skip
