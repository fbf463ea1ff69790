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
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from sg3 import limits
from sg3._version import __version__
from sg3.atomic import sync_folder, write_atomic, write_json
from sg3.cache import cache_folder
from sg3.errors import DataError, MissingInputError, StorageError, UsageError
from sg3.formats.digest import sha256_of
from sg3.formats.web_request import BY_HAND, Answer, Interrupted, normalized, requested, shown
from sg3.plain_files import NotPlainError, create_plain, open_plain, plain_size
from sg3.terminal import console, is_live, printable, say

WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds before each further attempt
TIMEOUT = 30.0  # seconds without a byte
NOTICE_AFTER = 1.0  # seconds of waiting for another process before saying so

Report = Callable[[int, int | None], None]  # bytes so far, bytes in all if known


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
    except NotPlainError as error:
        raise StorageError(f"{error.filename}: {error.strerror}") from error
    except OSError as error:  # of the disk: the network's are `Interrupted`
        advice = f"set SG3_CACHE to another folder, {BY_HAND}"
        raise StorageError(f"{folder}: cannot keep {shown(url)}: {error.strerror or error}; {advice}") from error
    return entry.file


def is_kept(url: str) -> bool:
    """Whether `fetch` would find the address in its cache."""
    return _Entry(cache_folder("downloads"), url).file.is_file()


def _parse(source: str, sha256: str | None) -> tuple[str, str | None]:
    """The address, without its fragment and as it can be sent, and the expected sum."""
    try:
        parts = urlsplit(source)
        plain = parts._replace(fragment="").geturl()
        is_file = parts.scheme == "file" and parts.path.startswith("/") and "%00" not in plain
        url = plain if is_file else normalized(plain)
    except ValueError:
        url = None
    if url is None:
        raise UsageError(f"{shown(source)}: is not an http://, https:// or file:// address")
    sums = {s.lower() for s in (sha256, *re.findall(r"^sha256=(.*)", parts.fragment)) if s is not None}
    for text in sums:
        if not re.fullmatch("[0-9a-f]{64}", text):
            raise UsageError(f"{shown(source)}: {printable(text)!r} is not a sha256, which has 64 hex digits")
    if len(sums) > 1:
        raise UsageError(f"{shown(source)}: two different sha256 are given for it")
    return url, next(iter(sums), None)


def _local(url: str, expected: str | None) -> Path:
    parts = urlsplit(url)
    path = Path(urllib.request.url2pathname(parts.path))
    if parts.netloc not in ("", "localhost"):
        raise UsageError(f"{shown(url)}: names another machine; expected file:///PATH")
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
        say(f"{self.file}: is not the file that is expected there; downloading it again")
        return False

    def partial(self) -> tuple[int, str | None, int | None]:
        """What has come so far: its bytes, the version of the file, the bytes of the file; 0 if it is useless."""
        state = _read_json(self._part_record)
        version, total = state.get("version"), state.get("total")
        size = plain_size(self.part) or 0
        if not isinstance(version, str) or not (total is None or (isinstance(total, int) and size <= total)):
            return 0, None, None
        return size, version, total

    def start(self, version: str | None, total: int | None) -> None:
        """Begin a new partial file. It is emptied first, so that no old bytes ever belong to a new version."""
        create_plain(self.part)
        state = json.dumps({"version": version, "total": total})
        write_atomic(self._part_record, lambda file: file.write(state.encode()))

    def drop_partial(self) -> None:
        """Forget what has come so far."""
        self.part.unlink(missing_ok=True)
        self._part_record.unlink(missing_ok=True)

    def complete(self, url: str, digest: str) -> None:
        """Give the partial file its final name. Should the process end in between, it is downloaded again."""
        record = {"url": url, "size": plain_size(self.part), "sha256": digest}
        write_json(self.record, record)
        os.replace(self.part, self.file)
        self._part_record.unlink(missing_ok=True)
        sync_folder(self.file.parent)


def _download(url: str, entry: _Entry, expected: str | None, waits: Sequence[float], timeout: float) -> None:
    """Fill the entry. The caller holds its lock."""
    started = time.monotonic()
    left = list(waits)
    most = entry.partial()[0]
    allowance = _Allowance(url, entry)
    with _progress(url) as report:
        while True:
            try:
                _attempt(url, entry, allowance, report, timeout)
                break
            except Interrupted as failure:
                allowance.check_time()
                size = entry.partial()[0]
                if size > most:
                    most, left = size, list(waits)
                if not left:
                    advice = f"try again later, {BY_HAND}"
                    raise StorageError(f"{shown(url)}: the download failed: {failure}; {advice}") from failure
                say(f"{shown(url)}: {failure}; trying again")
                time.sleep(left.pop(0))
    with open_plain(entry.part, "a+") as file:
        file.seek(0)
        wrong = _not_a_network(file.read(512))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # it is a real file
        os.fsync(file.fileno())
        size = file.tell()
    try:
        if wrong:
            raise DataError(f"{shown(url)}: is {wrong}, not a network file; open it in a browser to see why")
        _check_sum(shown(url), digest, expected)
    except DataError:
        entry.drop_partial()
        raise
    entry.complete(url, digest)
    say(f"saved {entry.file} ({size / 1e6:.1f} MB in {time.monotonic() - started:.0f} s)")


def _attempt(url: str, entry: _Entry, allowance: _Allowance, report: Report, timeout: float) -> None:
    """One request: returns if the partial file is complete then, else raises `Interrupted`."""
    size, version, total = entry.partial()
    if size and size == total:  # the process ended between the last byte and the new name
        return
    resume = {"Range": f"bytes={size}-", "If-Range": version} if size and version else {}
    with requested(url, {"User-Agent": f"sg3/{__version__}", **resume}, timeout) as answer:
        status = answer.status
        if status == 200:
            total, size = answer.length, 0
            entry.start(_version(answer), total)
        elif resume and status in (206, 416):
            if not _continues(answer, size, version, total):
                entry.drop_partial()
                raise Interrupted("the file on the server has changed")
            if total is None and answer.length is not None:
                total = size + answer.length
        elif status in (404, 410):
            raise MissingInputError(f"{shown(url)}: the server has no such file (HTTP {status}); check the address")
        elif status in (408, 425, 429) or status >= 500:
            raise Interrupted(f"the server answered HTTP {status}")
        else:
            raise StorageError(f"{shown(url)}: the server refuses it (HTTP {status}); check the address, {BY_HAND}")
        allowance.begin(size, total)
        with open_plain(entry.part, "a") as file:
            while chunk := answer.read():
                size += len(chunk)
                allowance.take(len(chunk), size)
                file.write(chunk)
                report(size, total)
    if total is not None and size != total:
        raise Interrupted(f"the connection ended after {size} of {total} bytes")


class _Allowance:
    """What a download may take: bytes, room on the disk, and time. Raises DataError and StorageError."""

    def __init__(self, url: str, entry: _Entry) -> None:
        self._url = url
        self._entry = entry
        self._started = time.monotonic()
        self._received = 0
        self._next_look: int | None = None  # at the disk, if nobody knows how much is to come

    def begin(self, size: int, total: int | None) -> None:
        """The rest of so many bytes is about to come."""
        if total is not None:
            self._check_room(total - size)
        self._check_size(max(size, total or 0))
        self._next_look = self._received if total is None else None

    def take(self, count: int, size: int) -> None:
        """So many bytes have come, which make it so large."""
        self._received += count
        self._check_size(size)
        if self._next_look is not None and self._received >= self._next_look:
            self._next_look = self._received + limits.DISK_RESERVE // 4
            self._check_room(limits.DISK_RESERVE)
        self.check_time()

    def check_time(self) -> None:
        """A server that keeps on sending a little is too slow at some point, however often it is asked again."""
        seconds = time.monotonic() - self._started
        if seconds > limits.DOWNLOAD_PATIENCE + self._received / limits.DOWNLOAD_SPEED:
            came = f"{self._received / 1e6:.1f} MB in {seconds / 60:.0f} minutes"
            raise StorageError(f"{shown(self._url)}: the download is too slow, {came}; try again later, {BY_HAND}")

    def _check_size(self, size: int) -> None:
        if size > limits.DOWNLOAD:
            self._entry.drop_partial()
            most = limits.DOWNLOAD >> 30
            raise DataError(f"{shown(self._url)}: is larger than {most} GiB, which no network is; check the address")

    def _check_room(self, needed: int) -> None:
        folder = self._entry.part.parent
        free = shutil.disk_usage(folder).free
        if needed > free:
            if self._next_look is not None:  # it may be endless
                self._entry.drop_partial()
            sizes = f"needs {needed / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free"
            raise StorageError(f"{folder}: the file {sizes}; make room, or set SG3_CACHE to another folder")


def _version(answer: Answer) -> str | None:
    """What If-Range can be asked with: a strong ETag, else the date; None if the answer has neither."""
    tag = answer.headers.get("ETag", "")
    version = tag if tag.startswith('"') else answer.headers.get("Last-Modified")
    return version if version is not None and version.isascii() and version.isprintable() else None


def _continues(answer: Answer, size: int, version: str | None, total: int | None) -> bool:
    """Whether a partial answer begins where ours ends and, as far as it says, is of the same version."""
    where = answer.headers.get("Content-Range", "").strip()
    found = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", where)
    return (
        found is not None
        and int(found[1]) == size
        and (total is None or found[3] in ("*", str(total)))
        and _version(answer) in (None, version)
    )


def _not_a_network(head: bytes) -> str | None:
    """What the file is if it is plainly no network: the page that a server gives instead of a file."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not head:
        return "empty"
    return "a web page" if start.startswith((b"<!doctype", b"<html", b"<head", b"<!--", b"<?xml")) else None


def _check_sum(name: str, digest: str, expected: str | None) -> None:
    if expected is not None and digest != expected:
        raise DataError(f"{name}: has sha256 {digest}, expected {expected}; check where the file and the sum come from")


def _read_json(path: Path) -> dict[str, Any]:
    """The object in the file; an empty one if there is no such thing."""
    try:
        with open_plain(path, "r") as file:
            content = limits.parse_json(file.read(limits.SETTING_TEXT))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@contextmanager
def _locked(path: Path, url: str) -> Iterator[None]:
    """Hold the entry for this process; the system lets go of it however the process ends."""
    with open_plain(path, "a") as file:
        started: float | None = time.monotonic()
        while not _try_lock(file):
            if started is not None and time.monotonic() - started >= NOTICE_AFTER:
                say(f"waiting for another process that downloads {shown(url)}")
                started = None
            time.sleep(0.02)
        yield


def _try_lock(file: IO[bytes]) -> bool:
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
    if not is_live():
        say(f"downloading {shown(url)}")
        yield lambda _size, _total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, TimeRemainingColumn(), console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(printable(urlsplit(url).path.rpartition("/")[2], 40), total=None)
        yield lambda size, total: bar.update(task, completed=size, total=total)
