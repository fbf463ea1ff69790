"""What D's images go through in a run, and how strongly: a fixed probability, a recipe's schedule, or ADA's feedback.

Every sample's draws follow from the seed and its number, so neither ranks nor micro-batches show.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sg3.models.augment import SPECS, AugmentPipe
from sg3.processes import World
from sg3.randomness import host_rng
from sg3.train.adaptive import AdaController
from sg3.train.config import TrainConfig


class Augmentation:
    """The pipe, its probability `p`, and what moves that."""

    def __init__(self, config: TrainConfig, world: World) -> None:
        self.config = config
        self.world = world
        self.pipe = AugmentPipe(**dict[str, Any](SPECS[config.augpipe])).requires_grad_(False).to(world.device)
        self.p = config.p
        self._ada = AdaController(config.target, config.batch, config.ada_kimg, config.ada_interval)
        # Number and sum of the signs of D(real): of this interval and rank, and of all ranks in the interval before.
        self._signs = torch.zeros(2, device=world.device)
        self.signs_before = torch.zeros(2, device=world.device)

    @property
    def is_capped(self) -> bool:
        """Whether ADA would augment more, but p is at its limit."""
        return self._ada.capped and self.p == 1

    def begin_step(self, scheduled: float | None) -> None:
        """Take a recipe's schedule for p, if it has one."""
        if scheduled is not None:
            self.p = scheduled

    def apply(self, images: torch.Tensor, purpose: str, first: int) -> torch.Tensor:
        """Augment images [N, C, R, R], the samples `first`, `first` + 1, ... of the run, for a phase and term."""
        if self.config.aug == "noaug":
            return images
        rngs = [host_rng(self.config.seed, f"aug/{purpose}", first + i) for i in range(images.shape[0])]
        chosen = self.pipe.draw(rngs, images.shape[2], images.shape[3], images.shape[1], self.p)
        augmented: torch.Tensor = self.pipe(images, chosen.to(images.device))
        return augmented

    def watch(self, real_logits: torch.Tensor) -> None:
        """Take note of what D made of real images, on the device."""
        signs = real_logits.detach().sign()
        self._signs += torch.stack([torch.full_like(signs.sum(), signs.numel()), signs.sum()])

    def step_done(self, step: int) -> None:
        """After step number `step`: with --aug=ada, every few steps, move p by what D made of the real images of the
        interval before the last one.

        One interval late, because p is needed on the host: by now that number has long been computed, and reading it
        stops nothing.
        """
        if self.config.aug != "ada" or step % self.config.ada_interval:
            return
        number, total = self.signs_before.tolist()
        if number > 0:
            self.p = self._ada.update(self.p, total / number)
        self.signs_before = self.world.add_up(self._signs.clone())
        self._signs.zero_()

    def snapshot_pipe(self) -> AugmentPipe | None:
        """The pipe as a snapshot holds it, with p inside; None without augmentation."""
        self.pipe.p.fill_(self.p)
        return None if self.config.aug == "noaug" else self.pipe

    def state_dict(self) -> dict[str, Any]:
        """For the training state. All ranks call it together: signs are added up, and from then on rank 0's."""
        signs = self.world.add_up(self._signs)
        if not self.world.is_main:
            self._signs = torch.zeros_like(signs)
        return {
            "augment_p": self.p, "ada_signs": self.signs_before, "real_signs": signs, "ada_capped": self._ada.capped,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; p is the configuration's unless ADA has moved it and still does."""
        self.signs_before.copy_(state["ada_signs"])
        self._ada.capped = state["ada_capped"]
        goes_on = self.config.aug == "ada" and state["config"]["aug"] == "ada"
        self.p = state["augment_p"] if goes_on else self.config.p
        if self.world.is_main:
            self._signs.copy_(state["real_signs"])
