"""Peak memory of a peer on the CPU: how far its process grows beyond what its inputs take.

A process of its own for each peer, because memory that one has freed the next would get for nothing.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import torch

from bench.workloads import Workload
from sg3.kernels import filtered_lrelu


def peak_mb(workload: Workload, peer: str, threads: int) -> float:
    """Growth of the resident set over two runs, in MB. Linux only."""
    # Freed blocks go back to the system at once, instead of staying in the heap by rules that depend on the history.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    child = subprocess.run(
        [sys.executable, "-m", "bench.memory"], input=pickle.dumps((workload, peer, threads)), capture_output=True,
        env=environment, cwd=Path(__file__).resolve().parent.parent, check=False,
    )  # fmt: skip
    if child.returncode != 0:
        raise RuntimeError(f"memory of {peer}: {child.stderr.decode().strip().splitlines()[-1]}")
    return float(child.stdout)


def resident_kb(field: str) -> int:
    """VmRSS (now) or VmHWM (the most ever) of this process, in kB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")


def main() -> None:
    """The other process: read a job from stdin, print its growth."""
    workload, peer, threads = pickle.load(sys.stdin.buffer)
    torch.set_num_threads(threads)
    torch.ones(64, 64) @ torch.ones(64, 64)  # the libraries' own buffers and threads
    if peer == "numba":
        filtered_lrelu(torch.zeros(1, 1, 4, 4), impl=peer)  # loads the compiler and its code
    run = workload.prepare(torch.device("cpu"))(peer).run
    before = resident_kb("VmRSS")
    for _ in range(2):
        run()
    print(max(resident_kb("VmHWM") - before, 0) / 1000)


if __name__ == "__main__":
    main()
