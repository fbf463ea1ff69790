"""A folder or a zip of files: listed once, read by name, in memory.

Nothing is ever extracted, so names never become paths. A zip is refused as a whole for names that occur
twice (readers disagree about which one counts) or that point outside (`../x`, `/x`, `C:x`), and an entry
for being encrypted, larger than asked for, or compressed more than 200:1 (bombs reach 1000:1, level-0 PNGs
of photographs about 3:1). Hidden files, and what operating systems and network drives leave beside the images, are
passed over, and noted in `passed_over`. Names have forward slashes and no "./", see `plain_name`.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sg3 import limits
from sg3.data.image_kind import HEAD
from sg3.data.unused import Unused
from sg3.errors import DataError, StorageError
from sg3.named_paths import nothing_at
from sg3.plain_files import refuse_special

_LEFT_BEHIND = {
    "__MACOSX": "made by macOS",
    "@eaDir": "thumbnails and indices of a network drive",
    "#recycle": "a recycle bin",
    "$RECYCLE.BIN": "a recycle bin",
    "System Volume Information": "made by Windows",
    "lost+found": "made by the file system",
}


class FolderStore:
    """The files below a folder; names are relative, with forward slashes, sorted.

    Links are followed, to files and to folders. But every folder is listed once, under its own name if it has one in
    here, and a link to a folder that holds this one is left alone: both could go on forever.
    """

    intact = False  # a file carries no checksum of its own

    def __init__(self, path: Path) -> None:
        self.path = path
        self.passed_over = Unused()
        self.names, self._raw = _by_plain_name(self._walk(), path)

    def _walk(self) -> list[str]:
        names: list[str] = []
        folders, links, listed = [""], list[str](), set[str]()
        while folders or links:
            prefix = folders.pop() if folders else links.pop(0)
            try:
                if (real := os.path.realpath(self.path / prefix)) in listed:
                    self.passed_over.add("links to folders that are listed already", prefix)
                    continue
                listed.add(real)
                with os.scandir(self.path / prefix) as entries:
                    for entry in sorted(entries, key=lambda entry: entry.name):
                        name = prefix + entry.name
                        is_folder = _is_folder(entry)
                        if reason := _passed_over(entry.name):
                            self.passed_over.add(reason, name + "/" * is_folder)
                        elif not is_folder:
                            names.append(name)
                        elif not entry.is_symlink():
                            folders.append(name + "/")
                        elif self.path.resolve().is_relative_to(Path(entry.path).resolve()):
                            self.passed_over.add("links to a folder that holds this one", name + "/")
                        else:
                            links.append(name + "/")
            except OSError as error:
                raise StorageError(f"{error.filename}: {error.strerror or error}") from error
            if len(names) > limits.IMAGES:
                raise DataError(f"{self.path}: more than {limits.IMAGES} files in it; split it")
        return names

    def _file(self, name: str) -> Path:
        return self.path / self._raw.get(name, name)

    def where(self, name: str) -> str:
        """The file as messages name it."""
        return str(self._file(name))

    def head(self, name: str) -> bytes:
        """The first bytes of a file. Raises DataError, StorageError."""
        return self._read(name, HEAD, None)

    def read(self, name: str, max_bytes: int) -> bytes:
        """Contents of a file. Raises DataError (too large, not a plain file), StorageError."""
        return self._read(name, -1, max_bytes)

    def _read(self, name: str, count: int, max_bytes: int | None) -> bytes:
        path = self._file(name)
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # reading a pipe would hang
                refuse_special(path, advice="; remove it")
            if max_bytes is not None:
                _check_size(status.st_size, max_bytes, str(path))
            with path.open("rb") as file:
                return file.read(count)
        except FileNotFoundError:
            raise DataError(f"{path}: gone, or a link to nothing; remove it") from None
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror or error}") from error

    def content_hash(self, names: Sequence[str] | None = None) -> str:
        """Changes when files come, go, change their size, or when one of 256 of them, evenly spread, changes; of all
        files, or of these.

        Reading all of a large folder would take hours; a zip notices every change.
        """
        digest = hashlib.sha256()
        names = self.names if names is None else names
        for name in names:
            path = self._file(name)
            digest.update(os.fsencode(f"{self._raw.get(name, name)}\0{path.stat().st_size}\n"))
        for name in names[:: max(len(names) // 256, 1)]:
            digest.update(self.read(name, limits.HASHED))
        return digest.hexdigest()

    def close(self) -> None:
        """Nothing to close; here so that both stores look alike."""


class ZipStore:
    """The files in a zip. The handle belongs to the process that opened it and is never pickled."""

    intact = True  # the zip's checksum is compared on every read

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: zipfile.ZipFile | None = None
        self._owner = 0
        self.passed_over = Unused()
        self.names, self._raw = _by_plain_name(self._entries(), path)

    def _entries(self) -> list[str]:
        names: list[str] = []
        seen: set[str] = set()
        passed_over: set[str] = set()
        for entry in self._open().infolist():
            self._check_name(entry.filename)
            if entry.filename in seen:
                raise DataError(f"{self.path}: the name {entry.filename!r} occurs twice; make the zip anew")
            seen.add(entry.filename)
            if entry.filename.endswith(("/", "\\")):
                continue
            parts = plain_name(entry.filename).split("/")
            found = next(((i, reason) for i, part in enumerate(parts) if (reason := _passed_over(part))), None)
            if found is None:
                names.append(entry.filename)
                continue
            place, reason = found
            whole = "/".join(parts[: place + 1]) + "/" * (place < len(parts) - 1)
            if whole not in passed_over:  # one line for a folder, however much is in it
                passed_over.add(whole)
                self.passed_over.add(reason, whole)
        return names

    def _check_name(self, name: str) -> None:
        parts = name.replace("\\", "/").split("/")
        if ".." in parts or not parts[0] or re.match("[A-Za-z]:", name):
            raise DataError(f"{self.path}: unsafe name {name!r} points outside the zip; make the zip anew")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}

    def _open(self) -> zipfile.ZipFile:
        # A forked worker inherits the handle but shares its file position with the parent: it opens its own.
        if self._handle is None or self._owner != os.getpid():
            try:
                entries = limits.image_entries(self.path.stat().st_size)
                self._handle = limits.open_zip(self.path, entries, str(self.path))
            except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
                raise DataError(f"{self.path}: not a readable zip ({error}); it may be cut short, "
                                "copy it again") from error
            except OSError as error:
                raise StorageError(f"{self.path}: {error.strerror or error}") from error
            self._owner = os.getpid()
        return self._handle

    def where(self, name: str) -> str:
        """The entry as messages name it."""
        return f"{self.path}: {name}"

    def head(self, name: str) -> bytes:
        """The first bytes of an entry. Raises DataError, StorageError."""
        return self._read(name, HEAD, None)

    def read(self, name: str, max_bytes: int) -> bytes:
        """Contents of an entry, its checksum compared. Raises DataError, StorageError."""
        return self._read(name, None, max_bytes)

    def _read(self, name: str, count: int | None, max_bytes: int | None) -> bytes:
        archive, where = self._open(), self.where(name)
        try:
            entry = archive.getinfo(self._raw.get(name, name))
        except KeyError:
            raise DataError(f"{where}: gone; the zip was replaced while in use, start again") from None
        self._check_entry(entry, max_bytes, where)
        try:
            with archive.open(entry) as file:
                # Never read(-1): that decompresses up to 2 GiB whatever size the directory declares.
                return file.read(count or max(entry.file_size, 1))
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
            raise DataError(f"{where}: damaged in the zip ({error}); copy or make the zip again") from error
        except OSError as error:
            raise StorageError(f"{where}: {error.strerror or error}") from error

    def _check_entry(self, entry: zipfile.ZipInfo, max_bytes: int | None, where: str) -> None:
        if entry.flag_bits & 1:
            raise DataError(f"{where}: encrypted; make the zip anew without a password")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{where}: neither stored nor deflated; make the zip anew, stored")
        if max_bytes is None:
            return
        _check_size(max(entry.file_size, entry.compress_size), max_bytes, where)
        counts = entry.file_size > limits.COMPRESSION_COUNTS_FROM
        if counts and entry.file_size > limits.COMPRESSION * entry.compress_size:
            raise DataError(f"{where}: compressed more than {limits.COMPRESSION}:1, as zip bombs are; "
                            "make the zip anew, stored")

    def content_hash(self, names: Sequence[str] | None = None) -> str:
        """Changes with the name or content of any file, or of any of these: made of the checksums that the zip keeps
        of its entries."""
        digest = hashlib.sha256()
        for name in self.names if names is None else names:
            name = self._raw.get(name, name)
            entry = self._open().getinfo(name)
            digest.update(f"{name}\0{entry.file_size}\0{entry.CRC:08x}\n".encode())
        return digest.hexdigest()

    def close(self) -> None:
        """Close the handle if this process opened it; a later read opens it again."""
        if self._handle is not None and self._owner == os.getpid():
            self._handle.close()
        self._handle = None


Store = FolderStore | ZipStore


def open_store(path: Path) -> Store:
    """Open a folder or a zip. Raises MissingInputError, DataError, StorageError."""
    if not path.exists():
        raise nothing_at(path)
    if path.is_dir():
        return FolderStore(path)
    refuse_special(path)
    if path.suffix.lower() == ".zip" or zipfile.is_zipfile(path):
        return ZipStore(path)
    raise DataError(f"{path}: neither a folder nor a zip; `sg3 dataset` makes one from further formats")


def plain_name(name: str) -> str:
    """A file's name as all of sg3 has it, in folders, zips and dataset.json alike: `./cat\\1.png` is `cat/1.png`."""
    if "\\" not in name and "./" not in name and "/" not in (name[:1], name[-1:]) and "//" not in name:
        return name
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def _by_plain_name(names: Iterable[str], path: Path) -> tuple[list[str], dict[str, str]]:
    """The plain names, sorted, and for those that are written differently how. Raises DataError if two become one."""
    plain: list[str] = []
    raw: dict[str, str] = {}
    for name in names:
        plain.append(plain_name(name))
        if plain[-1] != name:
            raw[plain[-1]] = name
    if raw and len(set(plain)) < len(plain):
        counts = Counter(plain)
        twice = next(name for name in raw if counts[name] > 1)
        raise DataError(f"{path}: the name {twice!r} occurs twice, written differently; rename one")
    return sorted(plain), raw


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: no folder, and as a file it is unreadable
        return False


def _passed_over(name: str) -> str | None:
    """Why a file or folder of this name is not looked at; None if it is."""
    return "hidden" if name.startswith(".") else _LEFT_BEHIND.get(name)


def _check_size(size: int, max_bytes: int, where: str) -> None:
    if size > max_bytes:
        raise DataError(f"{where}: {size} bytes, too large for what it should hold (at most {max_bytes}); "
                        "replace it")
