"""A child process that runs cases one after the other and measures what each of them costs.

`measure` starts it, gives it the cases one at a time, and starts another one where a case has killed it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 2.0
MEMORY = 512 * 2**20
PATIENCE = 20  # seconds of processor time after which a case is killed


@dataclass(frozen=True)
class Cost:
    """What became of a case. `code` is the exit code of the command, or minus the signal that ended the process."""

    code: int
    message: str
    seconds: float
    memory: int  # bytes at the peak, beyond those before

    def is_within(self, own: int = 0) -> bool:
        """Whether it stayed within the budget, with so many bytes of tensors or pixels of its own."""
        return self.seconds <= SECONDS and self.memory <= MEMORY + own


def measure(folder: Path, cases: Iterable[Sequence[str]]) -> list[Cost]:
    """Run each case, words of a command line of sg3 or `detector PATH`, in a child with limits."""
    costs: list[Cost] = []
    child: subprocess.Popen[str] | None = None
    for words in cases:
        if child is None:
            command = [sys.executable, "-m", "tests.helpers.costly", str(folder)]
            alone = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "PYTHONPATH": str(ROOT)}
            pipe = subprocess.PIPE
            child = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True, env=alone)
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(list(words)) + "\n")
        child.stdin.flush()
        line = child.stdout.readline()
        if line:
            costs.append(Cost(**json.loads(line)))
        else:
            costs.append(Cost(child.wait(), "the process ended", float("inf"), 0))
            child = None
    if child is not None:
        child.communicate()
    return costs


# ---- the child


def main(folder: Path) -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warm_up(folder)
    for line in sys.stdin:
        out.write(json.dumps(run(json.loads(line))) + "\n")
        out.flush()


def warm_up(folder: Path) -> None:
    """Import what the commands import: it belongs to no case."""
    import numpy as np
    import torch

    import sg3
    from sg3.cli import _run
    from tests.helpers import tiny_networks

    torch.set_num_threads(1)
    sg3.save(sg3.Snapshot(G_ema=tiny_networks.generator3()), folder / "warm.pkl")
    sg3.save(sg3.Snapshot(G_ema=tiny_networks.generator3()), folder / "warm.safetensors")
    np.save(folder / "warm.npy", np.zeros((2, 7), np.float32))
    for words in (["info", "warm.pkl"], ["info", "warm.safetensors"], ["info", "."], ["dataset", "--source=.",
                  "--dest=warm.zip"], ["video", "--network=warm.pkl", "--latents=warm.npy",
                  "--output=warm-frames", "--device=cpu", "--fps=1", "--no-loop"]):
        silently(lambda words=words: _run([word.replace("warm", str(folder / "warm")) for word in words], False))


def silently(function):  # type: ignore[no-untyped-def]
    """What it returns, and what it writes to stderr."""
    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        result = function()
    return result, error.getvalue()


def run(words: list[str]) -> dict[str, object]:
    from sg3.cli import _run
    from sg3.errors import Sg3Error
    from sg3.metrics.detectors import read_tensors

    def detector() -> int:
        try:
            read_tensors(Path(words[1]))
        except Sg3Error as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        return 0

    gc.collect()
    with contextlib.suppress(OSError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status("VmRSS")
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime) + PATIENCE
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))
    memory = status("VmSize") + 4 * MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (memory, resource.RLIM_INFINITY))
    start, children = time.process_time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    code, error = silently(detector if words[0] == "detector" else lambda: _run(words, False))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = time.process_time() - start + after.ru_utime - children.ru_utime
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    message = lines[0] if len(lines) == 1 else error
    return {"code": code, "message": message, "seconds": seconds, "memory": status("VmHWM") - before}


def status(name: str) -> int:
    """A field of this process's status, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    main(Path(sys.argv[1]))
