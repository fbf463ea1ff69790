"""How strongly to augment: ADA's feedback from the discriminator's overfitting (Karras et al. 2020, Section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from sg3.errors import UsageError


@dataclass
class AdaController:
    """Moves the augmentation probability p so that E[sign(D(real))] stays at `target`.

    Called every `interval` steps of `batch` images, p can go from 0 to 1 within `ada_kimg` thousand images. It stays in
    0..1: where every image is augmented, generated images begin to look it. `capped` becomes True when p reaches 1, so
    that a caller can say so once. Raises UsageError for settings outside their range.
    """

    target: float
    batch: int
    ada_kimg: float
    interval: int = 4
    capped: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.target <= 1:
            raise UsageError(f"target: got {self.target}, expected a number in 0..1 (the paper's is 0.6)")
        for name, value in (("batch", self.batch), ("ada_kimg", self.ada_kimg), ("interval", self.interval)):
            if not (isfinite(value) and value > 0):
                raise UsageError(f"{name}: got {value}, expected a number above 0")

    def update(self, p: float, mean_sign: float) -> float:
        """The next p, from `mean_sign`, the mean of sign(D(real)) since the last call; as it is where that is NaN."""
        step = self.batch * self.interval / (self.ada_kimg * 1000)
        if mean_sign > self.target:
            p += step
        elif mean_sign < self.target:
            p -= step
        self.capped = self.capped or p >= 1
        return min(max(p, 0.0), 1.0)
