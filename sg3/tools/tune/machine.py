"""What `sg3 tune` needs of the machine: a GPU or the name of one, its clock, processes that compile."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import triton

from sg3.errors import StorageError, UsageError
from sg3.kernels import dispatch
from sg3.kernels.triton_launch import INTERPRETING, architecture
from sg3.tools.tune import ahead
from sg3.tools.tune.ahead import Target
from sg3.tools.tune.calls import Call

ARCHITECTURES = (80, 86, 89, 90, 100, 120)


def target(arch: str | None, needs_gpu: bool) -> Target:
    """The architecture by name (sm_90), or this machine's GPU. Raises UsageError where neither is there."""
    if INTERPRETING:
        raise UsageError("TRITON_INTERPRET is set: kernels are interpreted and neither compiled nor timed; unset it")
    if arch is not None:
        match = re.fullmatch(r"(?:sm_)?(\d+)a?", arch)
        if match is None or int(match[1]) not in ARCHITECTURES:
            names = ", ".join(f"sm_{number}" for number in ARCHITECTURES)
            raise UsageError(f"--arch={arch}: expected one of {names}")
        return Target(int(match[1]), None)
    status = dispatch.triton_status(device())
    if not status.usable:
        fix = f"; {status.fix}" if status.fix else ""
        otherwise = "" if needs_gpu else "; or name an architecture, --arch=sm_90"
        elsewhere = "; without a GPU, `sg3 tune --warmup --arch=sm_90` compiles for one" if needs_gpu else ""
        raise UsageError(f"sg3 tune: Triton's kernels cannot run here: {status.reason}{fix}{otherwise}{elsewhere}")
    return Target(architecture(device()), torch.cuda.get_device_name(device()))


def check_cache() -> None:
    """Raises StorageError if Triton cannot keep what it compiles, before it has compiled anything."""
    folder = Path(triton.knobs.cache.dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(f"{folder}: Triton cannot keep compiled kernels there: {error.strerror or error}; "
                           "TRITON_CACHE_DIR=FOLDER names another place") from error  # fmt: skip


def device() -> torch.device:
    """The GPU that is measured."""
    return torch.device("cuda", torch.cuda.current_device() if torch.cuda.is_available() else 0)


def clock(run: Callable[[], object]) -> float:
    """The median time of a function in microseconds, of runs for 50 ms, each with an empty cache."""
    from triton.testing import do_bench

    return 1000 * float(do_bench(run, warmup=10, rep=50, return_mode="median"))


def compiled_groups(calls: Sequence[Call], to: Target, jobs: int) -> Iterator[list[Call]]:
    """The calls whose kernels have the same choice of configurations, in the order given, as soon as all candidates of
    the first of them are compiled. Later ones are compiled meanwhile."""
    with ahead.compilers(jobs) as pool:
        groups = [group for classes, group in ahead.by_classes(pool, calls, to).items() if classes]
        outcomes = ahead.compile_groups(pool, [group[:1] for group in groups], to, every_candidate=True)
        for group, _ in zip(groups, outcomes, strict=True):  # what cannot be compiled fails again when it is tried
            yield group
