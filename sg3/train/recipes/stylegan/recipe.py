"""StyleGAN3-T, StyleGAN3-R (Karras et al. 2021) and StyleGAN2 with adaptive augmentation (Karras et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sg3.train.recipes.recipe import Recipe
from sg3.train.recipes.stylegan.config import StyleGANConfig
from sg3.train.recipes.stylegan.options import StyleGANOptions
from sg3.train.recipes.stylegan.presets import PRESETS

if TYPE_CHECKING:
    import torch

    from sg3.models import Discriminator, StyleGenerator
    from sg3.train.recipes.system import Reporter, System


def build_networks(config: StyleGANConfig, device: torch.device) -> tuple[StyleGenerator, Discriminator]:
    """Freshly initialised G and D."""
    from sg3.train.recipes.stylegan import system

    return system.build_networks(config, device)


def build_system(
    config: StyleGANConfig, device: torch.device, stats: Reporter, watch: Callable[[torch.Tensor], None]
) -> System:
    """Both with their losses and phases."""
    from sg3.train.recipes.stylegan import system

    return system.StyleGAN(config, device, stats, watch)


RECIPE = Recipe(
    name="stylegan",
    options=StyleGANOptions,
    config=StyleGANConfig,
    presets=PRESETS,
    build_networks=build_networks,
    build_system=build_system,
)
