"""How a run ends: exit.json for whoever waits for it, and one error for the user, whichever ranks it comes from."""

from __future__ import annotations

import shlex
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import torch

from sg3.atomic import write_json
from sg3.errors import NumericalError, Sg3Error, StorageError, TrainingStopped
from sg3.invocation import sg3_command
from sg3.processes import World
from sg3.run_folder import EXIT, LOG, discard, snapshots, states
from sg3.shortage import shortage, shortage_behind
from sg3.train.compiled import as_user_error
from sg3.train.config import TrainConfig
from sg3.train.run_log import RunLog
from sg3.train.watchdog import Watchdog


class Exit:
    """The run's exit.json: that of an earlier life is removed, this one's is left when it ends.

    A new run that ends before its first state leaves nothing at all: there is nothing to go on from.
    """

    def __init__(self, run_dir: Path, is_new: bool) -> None:
        self._run_dir = run_dir
        self._path = run_dir / EXIT
        self._is_new = is_new
        self._began = time.time()

    def clear(self) -> None:
        """From now on what is there is of this life."""
        self._path.unlink(missing_ok=True)

    def leave(self, code: int, message: str, kimg: float | None = None) -> None:
        """Say how it ended."""
        with suppress(OSError):
            if self._is_new and not states(self._run_dir) and not snapshots(self._run_dir):
                discard(self._run_dir)
        if not self._run_dir.is_dir():
            return
        summary = {"exit_code": code, "message": message, "kimg": kimg, "started": self._began, "ended": time.time()}
        with suppress(StorageError):  # it must not hide what it reports
            write_json(self._path, summary)
        with suppress(StorageError):
            RunLog(self._run_dir / LOG).write(f"ended with exit code {code}: {message}")


def report_failure(
    error: BaseException, world: World, watchdog: Watchdog, config: TrainConfig, exit_file: Exit, run_dir: Path
) -> NoReturn:
    """Leave exit.json, tell the other ranks, and raise what the user should see, once for all ranks."""
    kimg = getattr(error, "kimg", 0)
    shown: BaseException = error
    if isinstance(error, TrainingStopped):
        shown = type(error)(f"{error}; {_continue_with(run_dir)}")
    elif isinstance(error, KeyboardInterrupt):
        exit_file.leave(130, str(error) or "interrupted a second time, before the state was saved", kimg)
        raise error
    elif isinstance(error, torch.cuda.OutOfMemoryError):
        smaller = max(config.batch_gpu // 2, 1)
        shown = Sg3Error(f"out of GPU memory with --batch-gpu={config.batch_gpu}; try --batch-gpu={smaller}")
    elif (known := shortage(error) or shortage_behind(error)) is not None:
        shown = known
    elif isinstance(error, OSError):
        shown = StorageError(f"{error.filename or run_dir}: {error.strerror or error}")
    elif config.compile != "off" and (said := as_user_error(error)) is not None:
        shown = said
    elif isinstance(error, RuntimeError) and world.size > 1:
        time.sleep(3)  # a rank that is gone breaks the others' connections; the watchdog will name it and end this one
        if any(word in str(error) for word in ("gloo", "NCCL", "c10d")):  # it was on another machine
            cause = str(error).splitlines()[0]
            shown = Sg3Error(f"lost the connection to another rank ({cause}); continue from the last state")
    if isinstance(shown, StorageError) and _has_state(run_dir):
        shown = type(shown)(f"{shown}; once that is mended, {_continue_with(run_dir)}")
    code, reason = outcome(shown)
    if world.is_main:
        exit_file.leave(code, reason, kimg)
    if isinstance(error, (TrainingStopped, NumericalError)):  # raised by all ranks together
        # A launcher ends all processes as soon as one has, and rank 0 may still be writing.
        try:
            world.gather(None)
        except RuntimeError:
            time.sleep(3)  # as above
        if not world.is_main:
            raise SystemExit(code)
    elif not watchdog.fail(code, reason):
        raise SystemExit(code)  # another rank says why
    raise shown from None


def _continue_with(run_dir: Path) -> str:
    return f"continue with: {sg3_command()} train {shlex.quote(f'--continue={run_dir}')}"


def _has_state(run_dir: Path) -> bool:
    try:
        return bool(states(run_dir))
    except OSError:  # what has failed may be the disk of the run itself
        return False


def outcome(error: BaseException) -> tuple[int, str]:
    """Exit code and reason of a process that this error ends."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None), f"exit code {error.code}"
    code = getattr(error, "exit_code", None)
    return (70, f"{type(error).__name__}: {error}") if code is None else (code, str(error))
