"""Writing a dataset so that it is either all there or not there at all.

Files go into a temporary zip or folder beside the destination, which takes the destination's name at the
very end. Whatever ends the writing early, Ctrl-C included, removes it again.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from sg3.errors import StorageError, UsageError

# Nobody means a folder by these.
_OTHER_FILES = frozenset({".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".lmdb", ".tfrecord",
                          ".tfrecords", ".h5", ".hdf5", ".npz", ".npy", ".json", ".png", ".jpg", ".jpeg", ".webp"})
AddFile = Callable[[str, bytes], None]  # (name with forward slashes, contents)


def check_destination(dest: Path, force: bool) -> None:
    """Raise UsageError if `dest` must not be written: it exists, and `force` does not allow replacing it, or its name
    promises another kind of file."""
    if dest.suffix.lower() in _OTHER_FILES:
        raise UsageError(f"--dest={dest}: {dest.suffix} files are not written; name a .zip, or a folder")
    if _is_zip(dest):
        if dest.is_dir() or (dest.exists() and not force):
            raise UsageError(f"--dest={dest}: exists already; use --force to replace it, or another name")
    elif dest.exists() and not dest.is_dir():
        raise UsageError(f"--dest={dest}: exists already and is no folder; name a .zip or a new folder")
    elif dest.is_dir() and any(dest.iterdir()):
        if not force:
            raise UsageError(f"--dest={dest}: the folder is not empty; use --force to replace it, "
                             "or another name")
        if not _is_dataset_folder(dest):
            raise UsageError(f"--dest={dest}: --force replaces only folders written by `sg3 dataset`, "
                             "and this one holds something else; use another name")


@contextlib.contextmanager
def new_dataset(dest: Path, force: bool = False) -> Iterator[AddFile]:
    """Context that yields `add(name, data)`; on leaving it, `dest` (.zip or folder) is complete.

    An exception inside leaves no trace. Raises UsageError (see `check_destination`), StorageError (writing
    failed).
    """
    check_destination(dest, force)
    final = dest.resolve()
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    created = [folder for folder in (final.parent, *final.parent.parents) if not folder.exists()]
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        if _is_zip(final):
            with _zip_file(temporary) as add:
                yield add
            os.replace(temporary, final)
        else:
            temporary.mkdir()
            yield lambda name, data: _add_to_folder(temporary, name, data)
            _replace_folder(temporary, final)
    except BaseException as error:
        _remove(temporary)
        for folder in created:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise StorageError(f"{dest}: {error.strerror or error}; nothing was written") from error
        raise


@contextlib.contextmanager
def _zip_file(path: Path) -> Iterator[AddFile]:
    with path.open("xb") as file:
        archive = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)

        def add(name: str, data: bytes) -> None:
            entry = zipfile.ZipInfo(name)  # dated 1980: equal images give equal zips
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)

        try:
            yield add
        except BaseException:
            archive.fp = None  # abandon it: closing would write more, and fails when interrupted in a write
            raise
        archive.close()
        file.flush()
        os.fsync(file.fileno())


def _add_to_folder(folder: Path, name: str, data: bytes) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


def _replace_folder(new: Path, final: Path) -> None:
    if not final.exists():
        new.rename(final)
        return
    old = final.with_name(f"{new.name}.old")
    final.rename(old)
    try:
        new.rename(final)
    except BaseException:
        old.rename(final)
        raise
    shutil.rmtree(old)


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


def _is_dataset_folder(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir()}
    others = names - {"dataset.json"}
    return others != names and all(re.fullmatch(r"\d{5}", name) for name in others)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
