"""Steps whose gradient is not finite: what becomes of them is decided here.

Such a step changes nothing, on any rank: neither weights and moments (`take_step`) nor running means. Whether it was
good stays on the device, as a flag that the optimiser obeys, so nobody waits for it. Bad steps are counted; now and
then the loop looks at the counts, and so many in a row end the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

MAX_IN_A_ROW = 10  # of a phase, after which there is nothing left to save
LOOK_EVERY = 50  # steps between two looks at the counts: a look waits for the device


@dataclass(frozen=True)
class Found:
    """What a look found: of a phase, the longest row of bad steps and their number since the look before."""

    phase: str
    longest: int
    count: int

    @property
    def is_fatal(self) -> bool:
        """Whether the run should end."""
        return self.longest >= MAX_IN_A_ROW

    def __str__(self) -> str:
        return f"{self.phase}: {self.count} step{'s' if self.count > 1 else ''}"


class BadSteps:
    """Leaves bad steps out and counts them, by phase."""

    def __init__(self, phases: Sequence[str], device: torch.device) -> None:
        self._phases = list(phases)
        # By phase: bad steps in a row, the longest such row and their number since the last look.
        self._counts = torch.zeros(len(self._phases), 3, dtype=torch.int64, device=device)

    def take_step(
        self, phase: str, optimizer: torch.optim.Optimizer, good: torch.Tensor, excused: torch.Tensor | None = None
    ) -> None:
        """One step of the optimiser if the boolean scalar `good` (on the device) is true, else none, but counted.

        A bad step that is `excused` (another such scalar), by a loss scale that will now be smaller, says nothing of
        the run: it neither lengthens a row nor ends it.
        """
        # As torch's GradScaler tells a fused optimiser to leave a step out without waiting for the device.
        optimizer.grad_scale, optimizer.found_inf = None, (~good).float()  # type: ignore[attr-defined]
        optimizer.step()
        index = self._phases.index(phase)
        row, longest, count = self._counts[index].unbind()
        row = torch.where(good, 0, row + (1 if excused is None else ~excused))
        self._counts[index] = torch.stack([row, longest.maximum(row), count + ~good])

    def look(self) -> list[Found]:
        """The phases that have had bad steps since the last look. Waits for the device; the same on all ranks."""
        rows = self._counts.tolist()
        self._counts[:, 1:] = 0
        found = [Found(phase, row[1], row[2]) for phase, row in zip(self._phases, rows, strict=True)]
        return [each for each in found if each.count]

    def state_dict(self) -> list[int]:
        """Bad steps in a row, by phase."""
        rows: list[int] = self._counts[:, 0].tolist()
        return rows

    def load_state_dict(self, rows: list[int]) -> None:
        """Go on from `state_dict`'s result; from another number of phases (--gamma=0 has one less) at zero."""
        if len(rows) == len(self._phases):
            self._counts[:, 0] = torch.tensor(rows)
