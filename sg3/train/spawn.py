"""`--gpus=N` on one machine: torch's elastic launcher starts N processes of the same command and watches over them."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from sg3.train.launch import RUN_DIR_FILE

# What torch's launcher handles, and leaves handled; and the one that is turned into another for it.
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


def run_processes(count: int, words: Sequence[str]) -> int:
    """Run `sg3 WORDS` in `count` processes, as ranks of one world; returns the run's exit code.

    A signal goes to all of them. If one dies, the others are ended. Threads are shared out among them.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # our ranks speak for themselves
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // count, 1)))
    before = {number: signal.getsignal(number) for number in HANDLED}
    signal.signal(signal.SIGUSR1, lambda *_: signal.raise_signal(signal.SIGTERM))  # the launcher forwards that one
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "run_dir"
        os.environ[RUN_DIR_FILE] = str(report)
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=count, run_id=uuid.uuid4().hex, max_restarts=0,
            rdzv_backend="c10d", rdzv_endpoint="localhost:0", local_addr="localhost", monitor_interval=0.2,
        )  # fmt: skip
        code = 0
        try:
            elastic_launch(config, sys.executable)("-m", "sg3", *words)
        except ChildFailedError as error:
            codes = [failure.exitcode for failure in error.failures.values()]  # negative: ended by a signal
            code = next((known for known in codes if known > 0), 70)
        except SignalException as error:
            code = 128 + int(error.sigval)
        finally:
            del os.environ[RUN_DIR_FILE]
            for number, handler in before.items():
                signal.signal(number, handler)
        return _left_behind(report, code)


def _left_behind(report: Path, code: int) -> int:
    """The exit code that the run itself wrote down, which the processes' own ends can hide."""
    try:
        return int(json.loads((Path(report.read_text()) / "exit.json").read_text())["exit_code"])
    except (OSError, ValueError, KeyError):
        return code
