"""The configurations of Projected GAN's code, and of its variant in Maua's repository (softplus, with ADA on top)."""

from __future__ import annotations

from sg3.train.recipes.projected.options import ProjectedOptions
from sg3.train.recipes.recipe import Preset


def _preset(title: str, **said: object) -> Preset:
    return Preset(title, ProjectedOptions(**said))  # type: ignore[arg-type]


PRESETS = {
    "projected-fastgan": _preset("Projected GAN paper", cfg="fastgan", mirror=True),
    "projected-fastgan-lite": _preset("Projected GAN's code, for small data sets", cfg="fastgan_lite", mirror=True),
    "projected-stylegan2": _preset("Projected GAN's code", cfg="stylegan2-projected", mirror=True),
    "maua-fastgan": _preset("Maua's variant", cfg="fastgan", loss="softplus", mirror=True, snap=25),
    "maua-fastgan-lite": _preset("Maua's variant", cfg="fastgan_lite", loss="softplus", mirror=True, snap=25),
    "maua-stylegan2": _preset(
        "Maua's variant", cfg="stylegan2-projected", loss="softplus", map_depth=8, mirror=True, snap=25
    ),
    "maua-stylegan3-t": _preset("Maua's variant", cfg="stylegan3-t-projected", loss="softplus", mirror=True, snap=25),
    "maua-stylegan3-r": _preset("Maua's variant", cfg="stylegan3-r-projected", loss="softplus", mirror=True, snap=25),
}
