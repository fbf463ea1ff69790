"""Running the command line inside the test process, and as a process of its own."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

import sg3.cli
from tests.train.conftest import discs, labelled_discs  # noqa: F401  (fixtures for this folder, too)

TINY_ARGS = [
    "--batch=4", "--mbstd-group=2", "--cbase=128", "--cmax=8", "--latent=8", "--layers=3", "--margin=4",
    "--map-depth=1", "--tick=1", "--snap=1", "--grid=3x2", "--workers=0", "--device=cpu",
]  # fmt: skip


@dataclass
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    def error_line(self) -> str:
        """The one line of a failure, without anything else on either stream."""
        assert self.out == ""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


@pytest.fixture
def run(capfd) -> Callable[..., Result]:
    """run("train", "--outdir=x") -> Result, in this process."""

    def call(*args: object) -> Result:
        capfd.readouterr()
        code = sg3.cli._run([str(arg) for arg in args], debug=False)
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return call


def start(*args: object, group: bool = False) -> subprocess.Popen[str]:
    """`sg3 ARGS` as a process, with `group` as the leader of a new process group."""
    command = [sys.executable, "-m", "sg3", *map(str, args)]
    pipe = subprocess.PIPE
    # One thread, as in the test process: two that wait for each other are slow where something else runs as well.
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=group, env=alone)


def children_seconds() -> float:
    """Processor time of all processes started so far: what a command takes on a machine with nothing else to do."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
