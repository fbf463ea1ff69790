"""Loss terms of StyleGAN2 and StyleGAN3 training: each maps a micro-batch to one loss per sample.

    g_adversarial   softplus(-D(G(z)))                        non-saturating logistic loss (Goodfellow et al. 2014)
    g_path_length   (|J_w^T y| - a)^2, y ~ N(0, I)            path length regularisation (Karras et al. 2020, Eq. 4)
    d_fake, d_real  softplus(D(G(z))), softplus(-D(x))
    d_r1            gamma / 2 |grad_x D(x)|^2                 R1 regularisation (Mescheder et al. 2018, Eq. 9)
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np
import torch
import torch.nn.functional as F

from sg3.kernels.bias_act.activations import clamped
from sg3.models import Discriminator, StyleGenerator
from sg3.train.losses.blur import blurred, fading_sigma
from sg3.train.recipes.system import MicroBatch, Reporter


class Loss:
    """The terms, with the networks they act on and what they carry along, the mean path length.

    `synthesis` and `discriminator` are what the adversarial terms call instead of G.synthesis and D: compiled forms of
    them. `watch` gets D's logits of real images, for ADA. What D sees is blurred, at first with `blur_init_sigma`
    pixels, then less and less until `blur_fade_kimg` thousand images have been shown.
    """

    def __init__(
        self,
        G: StyleGenerator,
        D: Discriminator,
        stats: Reporter,
        *,
        r1_gamma: float = 10.0,
        style_mixing_prob: float = 0.0,
        pl_weight: float = 0.0,
        pl_batch_shrink: int = 2,
        pl_decay: float = 0.01,
        clamp_images: bool = False,
        blur_init_sigma: float = 0.0,
        blur_fade_kimg: float = 0.0,
        device: torch.device | str = "cpu",
        synthesis: Callable[..., torch.Tensor] | None = None,
        discriminator: Callable[..., torch.Tensor] | None = None,
        watch: Callable[[torch.Tensor], None] = lambda _: None,
    ) -> None:
        self.G = G
        self.D = D
        self.fast_synthesis = G.synthesis if synthesis is None else synthesis
        self.fast_D = D if discriminator is None else discriminator
        self.stats = stats
        self.r1_gamma = r1_gamma
        self.style_mixing_prob = style_mixing_prob
        self.pl_weight = pl_weight
        self.pl_batch_shrink = pl_batch_shrink
        self.pl_decay = pl_decay
        self.pl_mean = torch.zeros([], device=device)
        self.clamp_images = clamp_images
        self.blur_init_sigma = blur_init_sigma
        self.blur_fade_kimg = blur_fade_kimg
        self.watch = watch

    def mixed_ws(
        self, z: torch.Tensor, c: torch.Tensor, rng: np.random.Generator, update_emas: bool = False
    ) -> torch.Tensor:
        """What to make images from, [N, num_ws, w_dim]. Style mixing: later layers take the w of another latent."""
        ws = self.G.mapping(z, c, update_emas=update_emas)
        if self.style_mixing_prob > 0:
            mixed = rng.random() < self.style_mixing_prob
            cutoff = int(rng.integers(1, ws.shape[1])) if mixed else ws.shape[1]
            other = self.G.mapping(torch.randn_like(z), c)
            ws = torch.cat([ws[:, :cutoff], other[:, cutoff:]], dim=1)
        return ws

    def as_shown(self, img: torch.Tensor) -> torch.Tensor:
        """G's images, with `clamp_images` in the range of pixels: beyond it D sees no difference, and none is made."""
        return clamped(img, -1, 1) if self.clamp_images else img

    def seen_by_d(self, img: torch.Tensor, mb: MicroBatch, term: str) -> torch.Tensor:
        """Images, blurred and augmented."""
        sigma = fading_sigma(mb.nimg, self.blur_init_sigma, self.blur_fade_kimg)
        return mb.augment(blurred(img, sigma), term)

    def g_adversarial(self, mb: MicroBatch) -> torch.Tensor:
        """How real G's images do not look to D."""
        img = self.as_shown(self.fast_synthesis(self.mixed_ws(mb.z, mb.c, mb.rng)))
        logits = self.fast_D(self.seen_by_d(img, mb, "fake"), mb.c)
        self.stats.report("Loss/scores/fake", logits)
        self.stats.report("Loss/signs/fake", logits.sign())
        loss = F.softplus(-logits)
        self.stats.report("Loss/G/loss", loss)
        return loss

    def g_path_length(self, mb: MicroBatch) -> torch.Tensor:
        """A step of fixed size in w should change the image by a fixed amount, in every direction."""
        n = max(mb.z.shape[0] // self.pl_batch_shrink, 1)
        ws = self.mixed_ws(mb.z[:n], mb.c[:n], mb.rng)
        img = self.G.synthesis(ws)
        noise = torch.randn_like(img) / sqrt(img.shape[2] * img.shape[3])
        (grad,) = torch.autograd.grad([(img * noise).sum()], [ws], create_graph=True)
        lengths = grad.square().sum(dim=2).mean(dim=1).sqrt()
        mean = self.pl_mean.lerp(lengths.mean(), self.pl_decay)
        self.pl_mean.copy_(torch.where(mean.isfinite(), mean, self.pl_mean).detach())  # one bad batch must not stay
        penalty = (lengths - mean).square()
        self.stats.report("Loss/pl_penalty", penalty)
        loss = penalty * self.pl_weight
        self.stats.report("Loss/G/reg", loss)
        return loss

    def d_fake(self, mb: MicroBatch) -> torch.Tensor:
        """D should see through G's images. This pass also moves G's running means (w_avg, magnitudes)."""
        with torch.no_grad():
            img = self.fast_synthesis(self.mixed_ws(mb.z, mb.c, mb.rng, update_emas=True), update_emas=True)
        logits = self.fast_D(self.seen_by_d(self.as_shown(img), mb, "fake"), mb.c)
        self.stats.report("Loss/scores/fake", logits)
        self.stats.report("Loss/signs/fake", logits.sign())
        loss = F.softplus(logits)
        self.stats.report("Loss/D/loss", loss)
        return loss

    def d_real(self, mb: MicroBatch) -> torch.Tensor:
        """D should accept real images."""
        logits = self.fast_D(self.seen_by_d(mb.real, mb, "real"), mb.real_c)
        self._report_real(logits)
        loss = F.softplus(-logits)
        self.stats.report("Loss/D/loss", loss)
        return loss

    def d_r1(self, mb: MicroBatch) -> torch.Tensor:
        """D should be flat around real images: gradient with respect to the image before blur and augmentation."""
        real = mb.real.detach().requires_grad_(True)
        logits = self.D(self.seen_by_d(real, mb, "real"), mb.real_c)
        self._report_real(logits)
        (grad,) = torch.autograd.grad([logits.sum()], [real], create_graph=True)
        penalty = grad.square().sum(dim=[1, 2, 3])
        self.stats.report("Loss/r1_penalty", penalty)
        loss = penalty * (self.r1_gamma / 2)
        self.stats.report("Loss/D/reg", loss)
        return loss

    def _report_real(self, logits: torch.Tensor) -> None:
        self.stats.report("Loss/scores/real", logits)
        self.stats.report("Loss/signs/real", logits.detach().sign())
        self.watch(logits)
