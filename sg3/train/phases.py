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
from sg3.train.config import TrainConfig
from sg3.train.loss import Loss, MicroBatch
from sg3.train.randomness import seed_torch


@dataclass
class Phase:
    """One optimiser step: the terms whose gradients it sums, every `interval` steps."""

    name: str
    module: nn.Module
    optimizer: torch.optim.Optimizer
    interval: int
    terms: Sequence[Callable[[MicroBatch], torch.Tensor]]


def build_networks(config: TrainConfig, device: torch.device) -> tuple[Generator, Discriminator]:
    """Freshly initialised G and D, a function of the seed."""
    seed_torch(config.seed, "init")
    family = stylegan2 if config.cfg == "stylegan2" else stylegan3
    G: Generator = family.Generator(**config.generator_kwargs())
    D = Discriminator(**config.discriminator_kwargs())
    return G.requires_grad_(False).to(device), D.requires_grad_(False).to(device)


def build_phases(config: TrainConfig, G: Generator, D: Discriminator, loss: Loss) -> list[Phase]:
    """Phases in the order they run. Main and regularisation phases of a network share its optimiser."""
    phases = []
    for letter, module, lr, interval, main, reg in (
        ("G", G, config.glr, config.g_reg_interval, [loss.g_adversarial], [loss.g_path_length]),
        ("D", D, config.dlr, config.d_reg_interval, [loss.d_fake, loss.d_real], [loss.d_r1]),
    ):
        ratio = interval / (interval + 1) if interval else 1.0
        optimizer = torch.optim.Adam(
            list(module.parameters()), lr=lr * ratio,
            betas=(0.0, config.adam_beta2**ratio), eps=config.adam_eps, fused=True,
        )  # fmt: skip
        if interval is None:
            phases.append(Phase(f"{letter}both", module, optimizer, 1, main))
        else:
            phases.append(Phase(f"{letter}main", module, optimizer, 1, main))
            if letter == "G" or config.gamma > 0:
                phases.append(Phase(f"{letter}reg", module, optimizer, interval, reg))
    return phases
