"""Mean and covariance of features, accumulated in float64 where the features are."""

from __future__ import annotations

import torch

from sg3.processes import World


class Moments:
    """Number, sum and sum of outer products of feature vectors [N, D].

    Adding is exact enough that neither the order nor the size of the batches matters (float64), so the sums of several
    processes can be added, too.
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        self.count = 0
        self.total = torch.zeros(dim, dtype=torch.float64, device=device)  # [D]
        self.outer = torch.zeros(dim, dim, dtype=torch.float64, device=device)  # [D, D]

    @classmethod
    def of(cls, features: torch.Tensor) -> Moments:
        """The moments of features [N, D], taken in blocks so as not to hold all of them in float64."""
        if features.ndim != 2:
            raise ValueError(f"features: got shape {list(features.shape)}, expected [N, D]")
        moments = cls(features.shape[1], features.device)
        for block in features.split(4096):
            moments.add(block)
        return moments

    def add(self, features: torch.Tensor) -> None:
        """Take in features [N, D]. Raises ValueError for another width."""
        if features.ndim != 2 or features.shape[1] != len(self.total):
            raise ValueError(f"features: got shape {list(features.shape)}, expected [N, {len(self.total)}]")
        x = features.to(self.total.device, torch.float64)
        self.count += len(x)
        self.total += x.sum(dim=0)
        self.outer.addmm_(x.t(), x)

    def merge(self, other: Moments) -> None:
        """Take in what another one has seen."""
        self.count += other.count
        self.total += other.total.to(self.total.device)
        self.outer += other.outer.to(self.outer.device)

    def without(self, part: Moments) -> Moments:
        """Those of the features that are not in `part`, which are some of these."""
        rest = Moments(len(self.total), self.total.device)
        rest.count = self.count - part.count
        rest.total = self.total - part.total
        rest.outer = self.outer - part.outer
        return rest

    def add_up(self, world: World) -> Moments:
        """Make them those of what all processes have seen."""
        count = torch.tensor(self.count, dtype=torch.float64, device=self.total.device)
        self.count = int(world.add_up(count))
        world.add_up(self.total)
        world.add_up(self.outer)
        return self

    def mean_and_covariance(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean [D] and covariance [D, D], float64, divided by N and not N - 1, as the original's are.

        Raises ValueError without any features.
        """
        if self.count == 0:
            raise ValueError("features: none were added, a mean needs at least one")
        mean = self.total / self.count
        return mean, self.outer / self.count - torch.outer(mean, mean)
