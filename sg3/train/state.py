"""The training state file: everything a run needs to go on as if it had never stopped.

A state is written beside its final name, flushed to the disk and renamed, so a file under its final name is complete;
a SHA-256 in a small companion file tells a flipped bit, which neither torch nor the file system would notice. At least
two verified states are kept: an older one goes only after the newer one has been read back and matched.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, cast

import torch

from sg3.atomic import sync_folder, write_atomic
from sg3.errors import DataError, MissingInputError, StorageError
from sg3.formats.digest import sha256_of
from sg3.run_folder import STATES, digest_path, state_path, states, unverified_path
from sg3.terminal import printable

FORMAT = 2


def save_state(run_dir: Path, state: dict[str, Any], keep: int = 2) -> Path:
    """Write `state` (tensors, numbers, strings, containers) and drop states beyond the newest `keep` good ones.

    The checksum is that of the bytes handed to the system, and in place before the state gets its name.
    """
    path = state_path(run_dir, state["nimg"])
    if is_intact(path):
        return path  # saved at the end of a tick, and now asked for again by a signal
    fresh = unverified_path(path)
    hasher = hashlib.sha256()
    write_atomic(fresh, lambda file: torch.save({"format": FORMAT, **state}, cast(BinaryIO, _Hashing(file, hasher))))
    line = f"{hasher.hexdigest()}  {path.name}\n".encode()
    write_atomic(digest_path(path), lambda file: file.write(line))
    try:
        if sha256_of(fresh) != hasher.hexdigest():
            raise StorageError(f"{fresh}: reads back differently from what was written; is the disk failing?")
        os.replace(fresh, path)
        sync_folder(run_dir)
        _drop_old(run_dir, path, keep)
    except OSError as error:
        raise StorageError(f"{error.filename or path}: {error.strerror or error}") from error
    return path


def _drop_old(run_dir: Path, path: Path, keep: int) -> None:
    good = 0
    for old in states(run_dir):
        if old > path:
            continue  # left by a longer life of this run, newer than what it was continued from
        good += is_intact(old) if good < keep else 1
        if good > keep:
            old.unlink(missing_ok=True)
            digest_path(old).unlink(missing_ok=True)


def load_state(run_dir: Path, warn: Callable[[str], None]) -> dict[str, Any]:
    """The newest intact state of a run, on the CPU. Damaged ones are named through `warn` and passed over.

    Raises MissingInputError if the run has none, DataError if none of them is intact.
    """
    paths = states(run_dir)
    if not paths:
        raise MissingInputError(f"{run_dir}: has no {STATES} to continue from, it stopped before its first one")
    for path in paths:
        if not is_intact(path):
            why = "its SHA-256 does not match" if digest_path(path).exists() else "its .sha256 file is missing"
            warn(f"{path}: damaged or incomplete ({why}); trying the one before")
            continue
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # intact, but not a file that this program wrote
            raise DataError(f"{path}: is no training state ({type(error).__name__})") from error
        if not isinstance(state, dict):
            raise DataError(f"{path}: is no training state (it holds one {type(state).__name__})")
        if state.get("format") != FORMAT:
            found = printable(repr(state.get("format")))
            raise DataError(f"{path}: state format {found}, this version of sg3 reads {FORMAT}")
        return state
    raise DataError(f"{run_dir}: none of its {len(paths)} training states is intact")


def is_intact(path: Path) -> bool:
    """Whether a state file is there and matches its checksum."""
    try:
        expected = digest_path(path).read_text().split()[0]
        return sha256_of(path) == expected
    except (OSError, IndexError, StorageError):
        return False


class StateWriter:
    """Saves states in the background: training waits only until the tensors are copied.

    The copy goes to the same memory every time, page-locked where they come from a GPU. A failure to write is raised by
    the next call, or by `raise_if_failed`.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._copies: dict[str, torch.Tensor] = {}
        self._device: torch.device | None = None  # of the GPU that tensors come from
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def save(self, state: dict[str, Any]) -> None:
        """Begin to save; the file appears under its name when it is complete and verified."""
        self.finish()
        copied = self._copy(state, "")
        if self._device is not None:
            torch.cuda.synchronize(self._device)
        self._thread = threading.Thread(target=self._write, args=(copied,), name="state writer", daemon=True)
        self._thread.start()

    def __enter__(self) -> StateWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """However training ends, let a state that is being written be completed; but nobody who asks a second time is
        kept waiting for a disk that hangs."""
        if self._thread is not None:
            self._thread.join(1.0 if kind is KeyboardInterrupt else None)

    def finish(self) -> None:
        """Wait until the last state is in place. Raises what went wrong with it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.raise_if_failed()

    def raise_if_failed(self) -> None:
        """Raises what went wrong in the background, if anything has; does not wait."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write(self, state: dict[str, Any]) -> None:
        try:
            save_state(self._run_dir, state)
        except Exception as error:
            self._error = error

    def _copy(self, value: Any, where: str) -> Any:
        if isinstance(value, dict):
            return {key: self._copy(entry, f"{where}/{key}") for key, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self._copy(entry, f"{where}/{index}") for index, entry in enumerate(value))
        if not isinstance(value, torch.Tensor):
            return value
        copy = self._copies.get(where)
        if copy is None or copy.shape != value.shape or copy.dtype != value.dtype:
            copy = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda)
            self._copies[where] = copy
        if value.is_cuda:
            self._device = value.device
        return copy.copy_(value.detach(), non_blocking=True)


def require_space(run_dir: Path, state_bytes: int) -> None:
    """Raises StorageError if the disk has no room for the states and snapshots that a run keeps at the same time."""
    needed = 4 * state_bytes  # two states, a third being written, and about one of snapshots and images
    free = shutil.disk_usage(run_dir).free
    if free < needed:
        raise StorageError(
            f"{run_dir}: {_size(free)} free on this disk, training states need {_size(needed)}; "
            "make room or choose another --outdir"
        )


def _size(count: int) -> str:
    """A number of bytes in words."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**28 else f"{count / 2**20:.1f} MiB"


class _Hashing:
    """A file that computes the checksum of what passes through."""

    def __init__(self, file: BinaryIO, hasher: hashlib._Hash) -> None:
        self._file = file
        self._hasher = hasher

    def write(self, data: bytes) -> int:
        self._hasher.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()
