"""What a training system is to the rest of sg3: one object.

A new system is a package beside `stylegan` whose `recipe.py` has a `RECIPE`; no other file names it. It consists of
  options   a subclass of Options: its own, and those shared ones that have another default or other choices (`again`)
  config    a subclass of TrainConfig: what follows from them. An option that may change in a continued run is a field
            of the same name; a field that comes later has a default, so that older runs continue
  presets   options by a name that no other system uses
  a System  what the trainer runs: see system.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sg3.train.config import TrainConfig
from sg3.train.options import Options

if TYPE_CHECKING:
    import torch

    from sg3.models import Discriminator, Generator
    from sg3.train.recipes.system import Reporter, System


@dataclass(frozen=True)
class Preset:
    """One line about it, and what it sets."""

    title: str
    options: Options


@dataclass(frozen=True)
class Recipe:
    """A training system. What it is told (`options`), what follows (`config`) and ready-made options (`presets`) load
    no torch; the functions that build it do, when they are called.

    `switch` names an option of its own that turns --cfg=X into this system's --cfg=X-SWITCH, if it has such a cfg.
    `build_networks(config, device)` makes G and D anew. `build_system(config, device, stats, watch)` puts them to work;
    `watch` wants to see D's logits of real images, for ADA.
    """

    name: str
    options: type[Options]
    config: type[TrainConfig]
    presets: Mapping[str, Preset]
    build_networks: Callable[[Any, torch.device], tuple[Generator, Discriminator]]
    build_system: Callable[[Any, torch.device, Reporter, Callable[[torch.Tensor], None]], System]
    switch: str | None = None

    @property
    def cfgs(self) -> tuple[str, ...]:
        """The values of --cfg that mean this system."""
        return self.options.declared()["cfg"].choices
