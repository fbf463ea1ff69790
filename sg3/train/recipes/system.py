"""What the trainer and the loop see of a training system: two networks, their optimisers, and the phases of a step.

A phase is one optimiser step. It maps each micro-batch to losses by its terms, one after the other, so that the graphs
of fake and real images never live at the same time. Whatever else differs between systems (schedules, moving averages
of the loss) happens in `System.begin_step` and inside the terms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from sg3.models import Discriminator, Generator
from sg3.train.loss_scale import LossScaler


def unaugmented(images: torch.Tensor, _term: str) -> torch.Tensor:
    """The images as they are."""
    return images


def no_generators(_purpose: str) -> Sequence[np.random.Generator]:
    """For micro-batches of systems that draw nothing for single samples."""
    raise NotImplementedError


@dataclass
class MicroBatch:
    """Inputs of one forward/backward pass. real [N, C, R, R] in -1..1, labels [N, c_dim], z [N, z_dim].

    `nimg` is the number of real images shown before this step. `rng` makes decisions on the host; everything drawn on
    the device comes from torch's default generators, which the trainer seeds before each micro-batch.
    `augment(images, term)` is what D's images go through; `rngs(purpose)` gives one generator on the host for each
    sample, the same for the sample however samples are batched.
    """

    real: torch.Tensor
    real_c: torch.Tensor
    z: torch.Tensor
    c: torch.Tensor
    rng: np.random.Generator
    nimg: int = 0
    augment: Callable[[torch.Tensor, str], torch.Tensor] = unaugmented
    rngs: Callable[[str], Sequence[np.random.Generator]] = no_generators


Term = Callable[[MicroBatch], torch.Tensor]  # one loss per sample, whose mean is differentiated


@dataclass
class Phase:
    """One optimiser step: the terms whose gradients it sums, every `interval` steps, and the running means it moves.

    `network` is 'G' or 'D', the key of the phase's network and optimiser; `reals` says which of the step's batches of
    real images its terms see. Phases that end in "reg" are lazy regularisation (Karras et al. 2020, Section 3.1):
    gradients are scaled up by `interval`. `scaler`, if there is one, scales what is differentiated.
    """

    name: str
    network: str
    module: nn.Module
    optimizer: torch.optim.Optimizer
    interval: int
    terms: Sequence[Term]
    means: Sequence[torch.Tensor] = ()
    reals: int = 0
    scaler: LossScaler | None = None

    @property
    def is_main(self) -> bool:
        """Whether this is the phase of its network that runs every step, rather than lazy regularisation."""
        return not self.name.endswith("reg")


class Reporter(Protocol):
    """Where loss terms leave their statistics."""

    def report(self, name: str, value: torch.Tensor) -> None:
        """Add every element of `value` to the statistic `name`."""


class System(Protocol):
    """A recipe at work. `phases` run in this order; main and regularisation phases of a network share its optimiser.

    A step shows `real_batches` batches of real images to the phases, of which the first counts in `nimg`.
    """

    @property
    def G(self) -> Generator:
        """The generator that is trained."""

    @property
    def D(self) -> Discriminator:
        """The discriminator."""

    @property
    def phases(self) -> Sequence[Phase]:
        """In their order."""

    @property
    def real_batches(self) -> int:
        """How many batches of real images a step takes."""

    @property
    def snapshots_hold_optimizers(self) -> bool:
        """Whether the system's own network files have the optimisers' states, which its own code goes on from."""

    def progress(self, nimg: int, tick: int, step: int) -> dict[str, float] | None:
        """The counters that the system's own network files have, None if they have none."""

    def begin_step(self, nimg: int) -> None:
        """Set what follows a schedule (learning rates, weights of terms), after `nimg` real images."""

    def augment_p(self, nimg: int) -> float | None:
        """The probability of augmentation after `nimg` real images where the recipe has a schedule for it, else None:
        `--aug` decides."""

    def ema_beta(self, nimg: int) -> float:
        """How much of G_ema is kept at the end of a step that began after `nimg` real images."""

    def state_dict(self) -> dict[str, Any]:
        """What the recipe carries from step to step beside networks and optimisers."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`'s result; `state` may hold more."""
