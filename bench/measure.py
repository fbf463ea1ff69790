"""How peers are timed, side by side, and how they are judged before.

Within a case the peers take turns, A B C A B C ..., so that whatever else the machine does hits all of them alike; a
peer's ratio to `ref` is the median of the ratios within each turn. Medians and quartiles, no means: on a machine that
others use, too, the slow outliers say nothing about the code.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bench import roofline
from bench.workloads import Peer, Tensors, Workload
from sg3.kernels.dispatch import ImplUnavailableError

SUMS = 1e-5  # relative L2 error of a gradient in which large float32 terms cancel, summed in another order
KINK = 1e-3  # relative L2 error of a gradient that samples within rounding distance of leaky ReLU's kink may cause


class GateError(AssertionError):
    """A peer's result is wrong: nothing of the case is timed."""


def gate(result: Tensors, ref: Tensors, exact: Tensors | None, kinks: bool, who: str) -> None:
    """|result - exact| <= 2 (|ref - exact| + eps |exact|) + SUMS |exact| in L2, for the output and every gradient.

    The rule of the tests (CONTRIBUTING.md) and a little more, for shapes that nobody picked. Without `exact`, `ref`
    takes its place. Where the derivative jumps at 0, KINK |exact| is added, too: there a rounding error decides which
    slope is taken. Raises GateError.
    """
    for index, (k, r) in enumerate(zip(result, ref, strict=True)):
        what = f"{who}: {'gradient' if index else 'output'} {index}"
        e = r if exact is None else exact[index]
        if k.dtype != r.dtype or k.shape != r.shape:
            raise GateError(f"{what}: {k.dtype} {list(k.shape)}, ref has {r.dtype} {list(r.shape)}")
        norm, error, budget = distance(e, None), distance(k, e), distance(r, e)
        allowed = 2 * (budget + torch.finfo(k.dtype).eps * norm) + (SUMS + (KINK if kinks else 0)) * norm
        if not error <= allowed:  # NaN, too
            raise GateError(f"{what}: error {error:.3g} in L2, allowed {allowed:.3g} (norm {norm:.3g})")


def distance(a: torch.Tensor, b: torch.Tensor | None) -> float:
    """L2 norm of a - b in float64, by parts: large tensors need not exist a second time."""
    total = 0.0
    for i, part in enumerate(a.detach().flatten().split(2**24)):
        other = 0.0 if b is None else b.detach().flatten()[i * 2**24 : (i + 1) * 2**24].double()
        total += float((part.double() - other).square().sum())
    return float(total**0.5)


@dataclass
class Clock:
    """Seconds of one call on a device."""

    device: torch.device

    def __post_init__(self) -> None:
        # Zeros over 1 GiB before each call: nothing of the last one is left in the L2 cache, and while they are
        # written, the host gets ahead with its launches, so that it is the GPU's time that is measured.
        self.flush = torch.empty(2**28, device=self.device) if self.device.type == "cuda" else None

    def __call__(self, function: Callable[[], object]) -> float:
        if self.flush is None:
            start = time.perf_counter()
            function()
            return time.perf_counter() - start
        self.flush.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        function()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3


def admit(workload: Workload, names: list[str], device: torch.device) -> tuple[dict[str, Peer], dict[str, Any]]:
    """The peers that can run and are right, and for all of them what is known before the timing.

    A peer that cannot run here is left out with the reason. Where `ref` does not fit in memory, `torch` is what the
    others are compared with; a peer with nothing to compare it with is marked `unchecked`. Raises GateError for one
    that is wrong.
    """
    torch._dynamo.reset()
    release(device)
    with torch.backends.cudnn.flags(benchmark=False, allow_tf32=False):  # one call in float64 pays for no search
        exact = attempt(lambda: workload.exact(device))
    if isinstance(exact, str):
        exact = None
    make = workload.prepare(device)
    peers: dict[str, Peer] = {}
    facts: dict[str, Any] = {}
    ref: Tensors | None = None
    for name in names:
        def first(name: str = name) -> tuple[Peer, Tensors, float, float]:
            release(device)
            before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
            start = time.perf_counter()
            peer = make(name)
            result = peer.check()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds = time.perf_counter() - start
            peak = torch.cuda.max_memory_allocated(device) - before if device.type == "cuda" else 0
            return peer, result, seconds, peak / 1e6

        outcome = attempt(first, anything=name.startswith("compile(") or name == "original")
        if isinstance(outcome, str):
            facts[name] = {"skipped": outcome}
            continue
        peer, result, seconds, peak = outcome
        if ref is None and name in ("ref", "torch"):
            ref = result
        peers[name] = peer
        facts[name] = {"first_call_s": round(seconds, 2)} if name.startswith("compile(") or name == "triton" else {}
        if ref is not None:
            gate(result, ref, exact, workload.kinks, name)
        if name != "ref" and (ref is None or ref is result) and exact is None:
            facts[name]["unchecked"] = True
        if device.type == "cuda":
            facts[name]["peak_mb"] = round(peak, 1)
    return peers, facts


def attempt(function: Callable[[], Any], anything: bool = False) -> Any:
    """The function's result, or why it cannot run here, as a line. Other errors pass unless `anything` goes."""
    try:
        return function()
    except torch.OutOfMemoryError:
        return "out of memory"
    except (ImplUnavailableError, LookupError, ImportError) as error:
        return str(error).splitlines()[0]
    except Exception as error:
        if not anything:
            raise
        lines = [line for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]


def release(device: torch.device) -> None:
    """Give back what earlier cases have used, so that peaks begin at what a case itself holds."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def statistics(samples: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Per peer: median and quartiles in milliseconds, and how many times faster than `ref` (median over the turns)."""
    result = {}
    for name, times in samples.items():
        q1, median, q3 = np.percentile(np.array(times) * 1e3, [25, 50, 75])
        result[name] = {"median_ms": median, "q1_ms": q1, "q3_ms": q3}
        if "ref" in samples:
            result[name]["vs_ref"] = float(np.median(np.array(samples["ref"]) / np.array(times)))
    return {name: {k: float(f"{v:.4g}") for k, v in each.items()} for name, each in result.items()}


def floors(workload: Workload, device: roofline.Device, peers: dict[str, Any]) -> dict[str, float]:
    """The workload's floors in milliseconds; writes into each peer which part of its time they are."""
    cost = workload.cost()
    if cost is None:
        return {}
    floor, byte_floor = device.floor(cost) * 1e3, device.byte_floor(cost) * 1e3
    for facts in peers.values():
        if "median_ms" in facts:
            facts["of_floor"] = float(f"{floor / facts['median_ms']:.3g}")
            facts["of_byte_floor"] = float(f"{byte_floor / facts['median_ms']:.3g}")
    return {"floor_ms": float(f"{floor:.4g}"), "byte_floor_ms": float(f"{byte_floor:.4g}")}
