"""StyleGAN2 and StyleGAN3 at work: their networks, and the phases Gmain and Greg (path length) or Gboth, Dmain and Dreg
(R1).

Regularisation is lazy (Karras et al. 2020, Section 3.1): its phase runs every `interval` steps, with the gradient
scaled up by as much, and the optimiser that it shares with the main phase is slowed down, so that a whole cycle moves
as before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from sg3.models import Discriminator, StyleGenerator, stylegan2, stylegan3
from sg3.models.layers import set_half_type
from sg3.randomness import seed_torch
from sg3.train.compiled import compiled, warm_up
from sg3.train.ema import ema_beta
from sg3.train.loss_scale import LossScaler
from sg3.train.recipes.stylegan.config import StyleGANConfig
from sg3.train.recipes.stylegan.loss import Loss
from sg3.train.recipes.system import Phase, Reporter


class StyleGAN:
    """A `System` (see there). `watch` gets D's logits of real images, for ADA."""

    real_batches = 1
    snapshots_hold_optimizers = False

    def __init__(
        self, config: StyleGANConfig, device: torch.device, stats: Reporter, watch: Callable[[torch.Tensor], None]
    ) -> None:
        self.config = config
        self.G, self.D = build_networks(config, device)
        self.loss = Loss(
            self.G, self.D, stats, r1_gamma=config.gamma, style_mixing_prob=config.style_mixing_prob,
            pl_weight=config.pl_weight, pl_batch_shrink=config.pl_batch_shrink, pl_decay=config.pl_decay,
            clamp_images=config.clamp_images,
            blur_init_sigma=config.blur_init_sigma, blur_fade_kimg=config.blur_fade_kimg, device=device,
            synthesis=compiled(self.G.synthesis, config.compile), discriminator=compiled(self.D, config.compile),
            watch=watch,
        )  # fmt: skip
        if config.compile == "graphs":
            warm_up(self.G, self.D, config.batch_gpu, device)
        kinds = {"G": config.g_scaler, "D": config.d_scaler}
        self.scalers = {
            network: LossScaler(config.loss_scale, kind == "dynamic", device)
            for network, kind in kinds.items() if kind != "none"
        }  # fmt: skip
        self.phases = build_phases(config, self.loss, self.scalers)

    def progress(self, nimg: int, tick: int, step: int) -> None:
        """The original's files have no counters."""

    def begin_step(self, nimg: int) -> None:
        """Nothing follows a schedule here; the blur in front of D asks each micro-batch."""

    def augment_p(self, nimg: int) -> float | None:
        """No schedule: `--aug` decides."""
        return None

    def ema_beta(self, nimg: int) -> float:
        """A half-life of --ema-kimg, shorter in the beginning."""
        c = self.config
        return ema_beta(c.batch, nimg, c.ema_kimg, c.ema_rampup)

    def state_dict(self) -> dict[str, Any]:
        """The mean path length, and the factors of dynamic loss scalers."""
        dynamic = {name: scaler.state_dict() for name, scaler in self.scalers.items() if scaler.is_dynamic}
        return {"pl_mean": self.loss.pl_mean, **({"scalers": dynamic} if dynamic else {})}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with a mean path length. A scaler that was not dynamic in the state begins anew."""
        self.loss.pl_mean.copy_(state["pl_mean"])
        for name, scaler in self.scalers.items():
            if scaler.is_dynamic and name in state.get("scalers", {}):
                scaler.load_state_dict(state["scalers"][name])


def build_networks(config: StyleGANConfig, device: torch.device) -> tuple[StyleGenerator, Discriminator]:
    """Freshly initialised G and D, a function of the seed."""
    seed_torch(config.seed, "init")
    family = stylegan2 if config.cfg == "stylegan2" else stylegan3
    G: StyleGenerator = family.Generator(**config.generator_kwargs())
    D = stylegan2.Discriminator(**config.discriminator_kwargs())
    for network in (G, D):
        set_half_type(network, "bfloat16" if config.bf16 else "float16", on_cpu=config.amp_on_cpu)
    return G.requires_grad_(False).to(device), D.requires_grad_(False).to(device)


def build_phases(config: StyleGANConfig, loss: Loss, scalers: Mapping[str, LossScaler]) -> list[Phase]:
    """Phases in the order they run. Regularisation is never scaled: its own gradient of a gradient would overflow."""
    G, D = loss.G, loss.D
    phases = []
    # d_fake's pass moves G's means: of w, and of each layer's input magnitude (StyleGAN3).
    g_means = [tensor for name, tensor in G.named_buffers() if name.endswith(("w_avg", "magnitude_ema"))]
    for letter, module, lr, interval, main, reg in (
        ("G", G, config.glr, config.g_reg_interval, [loss.g_adversarial], [loss.g_path_length]),
        ("D", D, config.dlr, config.d_reg_interval, [loss.d_fake, loss.d_real], [loss.d_r1]),
    ):
        ratio = interval / (interval + 1) if interval else 1.0
        optimizer = torch.optim.Adam(
            list(module.parameters()), lr=lr * ratio,
            betas=(0.0, config.adam_beta2**ratio), eps=config.adam_eps, fused=True,
        )  # fmt: skip
        means = g_means if letter == "D" else []
        scaler = scalers.get(letter)
        if interval is None:
            phases.append(Phase(f"{letter}both", letter, module, optimizer, 1, main, means, scaler=scaler))
        else:
            phases.append(Phase(f"{letter}main", letter, module, optimizer, 1, main, means, scaler=scaler))
            if letter == "G" or config.gamma > 0:
                reg_means = [loss.pl_mean] if letter == "G" else []
                phases.append(Phase(f"{letter}reg", letter, module, optimizer, interval, reg, reg_means))
    return phases
