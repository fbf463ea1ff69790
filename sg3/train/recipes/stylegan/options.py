"""What can be said of StyleGAN2 and StyleGAN3, beside the options that every system has."""

from __future__ import annotations

from dataclasses import dataclass

from sg3 import limits
from sg3.train.options import (
    IMPORTANT,
    LOSS_SCALES,
    MACHINE,
    NETWORKS,
    OPTIMISATION,
    OTHER_RECIPE,
    OTHER_ROUNDING,
    Options,
    again,
    option,
)

AMP = ("off", "partial", "global")
SCALERS = ("none", "static", "dynamic")


@dataclass(frozen=True, kw_only=True)
class StyleGANOptions(Options):
    """Options of --cfg=stylegan3-t, stylegan3-r and stylegan2."""

    cfg: str | None = again(Options, "cfg", default="stylegan3-t", choices=("stylegan3-t", "stylegan3-r", "stylegan2"))

    gamma: float | None = option(
        "R1 regularisation weight.", IMPORTANT, rule="0.0002 * width * height / batch", at_least=0, changes=OTHER_RECIPE
    )

    cbase: int | None = option("Channels: cbase / resolution, ...", NETWORKS, default=32768, at_least=1, at_most=2**26)
    cmax: int | None = option(
        "... but at most this many.", NETWORKS, default=512, at_least=1, at_most=limits.FEATURES // 2
    )
    latent: int | None = option("Dimensions of z and w.", NETWORKS, default=512, at_least=1, at_most=limits.FEATURES)
    layers: int | None = option(
        "StyleGAN3: layers without ToRGB.", NETWORKS, default=14, at_least=3, at_most=limits.LAYERS
    )
    margin: int | None = option(
        "StyleGAN3: pixels beyond the border.", NETWORKS, default=10, at_least=0, at_most=limits.MARGIN
    )
    map_depth: int | None = option(
        "Layers of G's mapping network.", NETWORKS, default=2, by_cfg={"stylegan2": 8}, at_least=1,
        at_most=limits.LAYERS,
    )  # fmt: skip
    d_map_depth: int | None = option(
        "Layers of D's mapping network, with --cond.", NETWORKS, default=8, at_least=1, at_most=limits.LAYERS
    )
    layer_noise: bool | None = option("StyleGAN2: noise of its own for each pixel of a layer.", NETWORKS, default=True)
    d_arch: str | None = option(
        "Connections of D's blocks.", NETWORKS, default="resnet", choices=("resnet", "skip", "orig")
    )
    mbstd_group: int | None = option("Group size of D's minibatch statistics.", NETWORKS, default=4, at_least=1)
    freezed: int | None = option("Freeze the first layers of D.", NETWORKS, default=0, at_least=0, metavar="N")

    glr: float | None = again(Options, "glr", default=0.0025, by_cfg={"stylegan2": 0.002})
    dlr: float | None = again(Options, "dlr", default=0.002)
    ema_kimg: float | None = option(
        "Half-life of the weight average.", OPTIMISATION, rule="batch * 10 / 32", at_least=0, metavar="KIMG",
        changes=OTHER_RECIPE,
    )  # fmt: skip
    ema_rampup: float | None = option(
        "Shorter half-life early on: this share of the images so far; 0 for none.", OPTIMISATION,
        rule="0.05; with --resume 0", at_least=0,
    )  # fmt: skip
    clamp_images: bool | None = option(
        "D sees G's images as files hold them, clamped to 0..255, which keeps plain white and black clean.",
        OPTIMISATION, default=False,
    )  # fmt: skip
    pl_weight: float | None = option(
        "Path length regularisation of G.", OPTIMISATION, default=0.0, by_cfg={"stylegan2": 2.0}, at_least=0
    )
    style_mix: float | None = option(
        "Style mixing probability.", OPTIMISATION, default=0.0, by_cfg={"stylegan2": 0.9}, at_least=0, at_most=1
    )

    amp: str | None = option(
        "Layers in 16 bits on a GPU: none (as --fp32), the four highest resolutions, or all but those of 4 x 4.",
        MACHINE, default="partial", choices=AMP,
    )  # fmt: skip
    d_amp: str | None = option("The same for D alone.", MACHINE, rule="as --amp", choices=AMP)
    amp_on_cpu: bool | None = option(
        "16 bits on a CPU, too: slower, to see what they do without a GPU.", MACHINE, default=False,
        changes=OTHER_ROUNDING,
    )  # fmt: skip
    g_scaler: str | None = option(
        "Scale G's loss, so that gradients do not vanish in 16 bits; never its path length.", MACHINE, default="none",
        choices=SCALERS, changes=OTHER_ROUNDING,
    )  # fmt: skip
    d_scaler: str | None = option(
        "Scale D's loss, never its R1.", MACHINE, default="none", choices=SCALERS, changes=OTHER_ROUNDING
    )
    loss_scale: int | None = option(
        "What scalers scale by, dynamic ones to begin with: a power of two.", MACHINE, default=512, at_least=1,
        at_most=LOSS_SCALES[-1], changes=OTHER_ROUNDING,
    )  # fmt: skip

    def images_together(self) -> int:
        """D has a statistic of so many images."""
        group: int = self.with_defaults().mbstd_group
        return group
