"""A folder or a zip of files: listed once, read by name, in memory.

Nothing is ever extracted, so names never become paths. A zip is refused as a whole for names that occur
twice (readers disagree about which one counts) or that point outside (`../x`, `/x`, `C:x`), and an entry
for being encrypted, larger than asked for, or compressed more than 200:1 (bombs reach 1000:1, level-0 PNGs
of photographs about 3:1). Hidden files and macOS's `__MACOSX` folder are passed over.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from sg3 import limits
from sg3.data.decode import REFUSED_SUFFIXES, SUFFIXES
from sg3.errors import DataError, MissingInputError, StorageError


class FolderStore:
    """The files below a folder; names are relative, with forward slashes, sorted.

    Links to files count; links to folders are not followed.
    """

    intact = False  # a file carries no checksum of its own

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = sorted(self._walk())

    def _walk(self) -> list[str]:
        names: list[str] = []
        for folder, subfolders, files in os.walk(self.path, onerror=_raise_storage_error):
            subfolders[:] = [name for name in subfolders if not _is_passed_over(name)]
            prefix = Path(folder).relative_to(self.path).as_posix()
            prefix = "" if prefix == "." else prefix + "/"
            names += [prefix + name for name in files if not _is_passed_over(name)]
        return names

    def where(self, name: str) -> str:
        """The file as messages name it."""
        return str(self.path / name)

    def read(self, name: str, max_bytes: int) -> bytes:
        """Contents of a file. Raises DataError (too large, not a plain file), StorageError."""
        path = self.path / name
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # reading a pipe would hang
                raise DataError(f"{path}: not a plain file; remove it")
            _check_size(status.st_size, max_bytes, str(path))
            return path.read_bytes()
        except FileNotFoundError:
            raise DataError(f"{path}: gone, or a link to nothing; remove it") from None
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror or error}") from error

    def content_hash(self) -> str:
        """Changes when files come, go, change their size, or when one of 256 of them, evenly spread, changes.

        Reading all of a large folder would take hours; a zip notices every change.
        """
        digest = hashlib.sha256()
        for name in self.names:
            digest.update(os.fsencode(f"{name}\0{(self.path / name).stat().st_size}\n"))
        for name in self.names[:: max(len(self.names) // 256, 1)]:
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
        entries = self._open().infolist()
        seen: set[str] = set()
        for entry in entries:
            self._check_name(entry.filename)
            if entry.filename in seen:
                raise DataError(f"{path}: the name {entry.filename!r} occurs twice; make the zip anew")
            seen.add(entry.filename)
        self.names = sorted(entry.filename for entry in entries if not entry.is_dir()
                            and not any(map(_is_passed_over, entry.filename.split("/"))))

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

    def read(self, name: str, max_bytes: int) -> bytes:
        """Contents of an entry, its checksum compared. Raises DataError, StorageError."""
        archive, where = self._open(), self.where(name)
        try:
            entry = archive.getinfo(name)
        except KeyError:
            raise DataError(f"{where}: gone; the zip was replaced while in use, start again") from None
        self._check_entry(entry, max_bytes, where)
        try:
            with archive.open(entry) as file:
                # Never read(-1): that decompresses up to 2 GiB whatever size the directory declares.
                return file.read(max(entry.file_size, 1))
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
            raise DataError(f"{where}: damaged in the zip ({error}); copy or make the zip again") from error
        except OSError as error:
            raise StorageError(f"{where}: {error.strerror or error}") from error

    def _check_entry(self, entry: zipfile.ZipInfo, max_bytes: int, where: str) -> None:
        if entry.flag_bits & 1:
            raise DataError(f"{where}: encrypted; make the zip anew without a password")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{where}: neither stored nor deflated; make the zip anew, stored")
        _check_size(max(entry.file_size, entry.compress_size), max_bytes, where)
        counts = entry.file_size > limits.COMPRESSION_COUNTS_FROM
        if counts and entry.file_size > limits.COMPRESSION * entry.compress_size:
            raise DataError(f"{where}: compressed more than {limits.COMPRESSION}:1, as zip bombs are; "
                            "make the zip anew, stored")

    def content_hash(self) -> str:
        """Changes with any file's name or content: made of the checksums that the zip keeps of its entries."""
        digest = hashlib.sha256()
        for name in self.names:
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
        raise MissingInputError(f"{path}: no such file or folder")
    if path.is_dir():
        return FolderStore(path)
    if path.suffix.lower() == ".zip" or zipfile.is_zipfile(path):
        return ZipStore(path)
    raise DataError(f"{path}: neither a folder nor a zip; `sg3 dataset` makes one from further formats")


def image_names(store: Store) -> list[str]:
    """Names of the images, sorted, those in formats not read included. Raises DataError without any."""
    names = [name for name in store.names if _suffix(name) in SUFFIXES | REFUSED_SUFFIXES]
    if not names:
        raise DataError(f"{store.path}: no images in it (looked for {' '.join(sorted(SUFFIXES))}); "
                        "name a folder or zip that has some")
    return names


def refused_names(names: list[str]) -> list[str]:
    """Those that are images in a format that is not read."""
    return [name for name in names if _suffix(name) in REFUSED_SUFFIXES]


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _is_passed_over(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _check_size(size: int, max_bytes: int, where: str) -> None:
    if size > max_bytes:
        raise DataError(f"{where}: {size} bytes, too large for what it should hold (at most {max_bytes}); "
                        "replace it")


def _raise_storage_error(error: OSError) -> None:
    raise StorageError(f"{error.filename}: {error.strerror or error}") from error
