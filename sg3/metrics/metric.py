"""What every metric says of itself. Each kind of metric has a file of its own; `names` reads what people write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sg3.metrics.real_images import RealSelection

Values = dict[str, float]  # by the original's names, the one that counts first


@dataclass(frozen=True)
class Metric:
    """A metric and its numbers of images; `num_gen` are generated ones, pairs of them, or those of each class."""

    name: str
    num_gen: int

    less_is_better: ClassVar[bool] = False

    @property
    def detector(self) -> str | None:
        """Name of the network whose features it compares, if it does."""
        return None

    @property
    def real(self) -> RealSelection | None:
        """The real images that it compares with, if it does."""
        return None

    @property
    def least_gen(self) -> int:
        """Generated images without which it has no meaning."""
        return 1
