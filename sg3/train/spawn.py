"""A run in this process or, with `--gpus=N`, in N processes of this machine, and what came of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sg3 import errors
from sg3.errors import Sg3Error, UsageError
from sg3.invocation import COMMAND, sg3_command
from sg3.local_ranks import start_processes
from sg3.processes import find_place
from sg3.run_folder import EXIT, find_run, read_object
from sg3.train.callbacks import NO_CALLBACKS, Callbacks
from sg3.train.launch import CHOSEN, RUN_DIR_FILE, continue_run, read_run, start
from sg3.train.options import Options
from sg3.train.recipes import options_of
from sg3.train.sharing import can_share
from sg3.train.stop import SIGNALS

INTERRUPTED = 130  # exit code: asked to end, before a state could be saved


@dataclass(frozen=True)
class Ended:
    """A run that is over. One in processes of its own (`elsewhere`) has told the user what there is to tell; `reason`
    is what it left in exit.json."""

    code: int
    run_dir: Path | None
    elsewhere: bool = False
    reason: str = ""

    def raise_failure(self) -> None:
        """Raise what the code stands for, with the run's own words: KeyboardInterrupt where a signal ended it before
        its state was saved. Nothing for 0."""
        if self.code == 0:
            return
        if self.code == INTERRUPTED:
            raise KeyboardInterrupt(self.reason)
        kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Sg3Error)]
        kind = next((kind for kind in reversed(kinds) if kind.exit_code == self.code), Sg3Error)
        raise kind(self.reason or f"the processes of the run ended with exit code {self.code}")


def run_new(
    options: Options, outdir: Path, callbacks: Callbacks = NO_CALLBACKS, chosen: Sequence[str] = ()
) -> Ended:
    """Train in a new run folder. Raises what goes wrong here; processes of its own speak for themselves.

    `chosen`: names of options that are not the user's, but set for the CPUs of this machine (`sg3.train.sharing`).
    """
    count = options.gpus or 1
    if count > 1 and find_place(os.environ) is None:
        return _in_processes(count, ["train", f"--outdir={outdir}", *options.as_flags()], callbacks, chosen)
    return Ended(0, start(options, outdir, callbacks))


def run_on(
    run: str, outdir: Path | None, said: Mapping[str, Any], callbacks: Callbacks = NO_CALLBACKS
) -> Ended:
    """Continue a run, or for 'latest' the newest one under `outdir`, with these options changed. Raises likewise.

    It keeps its number of processes; one that sg3 has chosen for CPUs means nothing on a GPU, where there is one.
    """
    config, _ = read_run(find_run(run, outdir))
    changes = options_of(said, config.cfg)
    keeps = "gpus" not in config.chosen or can_share(changes.device or config.device)
    count = changes.gpus or (config.gpus if keeps else 1)
    if count > 1 and find_place(os.environ) is None:
        where = [f"--outdir={outdir}"] if outdir is not None else []
        return _in_processes(count, ["train", f"--continue={run}", *where, *changes.as_flags()], callbacks)
    return Ended(0, continue_run(run, outdir, changes, callbacks))


def _in_processes(count: int, words: Sequence[str], callbacks: Callbacks, chosen: Sequence[str] = ()) -> Ended:
    if callbacks:
        raise UsageError(
            f"gpus={count}: on_tick and on_snapshot are not called in the processes that this starts; start the "
            f"program itself with torchrun --nproc-per-node={count}"
        )
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "run_dir"
        told = {RUN_DIR_FILE: str(report), COMMAND: sg3_command(), CHOSEN: ",".join(chosen)}
        os.environ.update(told)
        try:
            code = start_processes(count, words)
        finally:
            for name in told:
                del os.environ[name]
        return _left_behind(report, INTERRUPTED if code - 128 in SIGNALS else code)


def _left_behind(report: Path, code: int) -> Ended:
    """What the run itself wrote down, which the processes' own ends can hide."""
    try:
        run_dir = Path(report.read_text())
    except OSError:
        return Ended(code, None, True)
    try:
        left = read_object(run_dir / EXIT)
        return Ended(int(left["exit_code"]), run_dir, True, str(left.get("message", "")))
    except (OSError, ValueError, KeyError, Sg3Error):
        return Ended(code, run_dir, True)
