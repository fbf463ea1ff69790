"""Projected GAN at work (Sauer et al. 2021, arXiv 2111.01007): a hinge loss on all logits of a projected
discriminator, no regularisation, batch norms and spectral norms that move in every pass.

    G   mean of -D(g)                                         --loss=softplus: the logistic loss of StyleGAN
    D   mean of relu(1 + D(g)), then mean of relu(1 - D(x))

What D sees goes through a fading blur, ADA if it is on, and then D's own differentiable augmentation, whose draws
follow from the number of each sample.

Batch statistics are those of a micro-batch, as in the original. Running statistics and singular vectors begin each
micro-batch where the step began and move once a phase, by the mean over micro-batches and ranks; in the original they
move with every micro-batch, each process keeps its own, and the first one's are saved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from sg3.kernels.bias_act.activations import clamped
from sg3.models import StyleGenerator, fastgan, stylegan2, stylegan3
from sg3.models.diffaug import DiffAugDraws
from sg3.models.layers import set_half_type
from sg3.models.projected import ProjectedDiscriminator
from sg3.randomness import seed_torch
from sg3.train.ema import ema_beta
from sg3.train.losses import gradient_penalty
from sg3.train.losses.adversarial import HINGE, LOGISTIC
from sg3.train.losses.blur import blurred, fading_sigma
from sg3.train.recipes.projected.config import ProjectedConfig
from sg3.train.recipes.projected.options import FASTGANS
from sg3.train.recipes.system import MicroBatch, Phase, Reporter

ProjectedGenerator = StyleGenerator | fastgan.Generator
MOVING = (  # ends of the names of buffers that passes move
    "running_mean", "running_var", "stored_mean", "stored_var", "weight_u", "weight_v", "w_avg", "magnitude_ema",
)  # fmt: skip


class Projected:
    """A `System` (see there). `watch` gets D's logits of real images, for ADA."""

    real_batches = 1
    snapshots_hold_optimizers = False

    def __init__(
        self, config: ProjectedConfig, device: torch.device, stats: Reporter, watch: Callable[[torch.Tensor], None]
    ) -> None:
        self.config = config
        self.stats = stats
        self.watch = watch
        self.adversarial = HINGE if config.loss == "hinge" else LOGISTIC
        self.G, self.D = build_networks(config, device)
        self.phases = self._build_phases()

    def _build_phases(self) -> list[Phase]:
        """Gmain, Dmain and, with R1, Dreg. D's optimizer knows its heads only: the rest is frozen."""
        c = self.config
        # G runs in D's phases, too, and D in G's.
        means = [
            tensor for network in (self.G, self.D.discriminator) for name, tensor in network.named_buffers()
            if name.endswith(MOVING)
        ]  # fmt: skip
        g_adam = self._adam(self.G, c.glr, c.g_reg_interval)
        d_adam = self._adam(self.D.discriminator, c.dlr, c.d_reg_interval)
        heads = self.D.discriminator
        phases = [
            Phase("Gmain", "G", self.G, g_adam, 1, [self.g_adversarial], means),
            Phase("Dmain", "D", heads, d_adam, 1, [self.d_fake, self.d_real], means),
        ]
        if c.gamma > 0:
            phases.append(Phase("Dreg", "D", heads, d_adam, c.d_reg_interval, [self.d_r1], means))
        return phases

    def _adam(self, module: nn.Module, lr: float, interval: int | None) -> torch.optim.Optimizer:
        """Slowed down as for lazy regularisation, which the original leaves on, though it is empty."""
        c = self.config
        ratio = interval / (interval + 1) if interval else 1.0
        return torch.optim.Adam(
            list(module.parameters()), lr=lr * ratio, betas=(0.0, c.adam_beta2**ratio), eps=c.adam_eps, fused=True
        )

    # ---- what the trainer asks

    def progress(self, nimg: int, tick: int, step: int) -> dict[str, float]:
        """What its code goes on from, with a FID so far that any other beats."""
        return {"cur_nimg": nimg, "cur_tick": tick, "batch_idx": step, "best_fid": 1e6}

    def begin_step(self, nimg: int) -> None:
        """Batch norms count steps rather than passes, whose number depends on the number of ranks."""
        for network in (self.G, self.D.discriminator):
            for name, tensor in network.named_buffers():
                if name.endswith("num_batches_tracked"):
                    tensor.fill_(nimg // self.config.batch)

    def augment_p(self, nimg: int) -> float | None:
        """No schedule: `--aug` decides."""
        return None

    def ema_beta(self, nimg: int) -> float:
        """A half-life of --ema-kimg, shorter in the beginning."""
        c = self.config
        return ema_beta(c.batch, nimg, c.ema_kimg, c.ema_rampup)

    def state_dict(self) -> dict[str, Any]:
        """Nothing beside networks and optimisers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to load."""

    # ---- losses

    def generated(self, mb: MicroBatch, update_emas: bool = False) -> torch.Tensor:
        """G's images, with --clamp-images in the range of pixels. `update_emas` moves a StyleGAN's mean of w.

        Magnitudes of StyleGAN3's layers move in Maua's variant only: StyleGAN-XL found them to let training collapse.
        """
        if isinstance(self.G, fastgan.Generator):
            images = self.G(mb.z, mb.c)
        else:
            ws = self.G.mapping(mb.z, mb.c, update_emas=update_emas)
            images = self.G.synthesis(ws, update_emas=update_emas and self.config.loss == "softplus")
        return clamped(images, -1, 1) if self.config.clamp_images else images

    def logits(self, images: torch.Tensor, c: torch.Tensor, mb: MicroBatch, term: str) -> torch.Tensor:
        """What D makes of images, [N, K], blurred and augmented."""
        sigma = fading_sigma(mb.nimg, self.config.blur_sigma, self.config.blur_kimg)
        images = mb.augment(blurred(images, sigma), term)
        draws = self.draws(images, mb, term) if self.D.diffaug else None
        return self.D(images, c, draws)

    def draws(self, images: torch.Tensor, mb: MicroBatch, term: str) -> DiffAugDraws:
        """Of D's own augmentation."""
        return DiffAugDraws.random(mb.rngs(f"diffaug/{term}"), *images.shape[2:])

    def g_adversarial(self, mb: MicroBatch) -> torch.Tensor:
        """D should take G's images for real."""
        logits = self.logits(self.generated(mb), mb.c, mb, "fake")
        loss = self.adversarial.g(logits)
        self._report("fake", logits)
        self.stats.report("Loss/G/loss", loss)
        return loss

    def d_fake(self, mb: MicroBatch) -> torch.Tensor:
        """D should see through G's images."""
        with torch.no_grad():
            images = self.generated(mb, update_emas=True)
        logits = self.logits(images, mb.c, mb, "fake")
        loss = self.adversarial.d_fake(logits)
        self._report("fake", logits)
        self.stats.report("Loss/D/loss", loss)
        return loss

    def d_real(self, mb: MicroBatch) -> torch.Tensor:
        """D should accept real images."""
        logits = self.logits(mb.real, mb.real_c, mb, "real")
        loss = self.adversarial.d_real(logits)
        self._report("real", logits)
        self.watch(logits)
        self.stats.report("Loss/D/loss", loss)
        return loss

    def d_r1(self, mb: MicroBatch) -> torch.Tensor:
        """D should be flat around real images."""
        images = mb.real.detach().requires_grad_(True)
        logits = self.logits(images, mb.real_c, mb, "real")
        penalty = gradient_penalty.exact(images, logits)
        self._report("real", logits)
        self.watch(logits)
        self.stats.report("Loss/r1_penalty", penalty)
        loss = penalty * (self.config.gamma / 2)
        self.stats.report("Loss/D/reg", loss)
        return loss

    def _report(self, kind: str, logits: torch.Tensor) -> None:
        self.stats.report(f"Loss/scores/{kind}", logits)
        self.stats.report(f"Loss/signs/{kind}", logits.sign())


def build_networks(
    config: ProjectedConfig, device: torch.device
) -> tuple[ProjectedGenerator, ProjectedDiscriminator]:
    """Freshly initialised G and D, a function of the seed. Raises MissingInputError without the backbone's weights."""
    seed_torch(config.seed, "init")
    G: ProjectedGenerator
    if config.cfg in FASTGANS:
        G = fastgan.Generator(**config.generator_kwargs())
    else:
        family = stylegan2 if config.cfg.startswith("stylegan2") else stylegan3
        G = family.Generator(**config.generator_kwargs())
        set_half_type(G, "bfloat16" if config.bf16 else "float16")
    D = ProjectedDiscriminator(**config.discriminator_kwargs())
    if config.nhwc:
        for network in (G, D) if config.cfg in FASTGANS else (D,):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    return G.requires_grad_(False).to(device), D.requires_grad_(False).to(device)
