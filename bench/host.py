"""CPU time that a call of filtered_lrelu takes before its kernel starts, with Triton's launches left out.

    python -m bench.host                      this checkout
    python -m bench.host --against DIRECTORY  beside another one, in turns, and the ratio
    python -m bench.host --binder             with what Triton does of a launch but the launch itself

Needs no GPU: calls get small tensors on the CPU, `impl='triton'` is told that it can run, and the function of Triton
that launches is replaced by one that does nothing, in the same way in both checkouts. What only exists on a GPU is not
in it: the current stream, and making the device the current one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

# Layers of StyleGAN3-T, as they call the op: up, its taps, down, its taps, and whether the type is float16.
CASES = {
    "2->2 float16": (2, 12, 2, 12, True),
    "4->2 float16": (4, 24, 2, 12, True),
    "2->2 float32": (2, 12, 2, 12, False),
    "ToRGB float16": (1, 1, 1, 1, True),
}
CALLS = 1000  # in a turn


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.host", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", type=Path, metavar="DIRECTORY", help="another checkout of sg3")
    parser.add_argument("--binder", action="store_true", help="compile, and let Triton prepare every launch")
    parser.add_argument("--rounds", type=int, default=15, help="turns of 1000 calls for each case (%(default)s)")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.binder)
        return
    checkouts = [ROOT] if options.against is None else [options.against.resolve(), ROOT]
    workers = [start(checkout, options.binder) for checkout in checkouts]
    print("CPU microseconds of a call without gradients, median (and quartiles); launches are left out")
    for case in CASES:
        turns = [[ask(worker, case) for worker in workers] for _ in range(options.rounds)]
        cells = [spread([turn[i] for turn in turns]) for i in range(len(workers))]
        if len(workers) == 2:
            ratio = statistics.median(turn[1] / turn[0] for turn in turns)
            cells = [f"there {cells[0]}", f"here {cells[1]}", f"ratio {ratio:.3f}"]
        print(f"{case:14} " + "   ".join(cells), flush=True)
    for worker in workers:
        worker.stdin.close()  # type: ignore[union-attr]
        worker.wait()


def spread(values: list[float]) -> str:
    low, median, high = statistics.quantiles(values, n=4)
    return f"{median:6.1f} ({low:.1f} to {high:.1f})"


def start(checkout: Path, binder: bool) -> subprocess.Popen[str]:
    """A process that runs this file on a checkout's sg3."""
    environ = {k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "SG3_IMPL")}
    environ["PYTHONPATH"] = str(checkout)
    command = [sys.executable, "-P", __file__, "--work", *(["--binder"] if binder else [])]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environ, cwd=checkout, stdin=pipe, stdout=pipe, text=True)


def ask(worker: subprocess.Popen[str], case: str) -> float:
    """Microseconds of CPU time of one call, by a worker's turn."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(f"{case}\n")
    worker.stdin.flush()
    answer = worker.stdout.readline()
    if not answer:
        sys.exit("error: bench.host: a process that was to be timed has ended; what it said is above")
    return float(answer)


# ---- in the worker, with any checkout's sg3


class Target:
    """Stands in for Triton's driver."""

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def work(binder: bool) -> None:
    """Answer each name of a case with the time of a call."""
    import torch
    from triton.compiler.compiler import CompiledKernel
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    from sg3.kernels import dispatch

    torch.set_num_threads(1)
    usable = dispatch.Status(True, "launches are left out")
    dispatch._probe = lambda *_: usable
    driver.set_active(Target())
    if binder:
        CompiledKernel.run = property(lambda self: lambda *arguments: None)  # type: ignore[assignment]
        CompiledKernel._init_handles = lambda self: None  # which would load it onto a GPU
    else:
        JITFunction.run = lambda self, *arguments, **options: None
    calls: dict[str, Callable[[], object]] = {}
    with torch.no_grad():
        for line in sys.stdin:
            case = line.strip()
            if case not in calls:
                calls[case] = prepared(*CASES[case])
                for _ in range(CALLS // 2):
                    calls[case]()
            begun = time.process_time()
            for _ in range(CALLS):
                calls[case]()
            print((time.process_time() - begun) / CALLS * 1e6, flush=True)


def prepared(up: int, up_taps: int, down: int, down_taps: int, half: bool) -> Callable[[], object]:
    """A layer's call: with a bias, the layer's own gain, slope and clamp, and padding as a list of four."""
    import torch

    from sg3.kernels import design_lowpass_filter, filtered_lrelu

    fu, fd = (design_lowpass_filter(taps, cutoff=8, width=16, fs=64) for taps in (up_taps, down_taps))
    dtype = torch.float16 if half else torch.float32
    x, b = torch.zeros(1, 8, 36, 36, dtype=dtype), torch.zeros(8, dtype=dtype)
    gain, slope = (1.0, 1.0) if up == 1 else (2**0.5, 0.2)
    padding = [(up_taps + down_taps) // 2] * 4

    def call() -> object:
        return filtered_lrelu(x, fu, fd, b, up=up, down=down, padding=padding, gain=gain, slope=slope, clamp=256,
                              impl="triton")  # fmt: skip

    return call


if __name__ == "__main__":
    main()
