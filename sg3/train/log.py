"""Training statistics: collected on the device without waiting for it, written as JSON lines."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sg3.durations import format_time_brief
from sg3.portable import peak_memory
from sg3.processes import World
from sg3.run_folder import STATS, append_line, keep_lines, read_lines


class Stats:
    """Number, mean and standard deviation of everything reported since the last flush, per name.

    Values are summed where they are, on the device, as three float64 numbers per name; only `flush` waits for them.
    What is not finite does not count: such steps are left out, and counted by the trainer.
    """

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}

    def report(self, name: str, value: torch.Tensor | float) -> None:
        """Add every element of `value` to the statistic `name`."""
        v = torch.as_tensor(value, dtype=torch.float64).detach().flatten()
        finite = v.isfinite()
        v = torch.where(finite, v, 0.0)
        moments = torch.stack([finite.sum().to(torch.float64), v.sum(), v.square().sum()])
        known = self._sums.get(name)
        self._sums[name] = moments if known is None else known + moments.to(known.device)

    def mean(self, name: str) -> float:
        """Mean of what was reported under `name` since the last flush, NaN if nothing was."""
        if name not in self._sums:
            return float("nan")
        num, total, _ = self._sums[name].tolist()
        return total / num if num else float("nan")

    def flush(self) -> dict[str, dict[str, float]]:
        """name -> {num, mean, std}, and start over."""
        result = {}
        for name, sums in sorted(self._sums.items()):
            num, total, squares = sums.tolist()
            if num == 0:
                continue
            mean = total / num
            std = max(squares / num - mean * mean, 0.0) ** 0.5 if num > 1 else 0.0
            result[name] = {"num": int(num), "mean": mean, "std": std}
        self._sums.clear()
        return result

    def add_up(self, world: World) -> None:
        """Make rank 0's sums those of all ranks, and the others' empty."""
        self._sums = self.added_up(world)

    def added_up(self, world: World) -> dict[str, torch.Tensor]:
        """The sums of all ranks, by name, on rank 0, nothing on the others. All ranks call it."""
        if world.size == 1:
            return self._sums
        names = sorted({name for known in world.gather(list(self._sums)) for name in known})
        if not names:
            return {}
        zero = torch.zeros(3, dtype=torch.float64, device=world.device)
        sums = world.add_up(torch.stack([self._sums.get(name, zero).to(world.device) for name in names]))
        return dict(zip(names, sums.unbind(), strict=True)) if world.is_main else {}

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The sums of the unfinished interval, for the training state."""
        return {name: sums.cpu() for name, sums in self._sums.items()}

    def load_state_dict(self, state: dict[str, torch.Tensor], device: torch.device) -> None:
        """Take up an unfinished interval."""
        self._sums = {name: sums.to(device) for name, sums in state.items()}


@dataclass(frozen=True)
class Tick:
    """Progress and timing of one reporting interval: `images` shown in `seconds`, plus `maintenance` before them."""

    number: int
    nimg: int
    images: int
    total_seconds: float
    seconds: float
    maintenance: float
    augment: float  # probability
    memory: dict[str, float]  # what `memory_usage` found

    @property
    def sec_per_kimg(self) -> float:
        return self.seconds / max(self.images, 1) * 1000

    def statistics(self) -> dict[str, float]:
        """Under the original's names."""
        return {
            "Progress/tick": self.number, "Progress/kimg": self.nimg / 1000, "Progress/augment": self.augment,
            "Timing/total_sec": self.total_seconds, "Timing/total_hours": self.total_seconds / 3600,
            "Timing/total_days": self.total_seconds / 86400, "Timing/sec_per_tick": self.seconds,
            "Timing/sec_per_kimg": self.sec_per_kimg, "Timing/maintenance_sec": self.maintenance, **self.memory,
        }  # fmt: skip

    def line(self, left: float | None) -> str:
        """The original's status line, with images per second and the remaining time."""
        fields = [
            f"tick {self.number:<4d}", f"kimg {self.nimg / 1000:<7.1f}",
            f"time {format_time_brief(self.total_seconds):<7s}",
            f"sec/tick {self.seconds:<6.1f}", f"sec/kimg {self.sec_per_kimg:<6.1f}",
            f"maintenance {self.maintenance:<4.1f}",
        ]  # fmt: skip
        columns = (("cpumem", "cpu_mem_gb"), ("gpumem", "peak_gpu_mem_gb"), ("reserved", "peak_gpu_mem_reserved_gb"))
        for label, name in columns:
            if f"Resources/{name}" in self.memory:
                fields.append(f"{label} {self.memory[f'Resources/{name}']:<5.2f}")
        fields += [f"augment {self.augment:.3f}", f"img/s {self.images / max(self.seconds, 1e-9):<5.1f}"]
        if left is not None and left < float("inf"):
            fields.append(f"left {format_time_brief(left)}")
        return " ".join(fields).rstrip()


def memory_usage(device: torch.device) -> dict[str, float]:
    """Peak memory in GiB since the start (host) and since the last call (GPU), under the original's names."""
    peak = peak_memory()
    usage = {} if peak is None else {"Resources/cpu_mem_gb": peak / 2**30}
    if device.type == "cuda":
        usage["Resources/peak_gpu_mem_gb"] = torch.cuda.max_memory_allocated(device) / 2**30
        usage["Resources/peak_gpu_mem_reserved_gb"] = torch.cuda.max_memory_reserved(device) / 2**30
        torch.cuda.reset_peak_memory_stats(device)
    return usage


class StatsWriter:
    """Appends one line per tick to stats.jsonl.

    A continued run first drops the lines beyond the state it continues from, so that no tick appears twice.
    """

    def __init__(self, run_dir: Path, start_nimg: int) -> None:
        self.path = run_dir / STATS
        keep_lines(self.path, lambda line: _nimg(line) <= start_nimg)

    def has(self, stats: dict[str, dict[str, float]]) -> bool:
        """Whether this tick's line, or one of a later tick, is there."""
        newest = next(read_lines(self.path, newest_first=True), {})
        return bool(newest) and _nimg(newest) >= _nimg(stats)

    def write(self, stats: dict[str, dict[str, float]]) -> None:
        """One tick's statistics. Raises StorageError, such as for a full disk."""
        append_line(self.path, json.dumps({**stats, "timestamp": time.time()}))


def _nimg(line: dict[str, Any]) -> float:
    try:
        return round(float(line["Progress/kimg"]["mean"]) * 1000)
    except (ValueError, KeyError, TypeError):
        return float("inf")  # no line of ours
