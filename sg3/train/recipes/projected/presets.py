"""The configurations of Projected GAN's code, of its variant in Maua's repository (softplus, with ADA on top), and a
small one."""

from __future__ import annotations

from sg3.train.recipes.projected.options import ProjectedOptions
from sg3.train.recipes.recipe import Preset


def _preset(title: str, **said: object) -> Preset:
    return Preset(title, ProjectedOptions(**said))  # type: ignore[arg-type]


_DEMO = ProjectedOptions(
    cfg="fastgan_lite", data="openmoji:faces:white:64", mirror=True, batch=8, glr=0.002, dlr=0.0005, ema_kimg=0.2,
    enlarge=128, cout=16, ndf=32, cbase=1024, cmax=128, z_dim=64, nhwc=True, kimg=6, tick=1, snap=3, grid=(8, 8),
    workers=0, metrics="fd_lite1_500_full",
)  # fmt: skip

PRESETS = {
    "demo-fastgan": Preset("FastGAN-lite, projected, on faces of emoji, 64 x 64, minutes on a CPU", _DEMO),
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
