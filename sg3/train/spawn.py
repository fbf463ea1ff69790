"""`--gpus=N` on one machine: N processes of the same command, and the exit code of the run that they make."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sg3.errors import Sg3Error
from sg3.invocation import COMMAND, sg3_command
from sg3.processes import start_processes
from sg3.run_folder import EXIT, read_object
from sg3.train.launch import RUN_DIR_FILE


def run_processes(count: int, words: Sequence[str]) -> int:
    """Run `sg3 WORDS`, a training, in `count` processes; returns the run's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "run_dir"
        os.environ.update({RUN_DIR_FILE: str(report), COMMAND: sg3_command()})
        try:
            code = start_processes(count, words)
        finally:
            del os.environ[RUN_DIR_FILE], os.environ[COMMAND]
        return _left_behind(report, code)


def _left_behind(report: Path, code: int) -> int:
    """The exit code that the run itself wrote down, which the processes' own ends can hide."""
    try:
        return int(read_object(Path(report.read_text()) / EXIT)["exit_code"])
    except (OSError, ValueError, KeyError, Sg3Error):
        return code
