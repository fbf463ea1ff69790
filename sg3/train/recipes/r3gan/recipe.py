"""R3GAN (Huang et al. 2024, "The GAN is dead; long live the GAN!", arXiv 2501.05441)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sg3.train.recipes.r3gan.config import R3GANConfig
from sg3.train.recipes.r3gan.options import R3GANOptions
from sg3.train.recipes.r3gan.presets import PRESETS
from sg3.train.recipes.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from sg3.models import Discriminator, Generator
    from sg3.train.recipes.system import Reporter, System


def build_networks(config: R3GANConfig, device: torch.device) -> tuple[Generator, Discriminator]:
    """Freshly initialised G and D."""
    from sg3.train.recipes.r3gan import system

    return system.build_networks(config, device)


def build_system(
    config: R3GANConfig, device: torch.device, stats: Reporter, watch: Callable[[torch.Tensor], None]
) -> System:
    """Both with their losses, phases and schedules."""
    from sg3.train.recipes.r3gan import system

    return system.R3GAN(config, device, stats, watch)


RECIPE = Recipe(
    name="r3gan",
    options=R3GANOptions,
    config=R3GANConfig,
    presets=PRESETS,
    build_networks=build_networks,
    build_system=build_system,
)
