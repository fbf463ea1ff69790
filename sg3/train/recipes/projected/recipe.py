"""Projected GAN (Sauer et al. 2021, "Projected GANs Converge Faster", arXiv 2111.01007)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sg3.train.recipes.projected.config import ProjectedConfig
from sg3.train.recipes.projected.options import ProjectedOptions
from sg3.train.recipes.projected.presets import PRESETS
from sg3.train.recipes.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from sg3.models import Discriminator, Generator
    from sg3.train.recipes.system import Reporter, System


def build_networks(config: ProjectedConfig, device: torch.device) -> tuple[Generator, Discriminator]:
    """Freshly initialised G and D."""
    from sg3.train.recipes.projected import system

    return system.build_networks(config, device)


def build_system(
    config: ProjectedConfig, device: torch.device, stats: Reporter, watch: Callable[[torch.Tensor], None]
) -> System:
    """Both with their losses and phases."""
    from sg3.train.recipes.projected import system

    return system.Projected(config, device, stats, watch)


RECIPE = Recipe(
    name="projected",
    options=ProjectedOptions,
    config=ProjectedConfig,
    presets=PRESETS,
    build_networks=build_networks,
    build_system=build_system,
    switch="projected",
)
