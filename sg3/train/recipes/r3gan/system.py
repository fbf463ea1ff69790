"""R3GAN at work: relativistic pairing, with R1 and R2 in every step (Huang et al. 2024, Section 2).

    D   softplus(D(g) - D(x)) + gamma / 2 (|grad_x D(x)|^2 + |grad_g D(g)|^2)
    G   softplus(D(x) - D(g))

Each generated image g is paired with a real one x of the same class. D moves first; each phase has latents and real
images of its own. Learning rate, Adam's beta2, gamma, the augmentation's probability and the half-life of the weight
average follow a cosine until --schedule-kimg. The penalties are gradients with respect to images before augmentation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from sg3.kernels.bias_act.activations import clamped
from sg3.models import r3gan
from sg3.randomness import seed_torch
from sg3.train.ema import ema_beta
from sg3.train.losses import gradient_penalty
from sg3.train.losses.adversarial import relativistic
from sg3.train.recipes.r3gan.config import BETA2, GAMMA_DECAY, LR_DECAY, R3GANConfig
from sg3.train.recipes.system import MicroBatch, Phase, Reporter
from sg3.train.schedules import cosine


class R3GAN:
    """A `System` (see there). `watch` gets D's logits of real images."""

    real_batches = 2
    snapshots_hold_optimizers = True

    def __init__(
        self, config: R3GANConfig, device: torch.device, stats: Reporter, watch: Callable[[torch.Tensor], None]
    ) -> None:
        self.config = config
        self.stats = stats
        self.watch = watch
        self.G, self.D = build_networks(config, device)
        self.gamma = config.gamma
        self.phases = [
            Phase("Dmain", "D", self.D, self._adam(self.D, config.dlr), 1, [self.d_loss], reals=0),
            Phase("Gmain", "G", self.G, self._adam(self.G, config.glr), 1, [self.g_loss], reals=1),
        ]

    def _adam(self, module: torch.nn.Module, lr: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            list(module.parameters()), lr=lr, betas=(0.0, BETA2[0]), eps=self.config.adam_eps, fused=True
        )

    def progress(self, nimg: int, tick: int, step: int) -> dict[str, float]:
        """Where its schedules are."""
        return {"cur_nimg": nimg}

    # ---- schedules

    def begin_step(self, nimg: int) -> None:
        """Learning rates, beta2 and gamma of this step."""
        c = self.config
        for phase, lr in zip(self.phases, (c.dlr, c.glr), strict=True):
            for group in phase.optimizer.param_groups:
                group["lr"] = self.scheduled(nimg, lr, lr / LR_DECAY)
                group["betas"] = (0.0, self.scheduled(nimg, *BETA2))
        self.gamma = self.scheduled(nimg, c.gamma, c.gamma / GAMMA_DECAY)

    def augment_p(self, nimg: int) -> float | None:
        """From 0 to --final-p."""
        return self.scheduled(nimg, 0.0, self.config.final_p) if self.config.aug == "schedule" else None

    def ema_beta(self, nimg: int) -> float:
        """A half-life from 0 to --ema-kimg."""
        return ema_beta(self.config.batch, nimg, self.scheduled(nimg, 0.0, self.config.ema_kimg), None)

    def scheduled(self, nimg: int, start: float, end: float) -> float:
        """What goes from `start` to `end`, after `nimg` images."""
        return cosine(nimg, start, end, self.config.schedule_kimg * 1000)

    # ---- losses

    def generated(self, mb: MicroBatch) -> torch.Tensor:
        """G's images, with --clamp-images in the range of pixels: beyond it D sees no difference, and none is made."""
        images = self.G(mb.z, mb.real_c)
        return clamped(images, -1, 1) if self.config.clamp_images else images

    def d_loss(self, mb: MicroBatch) -> torch.Tensor:
        """D should tell the real image of each pair, and be flat around both."""
        with torch.no_grad():
            generated = self.generated(mb)
        real_logits, r1 = self._logits_and_penalty(mb, mb.real, "real")
        fake_logits, r2 = self._logits_and_penalty(mb, generated, "fake")
        self.watch(real_logits)
        loss = relativistic(real_logits, fake_logits)
        for name, value in (
            ("scores/real", real_logits - fake_logits), ("signs/real", (real_logits - fake_logits).sign()),
            ("r1_penalty", r1), ("r2_penalty", r2), ("D/loss", loss),
        ):  # fmt: skip
            self.stats.report(f"Loss/{name}", value)
        return loss + self.gamma / 2 * (r1 + r2)

    def g_loss(self, mb: MicroBatch) -> torch.Tensor:
        """D should take the generated image of each pair for the real one."""
        fake_logits = self.D(mb.augment(self.generated(mb), "fake"), mb.real_c)
        with torch.no_grad():
            real_logits = self.D(mb.augment(mb.real, "real"), mb.real_c)
        loss = relativistic(fake_logits, real_logits)
        for name, value in (
            ("scores/fake", fake_logits - real_logits), ("signs/fake", (fake_logits - real_logits).sign()),
            ("G/loss", loss),
        ):  # fmt: skip
            self.stats.report(f"Loss/{name}", value)
        return loss

    def _logits_and_penalty(self, mb: MicroBatch, images: torch.Tensor, term: str) -> tuple[torch.Tensor, torch.Tensor]:
        """D's logits of the augmented images, and the squared norm of their gradient with respect to the images."""

        def critic(x: torch.Tensor) -> torch.Tensor:
            return self.D(mb.augment(x, term), mb.real_c)

        if self.config.penalty == "approximate":
            logits = critic(images)
            return logits, gradient_penalty.approximate(critic, images, logits)
        images = images.detach().requires_grad_(True)
        logits = critic(images)
        return logits, gradient_penalty.exact(images, logits)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: all follows from the number of images."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to load."""


def build_networks(config: R3GANConfig, device: torch.device) -> tuple[r3gan.Generator, r3gan.Discriminator]:
    """Freshly initialised G and D, a function of the seed."""
    seed_torch(config.seed, "init")
    G = r3gan.Generator(**config.generator_kwargs())
    D = r3gan.Discriminator(**config.discriminator_kwargs())
    if config.nhwc:
        for network in (G, D):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    return G.requires_grad_(False).to(device), D.requires_grad_(False).to(device)
