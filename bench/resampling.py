"""What Numba's upfirdn2d is worth on a CPU: calls at the shapes of networks, and whole training steps.

    python -m bench.resampling calls      Numba over PyTorch, by shape: the rule of `upfirdn2d_cpu` follows from it
    python -m bench.resampling steps      the phases of a step of the demos with the one and with the other

Both take turns call by call, or step by step, so that what else the machine does meets both alike. The time is the
processor's, on one thread; of several threads, of which some wait, that of the clock on the wall.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import asdict
from statistics import median
from typing import Any
from unittest.mock import patch

import torch

from bench.phases import Clock
from bench.steps import Run, noise_dataset
from sg3.device import keep_freed_memory
from sg3.kernels import dispatch, setup_filter, upfirdn2d
from sg3.train.recipes.stylegan.presets import PRESETS

PEERS = ("numba", "torch")
BATCH = 4
FIR = setup_filter([1, 3, 3, 1])
CALLS: dict[str, dict[str, Any]] = {
    "blur": {"padding": 2}, "up": {"up": 2, "padding": [2, 1, 2, 1]}, "down": {"down": 2, "padding": 1},
}  # fmt: skip
IMAGES = [(128, size) for size in (4, 8, 16, 24, 32, 64)] + [(3, size) for size in (8, 16, 32, 64, 128)]
LAYOUTS = {"NCHW": torch.contiguous_format, "channels last": torch.channels_last}


def calls(rounds: int) -> None:
    """A table of medians, microseconds of a call without gradients, and what becomes of the ratio for the least times,
    which other programs disturb less."""
    print("| [N, C, H, W] | call | layout | Numba | PyTorch | ratio | of the least |\n|---|---|---|--:|--:|--:|--:|")
    for channels, size in IMAGES:
        for name, arguments in CALLS.items():
            for layout, memory_format in LAYOUTS.items():
                if channels == 3 and layout != "NCHW":
                    continue  # images have one layout
                x = torch.randn(BATCH, channels, size, size).contiguous(memory_format=memory_format)
                times: dict[str, list[float]] = {peer: [] for peer in PEERS}
                for turn in range(rounds + 1):  # the first warms up
                    for peer in PEERS:
                        began = time.thread_time()
                        with torch.no_grad():
                            upfirdn2d(x, FIR, impl=peer, **arguments)
                        times[peer] += [time.thread_time() - began] if turn else []
                numba, plain = (median(times[peer]) * 1e6 for peer in PEERS)
                least = min(times["numba"]) / min(times["torch"])
                print(f"| {list(x.shape)} | {name} | {layout} | {numba:.0f} | {plain:.0f} | {numba / plain:.2f} | "
                      f"{least:.2f} |", flush=True)


def steps(rounds: int, preset: str) -> None:
    """Medians of the phases of a step; lazy R1 shows from 16 rounds on."""
    op = sys.modules["sg3.kernels.upfirdn2d.op"]  # the package's attribute is the function
    options = asdict(PRESETS[preset].options)
    cfg, batch, cbase, cmax = (options.pop(key) for key in ("cfg", "batch", "cbase", "cmax"))
    words = {key: value for key, value in options.items() if value is not None and key != "data"}
    said = argparse.Namespace(device="cpu", resolution=32, batch=batch, cbase=cbase, cmax=cmax)
    # What is replaced where: with Numba all that one thread would leave to it, on however many.
    instead: dict[str, tuple[Any, str, Any]] = {
        "numba": (dispatch, "NUMBA_ON_ONE_THREAD", frozenset()), "torch": (op, "upfirdn2d_cpu", op.upfirdn2d_torch),
    }  # fmt: skip
    found: dict[str, dict[str, list[float]]] = {peer: defaultdict(list) for peer in PEERS}
    with tempfile.TemporaryDirectory() as folder:
        data = noise_dataset(folder, said.resolution)
        runs = {peer: Run(said, cfg, data, **words) for peer in PEERS}
        for turn in range(rounds + 1):
            for peer, run in runs.items():
                run.trainer.timer = clock = Clock(run.device)  # type: ignore[assignment]
                with patch.object(*instead[peer]):
                    clock.start("step")
                    run.step()
                    clock.stop("step")
                for phase, seconds in clock.seconds.items():
                    found[peer][phase] += [seconds] if turn else []
    print(f"{preset}\n| phase | Numba | PyTorch | ratio |\n|---|--:|--:|--:|")
    for phase in (name for name, times in found["numba"].items() if times):
        a, b = (median(found[peer][phase]) for peer in PEERS)
        print(f"| {phase} | {a * 1e3:.1f} ms | {b * 1e3:.1f} ms | {a / b:.2f} |")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["calls", "steps"])
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--preset", default="demo", choices=["demo", "demo-stylegan3"])
    said = parser.parse_args()
    keep_freed_memory()  # as the commands do
    torch.set_num_threads(said.threads)
    if said.what == "calls":
        calls(said.rounds)
        return
    with patch("bench.phases.now", lambda _: time.perf_counter()) if said.threads > 1 else nullcontext():
        steps(said.rounds, said.preset)


if __name__ == "__main__":
    main()
