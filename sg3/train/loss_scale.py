"""Loss scaling (Micikevicius et al. 2018, "Mixed precision training", Section 3.2).

Gradients of 16-bit layers are numbers of 16 bits themselves, and below 6e-8 float16 has none. So the loss is multiplied
by a factor before it is differentiated, and the parameters' gradients, which are float32, are divided by it afterwards.
All factors are powers of two: where nothing overflows or vanishes, scaling changes no bit of a result.

A dynamic factor looks for the largest that goes well: a step whose gradient is not finite is left out and halves it,
2000 steps of the network without one double it. All of that stays on the device; nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from sg3.train.options import LOSS_SCALES

GROW_AFTER = 2000  # good steps, as in the paper
LEAST, MOST = 1.0, float(LOSS_SCALES[-1])


class LossScaler:
    """The factor of one network, `scale` (a float32 scalar on the device); where it is not dynamic it never changes."""

    def __init__(self, scale: int, is_dynamic: bool, device: torch.device) -> None:
        self.is_dynamic = is_dynamic
        self.scale = torch.full([], float(scale), device=device)
        self._good_steps = torch.zeros([], dtype=torch.int64, device=device)  # since the factor changed

    def unscale(self, grads: Sequence[torch.Tensor]) -> None:
        """Divide gradients of the scaled loss by the factor, in place."""
        if grads:
            torch._foreach_mul_(list(grads), 1 / self.scale)

    def step_done(self, good: torch.Tensor) -> torch.Tensor:
        """Take note of whether a step's gradient was finite, a boolean scalar on the device; the factor is then that
        of the next step. Returns the same kind of flag: whether, if it was not, the factor may have been the cause."""
        if not self.is_dynamic:
            return torch.zeros_like(good)
        can_shrink = self.scale > LEAST
        steps = torch.where(good, self._good_steps + 1, 0)
        is_due = steps >= GROW_AFTER
        after = torch.where(good, torch.where(is_due, self.scale * 2, self.scale), self.scale / 2)
        self.scale = after.clamp(LEAST, MOST)
        self._good_steps = torch.where(is_due, 0, steps)
        return can_shrink

    def state_dict(self) -> dict[str, float | int]:
        """What changes from step to step. Waits for the device."""
        return {"scale": self.scale.item(), "good_steps": int(self._good_steps.item())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`'s result."""
        self.scale.fill_(state["scale"])
        self._good_steps.fill_(state["good_steps"])
