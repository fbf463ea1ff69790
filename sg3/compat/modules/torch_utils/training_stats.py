"""`torch_utils.training_stats`: averages of named numbers over time and over processes.

    training_stats.report("Loss/G", loss)             anywhere, any number of times, without waiting for the GPU
    collector = training_stats.Collector()            where the averages are wanted
    collector.update(); collector.mean("Loss/G")      of everything reported, on all ranks, since the update before

Each name has three sums: the count, the values and their squares. They are kept in float32 on the device of the
values, and added up in float64 by the collectors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from sg3.compat.modules.dnnlib.util import EasyDict

Moments = torch.Tensor  # [3], float64, CPU: count, sum, sum of squares


class _Process:
    """What one process has reported. The interface is functions of the module, hence one object for all of them."""

    def __init__(self) -> None:
        self.rank = 0
        self.sync_device: torch.device | None = None  # None: no other processes
        self.pending: dict[str, dict[torch.device, torch.Tensor]] = {}  # sums since the last synchronisation
        self.totals: dict[str, Moments] = {}  # over all ranks, since the beginning


_process = _Process()


def init_multiprocessing(rank: int, sync_device: torch.device | None) -> None:
    """Tell this process's rank, and the device through which `update` adds up what all ranks reported (None: there is
    only this one). To be called before anything is reported."""
    _process.rank = rank
    _process.sync_device = sync_device


def report(name: str, value: Any) -> Any:
    """Count a tensor's elements, or a number or nested numbers, into the statistics of `name`. Returns `value`.

    All ranks must report the same names between two updates, an empty tensor for nothing.
    """
    sums = _process.pending.setdefault(name, {})
    elements = torch.as_tensor(value)
    if elements.numel() == 0:
        return value
    elements = elements.detach().flatten().to(torch.float32)
    moments = torch.stack([torch.ones_like(elements).sum(), elements.sum(), elements.square().sum()])
    device = moments.device
    sums[device] = moments if device not in sums else sums[device] + moments
    return value


def report0(name: str, value: Any) -> Any:
    """`report` on rank 0; elsewhere only the name becomes known."""
    report(name, value if _process.rank == 0 else [])
    return value


class Collector:
    """The averages of what is reported under names that match `regex`, from one `update` to the next.

    With `keep_previous`, a name that nothing was reported for keeps its averages; otherwise they are NaN. Every rank
    makes the same collectors and updates them at the same time.
    """

    def __init__(self, regex: str = ".*", keep_previous: bool = True) -> None:
        self._regex = re.compile(regex)
        self._keep_previous = keep_previous
        self._seen: dict[str, Moments] = {}
        self._moments: dict[str, Moments] = {}
        self.update()
        self._moments.clear()

    def names(self) -> list[str]:
        """All names reported so far that match."""
        return [name for name in _process.totals.keys() | _process.pending.keys() if self._regex.fullmatch(name)]

    def update(self) -> None:
        """Take in what all ranks have reported since the last update."""
        if not self._keep_previous:
            self._moments.clear()
        _synchronise()
        for name in self.names():
            total = _process.totals[name]
            new = total - self._seen.get(name, torch.zeros(3, dtype=torch.float64))
            self._seen[name] = total
            if new[0] > 0:
                self._moments[name] = new

    def num(self, name: str) -> int:
        """How many numbers were reported."""
        return int(self._of(name)[0])

    def mean(self, name: str) -> float:
        """Their mean; NaN if there were none."""
        count, total, _ = self._of(name).tolist()
        return total / count if count else float("nan")

    def std(self, name: str) -> float:
        """Their standard deviation (that of the numbers themselves: divided by n); NaN if there were none."""
        count, total, squares = self._of(name).tolist()
        if not count or not np.isfinite(total):
            return float("nan")
        return float(np.sqrt(max(squares / count - (total / count) ** 2, 0))) if count > 1 else 0.0

    def as_dict(self) -> EasyDict:
        """name -> num, mean, std."""
        return EasyDict({
            name: EasyDict(num=self.num(name), mean=self.mean(name), std=self.std(name)) for name in self.names()
        })  # fmt: skip

    def __getitem__(self, name: str) -> float:
        return self.mean(name)

    def _of(self, name: str) -> Moments:
        return self._moments.get(name, torch.zeros(3, dtype=torch.float64))


def _synchronise() -> None:
    """Move pending sums into the totals, over all ranks. They are stacked in the order of the sorted names."""
    names = sorted(_process.pending)
    if not names:
        return
    moments = torch.stack([_sum(_process.pending[name].values()) for name in names])  # [names, 3]
    if _process.sync_device is not None:
        shared = moments.to(_process.sync_device)
        torch.distributed.all_reduce(shared)
        moments = shared.cpu()
    for name, new in zip(names, moments, strict=True):
        _process.totals[name] = _process.totals.get(name, torch.zeros_like(new)) + new
        _process.pending[name] = {}  # the name stays, so that later updates agree on the names


def _sum(parts: Iterable[torch.Tensor]) -> Moments:
    return sum((part.to("cpu", torch.float64) for part in parts), torch.zeros(3, dtype=torch.float64))
