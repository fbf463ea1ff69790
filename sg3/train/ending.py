"""How a run ends: exit.json for whoever waits for it, and one error for the user, whichever ranks it comes from."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import torch

from sg3.atomic import write_json
from sg3.errors import NumericalError, Sg3Error, StorageError, TrainingStopped
from sg3.processes import World
from sg3.run_folder import EXIT
from sg3.train.compiled import as_user_error
from sg3.train.config import TrainConfig
from sg3.train.watchdog import Watchdog


class Exit:
    """The run's exit.json: that of an earlier life is removed, this one's is left when it ends."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / EXIT
        self._began = time.time()

    def clear(self) -> None:
        """From now on what is there is of this life."""
        self._path.unlink(missing_ok=True)

    def leave(self, code: int, message: str, kimg: float | None = None) -> None:
        """Say how it ended."""
        summary = {"exit_code": code, "message": message, "kimg": kimg, "started": self._began, "ended": time.time()}
        with suppress(StorageError):  # it must not hide what it reports
            write_json(self._path, summary)


def report_failure(
    error: BaseException, world: World, watchdog: Watchdog, config: TrainConfig, run_dir: Path, exit_file: Exit
) -> NoReturn:
    """Leave exit.json, tell the other ranks, and raise what the user should see, once for all ranks."""
    kimg = getattr(error, "kimg", 0)
    shown: BaseException = error
    if isinstance(error, TrainingStopped):
        shown = TrainingStopped(f"{error}; continue with: sg3 train --continue={run_dir}")
    elif isinstance(error, KeyboardInterrupt):
        exit_file.leave(130, "interrupted a second time, before the state was saved", kimg)
        raise error
    elif isinstance(error, torch.cuda.OutOfMemoryError):
        smaller = max(config.batch_gpu // 2, 1)
        shown = Sg3Error(f"out of GPU memory with --batch-gpu={config.batch_gpu}; try --batch-gpu={smaller}")
    elif isinstance(error, OSError):
        shown = StorageError(f"{error.filename or run_dir}: {error.strerror or error}")
    elif config.compile != "off" and (said := as_user_error(error)) is not None:
        shown = said
    elif isinstance(error, RuntimeError) and world.size > 1:
        time.sleep(3)  # a rank that is gone breaks the others' connections; the watchdog will name it and end this one
        if any(word in str(error) for word in ("gloo", "NCCL", "c10d")):  # it was on another machine
            cause = str(error).splitlines()[0]
            shown = Sg3Error(f"lost the connection to another rank ({cause}); continue from the last state")
    code = getattr(shown, "exit_code", 70)
    if world.is_main:
        exit_file.leave(code, str(shown), kimg)
    if isinstance(error, (TrainingStopped, NumericalError)):  # raised by all ranks together
        # A launcher ends all processes as soon as one has, and rank 0 may still be writing.
        try:
            world.gather(None)
        except RuntimeError:
            time.sleep(3)  # as above
        if not world.is_main:
            raise SystemExit(code)
    elif not watchdog.fail(code, str(shown)):
        raise SystemExit(code)  # another rank says why
    raise shown from None
