"""What is trained and in which order: the networks of a configuration and the phases of a training step.

Regularisation is lazy (Karras et al. 2020, Section 3.1): its phase runs every `interval` steps, with the gradient
scaled up by as much, and the optimiser that it shares with the main phase is slowed down, so that a whole cycle moves
as before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sg3.models import Discriminator, Generator, stylegan2, stylegan3
from sg3.models.layers import set_half_type
from sg3.train.config import TrainConfig
from sg3.train.loss import Loss, MicroBatch
from sg3.train.randomness import seed_torch


@dataclass
class Phase:
    """One optimiser step: the terms whose gradients it sums, every `interval` steps, and the running means it moves."""

    name: str
    module: nn.Module
    optimizer: torch.optim.Optimizer
    interval: int
    terms: Sequence[Callable[[MicroBatch], torch.Tensor]]
    means: Sequence[torch.Tensor] = ()

    @property
    def is_main(self) -> bool:
        """Whether this is the phase of its network that runs every step, rather than lazy regularisation."""
        return not self.name.endswith("reg")


def build_networks(config: TrainConfig, device: torch.device) -> tuple[Generator, Discriminator]:
    """Freshly initialised G and D, a function of the seed."""
    seed_torch(config.seed, "init")
    family = stylegan2 if config.cfg == "stylegan2" else stylegan3
    G: Generator = family.Generator(**config.generator_kwargs())
    D = Discriminator(**config.discriminator_kwargs())
    for network in (G, D):
        set_half_type(network, "bfloat16" if config.bf16 else "float16")
    return G.requires_grad_(False).to(device), D.requires_grad_(False).to(device)


def build_phases(config: TrainConfig, G: Generator, D: Discriminator, loss: Loss) -> list[Phase]:
    """Phases in the order they run. Main and regularisation phases of a network share its optimiser."""
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
        if interval is None:
            phases.append(Phase(f"{letter}both", module, optimizer, 1, main, means))
        else:
            phases.append(Phase(f"{letter}main", module, optimizer, 1, main, means))
            if letter == "G" or config.gamma > 0:
                reg_means = [loss.pl_mean] if letter == "G" else []
                phases.append(Phase(f"{letter}reg", module, optimizer, interval, reg, reg_means))
    return phases
