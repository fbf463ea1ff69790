"""Training statistics: collected on the device without waiting for it, written as JSON lines and to TensorBoard."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch

from sg3.errors import StorageError


class Stats:
    """Number, mean and standard deviation of everything reported since the last flush, per name.

    Values are summed where they are, on the device, as three float64 numbers per name; only `flush` waits for them.
    """

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}

    def report(self, name: str, value: torch.Tensor | float) -> None:
        """Add every element of `value` to the statistic `name`."""
        v = torch.as_tensor(value).detach().to(torch.float64).flatten()
        moments = torch.stack([torch.full_like(v.sum(), v.numel()), v.sum(), v.square().sum()])
        known = self._sums.get(name)
        self._sums[name] = moments if known is None else known + moments

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

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The sums of the unfinished interval, for the training state."""
        return {name: sums.cpu() for name, sums in self._sums.items()}

    def load_state_dict(self, state: dict[str, torch.Tensor], device: torch.device) -> None:
        """Take up an unfinished interval."""
        self._sums = {name: sums.to(device) for name, sums in state.items()}


class StatsWriter:
    """Appends one line per tick to stats.jsonl, and to TensorBoard's files if that is installed.

    A continued run first drops the lines beyond the state it continues from, so that no tick appears twice.
    """

    def __init__(self, run_dir: Path, start_nimg: int) -> None:
        self.path = run_dir / "stats.jsonl"
        if self.path.exists():
            self._drop_after(start_nimg)
        self._tensorboard = _tensorboard_writer(run_dir)

    def write(self, stats: dict[str, dict[str, float]], nimg: int) -> None:
        """One tick's statistics. A full disk raises StorageError; trouble in TensorBoard is ignored."""
        line = json.dumps({**stats, "timestamp": time.time()})
        try:
            with open(self.path, "a") as file:
                file.write(line + "\n")
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be written: {error.strerror}") from error
        if self._tensorboard is not None:
            try:
                for name, value in stats.items():
                    self._tensorboard.add_scalar(name, value["mean"], global_step=nimg // 1000)
                self._tensorboard.flush()
            except Exception:  # a plotting convenience must not end a training run
                self._tensorboard = None

    def _drop_after(self, nimg: int) -> None:
        lines = self.path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and _kimg(line) * 1000 <= nimg]
        if kept != lines:
            self.path.write_text("".join(kept))


def _kimg(line: str) -> float:
    try:
        return float(json.loads(line)["Progress/kimg"]["mean"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line cut off by a crash


def _tensorboard_writer(run_dir: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(run_dir)
    except Exception:  # not installed, or broken: it is optional either way
        return None
