"""Network files from the web: `fetch` downloads a file once and returns the path of the copy.

    fetch -> in the cache? -> lock the entry -> request, from where the last attempt ended -> check -> rename

An entry of the cache is four files, named after a hash of the address and the file's own name:

    3f1c...-net.pkl             the file; it has this name only when it is complete and checked
    3f1c...-net.pkl.json        its record: address, size, sha256
    .3f1c...-net.pkl.part       what has come so far, and in .part.json which version of the file it belongs to
    .3f1c...-net.pkl.lock       held by the process that downloads

A copy is used again if its size is the recorded one; if the caller names a sha256, the whole copy is read and
compared. A copy that fails is downloaded again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import URLError
from urllib.parse import quote, unquote, urljoin, urlsplit

from sg3._version import __version__
from sg3.atomic import sync_folder, write_atomic, write_json
from sg3.cache import cache_folder
from sg3.errors import DataError, MissingInputError, StorageError, UsageError
from sg3.formats.digest import sha256_of
from sg3.formats.safe_pickle import printable

WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds before each further attempt
TIMEOUT = 30.0  # seconds without a byte
NOTICE_AFTER = 1.0  # seconds of waiting for another process before saying so
MAX_REDIRECTS = 10
CHUNK = 2**18
BY_HAND = "or download it yourself and give its path"

Report = Callable[[int, int | None], None]  # bytes so far, bytes in all if known


class _Interrupted(Exception):
    """An attempt failed in a way that another one may not."""


def fetch(source: str, *, sha256: str | None = None, waits: Sequence[float] = WAITS, timeout: float = TIMEOUT) -> Path:
    """The local path of what an http://, https:// or file:// address names.

    Web files are kept in `$SG3_CACHE/downloads`, by default `~/.cache/sg3/downloads`, and downloaded again only if the
    copy is damaged. `sha256` (or `#sha256=HEX` at the end of the address) is what the content must have. After a
    failure that may pass, it waits `waits[0]` seconds and continues where it was; new bytes start the waits anew.

    Raises UsageError (not such an address), MissingInputError (nothing there), DataError (another content than
    expected), StorageError (no connection, no room, no permission).
    """
    url, expected = _parse(source, sha256)
    if urlsplit(url).scheme == "file":
        return _local(url, expected)
    folder = cache_folder("downloads")
    entry = _Entry(folder, url)
    try:
        if entry.holds(expected):
            return entry.file
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(entry.lock, url):
            if not entry.holds(expected):  # if it does, another process has been faster
                _download(url, entry, expected, waits, timeout)
    except OSError as error:  # of the disk: the network's are `_Interrupted`
        advice = f"set SG3_CACHE to another folder, {BY_HAND}"
        raise StorageError(f"{folder}: cannot keep {_shown(url)}: {error.strerror or error}; {advice}") from error
    return entry.file


def _parse(source: str, sha256: str | None) -> tuple[str, str | None]:
    """The address, without its fragment and with unusual characters quoted, and the expected sum."""
    try:
        parts = urlsplit(source)
        usable = parts.path.startswith("/") if parts.scheme == "file" else parts.hostname
        usable = usable and parts.scheme in ("http", "https", "file")
        _ = parts.port  # raises if it is no number
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"{_shown(source)}: is not an http://, https:// or file:// address")
    sums = {s.lower() for s in (sha256, *re.findall(r"^sha256=(.*)", parts.fragment)) if s is not None}
    for text in sums:
        if not re.fullmatch("[0-9a-f]{64}", text):
            raise UsageError(f"{_shown(source)}: {printable(text)!r} is not a sha256, which has 64 hex digits")
    if len(sums) > 1:
        raise UsageError(f"{_shown(source)}: two different sha256 are given for it")
    return _quoted(parts._replace(fragment="").geturl()), next(iter(sums), None)


def _quoted(url: str) -> str:
    return quote(url, safe="%/:=&?~#+!$,;'@()*[]")


def _shown(url: str) -> str:
    return printable(url, limit=300)


def _local(url: str, expected: str | None) -> Path:
    parts = urlsplit(url)
    path = Path(urllib.request.url2pathname(parts.path))
    if parts.netloc not in ("", "localhost"):
        raise UsageError(f"{_shown(url)}: names another machine; expected file:///PATH")
    if not path.exists():
        raise MissingInputError(f"{printable(path)}: there is no such file")
    if expected is not None:
        _check_sum(str(path), sha256_of(path), expected)
    return path


class _Entry:
    """One file of the cache, complete or on its way."""

    def __init__(self, folder: Path, url: str) -> None:
        readable = re.sub(r"[^A-Za-z0-9._-]", "_", unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2])
        name = f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{readable[-100:] or 'file'}"
        self.file = folder / name
        self.record = folder / f"{name}.json"
        self.lock = folder / f".{name}.lock"
        self.part = folder / f".{name}.part"
        self._part_record = folder / f".{name}.part.json"

    def holds(self, expected: str | None) -> bool:
        """Whether the file is there, as long as it was, and with the expected sum if there is one."""
        if not self.file.is_file():
            return False
        record = _read_json(self.record)
        same_size = self.file.stat().st_size == record.get("size")
        if same_size and (expected is None or record.get("sha256") == expected == sha256_of(self.file)):
            return True
        _say(f"{self.file}: is not the file that is expected there; downloading it again")
        return False

    def partial(self) -> tuple[int, str | None, int | None]:
        """What has come so far: its bytes, the version of the file, the bytes of the file; 0 if it is useless."""
        state = _read_json(self._part_record)
        version, total = state.get("version"), state.get("total")
        size = self.part.stat().st_size if self.part.is_file() else 0
        if not isinstance(version, str) or not (total is None or (isinstance(total, int) and size <= total)):
            return 0, None, None
        return size, version, total

    def start(self, version: str | None, total: int | None) -> None:
        """Begin a new partial file. It is emptied first, so that no old bytes ever belong to a new version."""
        self.part.open("wb").close()
        state = json.dumps({"version": version, "total": total})
        write_atomic(self._part_record, lambda file: file.write(state.encode()))

    def drop_partial(self) -> None:
        """Forget what has come so far."""
        self.part.unlink(missing_ok=True)
        self._part_record.unlink(missing_ok=True)

    def complete(self, url: str, digest: str) -> None:
        """Give the partial file its final name. Should the process end in between, it is downloaded again."""
        record = {"url": url, "size": self.part.stat().st_size, "sha256": digest}
        write_json(self.record, record)
        os.replace(self.part, self.file)
        self._part_record.unlink(missing_ok=True)
        sync_folder(self.file.parent)


def _download(url: str, entry: _Entry, expected: str | None, waits: Sequence[float], timeout: float) -> None:
    """Fill the entry. The caller holds its lock."""
    started = time.monotonic()
    left = list(waits)
    most = entry.partial()[0]
    with _progress(url) as report:
        while True:
            try:
                _attempt(url, entry, report, timeout)
                break
            except _Interrupted as failure:
                size = entry.partial()[0]
                if size > most:
                    most, left = size, list(waits)
                if not left:
                    advice = f"try again later, {BY_HAND}"
                    raise StorageError(f"{_shown(url)}: the download failed: {failure}; {advice}") from failure
                _say(f"{_shown(url)}: {failure}; trying again")
                time.sleep(left.pop(0))
    with entry.part.open("r+b") as file:
        wrong = _not_a_network(file.read(512))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
        size = file.tell()
    try:
        if wrong:
            raise DataError(f"{_shown(url)}: is {wrong}, not a network file; open it in a browser to see why")
        _check_sum(_shown(url), digest, expected)
    except DataError:
        entry.drop_partial()
        raise
    entry.complete(url, digest)
    _say(f"saved {entry.file} ({size / 1e6:.1f} MB in {time.monotonic() - started:.0f} s)")


def _attempt(url: str, entry: _Entry, report: Report, timeout: float) -> None:
    """One request: returns if the partial file is complete then, else raises `_Interrupted`."""
    size, version, total = entry.partial()
    if size and size == total:  # the process ended between the last byte and the new name
        return
    resume = {"Range": f"bytes={size}-", "If-Range": version} if size and version else {}
    with _request(url, {"User-Agent": f"sg3/{__version__}", **resume}, timeout) as response:
        status = response.status
        if status == 200:
            total, size = response.length, 0
            entry.start(_version(response), total)
        elif resume and status in (206, 416):
            if not _continues(response, size, version, total):
                entry.drop_partial()
                raise _Interrupted("the file on the server has changed")
            if total is None and response.length is not None:
                total = size + response.length
        elif status in (404, 410):
            raise MissingInputError(f"{_shown(url)}: the server has no such file (HTTP {status}); check the address")
        elif status in (408, 425, 429) or status >= 500:
            raise _Interrupted(f"the server answered HTTP {status}")
        else:
            raise StorageError(f"{_shown(url)}: the server refuses it (HTTP {status}); check the address, {BY_HAND}")
        _check_room(entry.part.parent, (total or 0) - size)
        with entry.part.open("ab") as file:
            while chunk := _read(response):
                file.write(chunk)
                size += len(chunk)
                report(size, total)
    if total is not None and size != total:
        raise _Interrupted(f"the connection ended after {size} of {total} bytes")


def _request(url: str, headers: dict[str, str], timeout: float) -> HTTPResponse:
    """The answer to a GET request, redirections followed.

    urllib's own redirections know less well where not to go, and its errors hide the answer. So the opener has
    handlers for proxies, http and https only, and the loop is here. Never to another scheme, never from https
    back to http.
    """
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
        opener.add_handler(handler())
    target = url
    for _ in range(MAX_REDIRECTS + 1):
        try:
            response: HTTPResponse = opener.open(urllib.request.Request(target, headers=headers), timeout=timeout)
        except (OSError, HTTPException) as error:
            raise _Interrupted(_cause(error)) from error
        if response.status not in (301, 302, 303, 307, 308):
            return response
        response.close()
        before, location = urlsplit(target).scheme, response.headers.get("Location", "")
        try:
            target = _quoted(urljoin(target, location))
            allowed = urlsplit(target).scheme in (before, "https")
        except ValueError:
            allowed = False
        if not allowed:
            raise StorageError(f"{_shown(url)}: is redirected to {_shown(location)}, which is not followed")
    raise StorageError(f"{_shown(url)}: is redirected more than {MAX_REDIRECTS} times; check the address, {BY_HAND}")


def _read(response: HTTPResponse) -> bytes:
    """What has arrived, as soon as anything has: bytes that wait in a buffer are lost when the connection is."""
    try:
        return response.read1(CHUNK)
    except (OSError, HTTPException) as error:
        raise _Interrupted(_cause(error)) from error


def _cause(error: BaseException) -> str:
    if isinstance(error, URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    text = error.strerror if isinstance(error, OSError) else None
    return printable(text or str(error) or type(error).__name__)


def _version(response: HTTPResponse) -> str | None:
    """What If-Range can be asked with: a strong ETag, else the date; None if the answer has neither."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def _continues(response: HTTPResponse, size: int, version: str | None, total: int | None) -> bool:
    """Whether a partial answer begins where ours ends and, as far as it says, is of the same version."""
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    return (
        found is not None
        and int(found[1]) == size
        and (total is None or found[3] in ("*", str(total)))
        and _version(response) in (None, version)
    )


def _not_a_network(head: bytes) -> str | None:
    """What the file is if it is plainly no network: the page that a server gives instead of a file."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not head:
        return "empty"
    return "a web page" if start.startswith((b"<!doctype", b"<html", b"<head", b"<!--", b"<?xml")) else None


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        sizes = f"needs {needed / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free"
        raise StorageError(f"{folder}: the file {sizes}; make room, or set SG3_CACHE to another folder")


def _check_sum(name: str, digest: str, expected: str | None) -> None:
    if expected is not None and digest != expected:
        raise DataError(f"{name}: has sha256 {digest}, expected {expected}; check where the file and the sum come from")


def _read_json(path: Path) -> dict[str, Any]:
    """The object in the file; an empty one if there is no such thing."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@contextmanager
def _locked(path: Path, url: str) -> Iterator[None]:
    """Hold the entry for this process; the system lets go of it however the process ends."""
    with path.open("ab") as file:
        started: float | None = time.monotonic()
        while not _try_lock(file):
            if started is not None and time.monotonic() - started >= NOTICE_AFTER:
                _say(f"waiting for another process that downloads {_shown(url)}")
                started = None
            time.sleep(0.02)
        yield


def _try_lock(file: BinaryIO) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _progress(url: str) -> Iterator[Report]:
    """A bar on a terminal; elsewhere one line at the start."""
    if not sys.stderr.isatty():
        _say(f"downloading {_shown(url)}")
        yield lambda _size, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(printable(urlsplit(url).path.rpartition("/")[2], 40).replace("[", "("), total=None)
        yield lambda size, total: bar.update(task, completed=size, total=total)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
