"""What can be said of Projected GAN, beside the options that every system has."""

from __future__ import annotations

from dataclasses import dataclass

from sg3 import limits
from sg3.train.options import AUGMENTATION, IMPORTANT, NETWORKS, OPTIMISATION, OTHER_RECIPE, Options, again, option
from sg3.train.recipes.stylegan.options import StyleGANOptions

FASTGANS = ("fastgan", "fastgan_lite")
STYLEGANS = ("stylegan2-projected", "stylegan3-t-projected", "stylegan3-r-projected")


@dataclass(frozen=True, kw_only=True)
class ProjectedOptions(Options):
    """Options of --cfg=fastgan and fastgan_lite, and of --projected with a StyleGAN."""

    cfg: str | None = again(Options, "cfg", default="fastgan", choices=(*FASTGANS, *STYLEGANS))
    batch: int | None = again(Options, "batch", default=64)
    projected: bool | None = option(
        "A projected discriminator for a StyleGAN generator; FastGAN always has it.", IMPORTANT, default=False
    )
    gamma: float | None = again(StyleGANOptions, "gamma", rule="0, none")
    loss: str | None = option(
        "Projected GAN's hinge, or softplus with ADA as in Maua's variant.", IMPORTANT, default="hinge",
        choices=("hinge", "softplus"),
    )  # fmt: skip

    aug: str | None = again(Options, "aug", default=None, rule="noaug, or ada with --loss=softplus")
    diffaug: bool | None = option(
        "D's own differentiable augmentation, always at full strength.", AUGMENTATION, default=True,
    )  # fmt: skip

    backbone: str | None = option(
        "EfficientNet that D looks through.", NETWORKS, default="lite0", choices=("lite0", "lite1")
    )
    cout: int | None = option(
        "Channels of D's finest random projection.", NETWORKS, default=64, at_least=1, at_most=limits.FEATURES
    )
    enlarge: int | None = option(
        "Pixels that D enlarges smaller images to; 128, the least, costs a third of 224.", NETWORKS, default=224,
        at_least=128, at_most=1024,
    )  # fmt: skip
    ndf: int | None = option(
        "Channels of all blocks of D's heads.", NETWORKS, rule="64 to 512", at_least=1, at_most=limits.FEATURES
    )
    cbase: int | None = again(StyleGANOptions, "cbase", default=32768, by_cfg=dict.fromkeys(FASTGANS, 16384))
    cmax: int | None = again(StyleGANOptions, "cmax", default=512, by_cfg=dict.fromkeys(FASTGANS, 2048))
    z_dim: int | None = option(
        "Dimensions of z.", NETWORKS, default=64, by_cfg=dict.fromkeys(FASTGANS, 256), at_least=1,
        at_most=limits.FEATURES,
    )
    w_dim: int | None = option(
        "Dimensions of a StyleGAN's w.", NETWORKS, default=128, at_least=1, at_most=limits.FEATURES
    )
    map_depth: int | None = again(StyleGANOptions, "map_depth", default=2, by_cfg={})
    layers: int | None = again(StyleGANOptions, "layers")
    margin: int | None = again(StyleGANOptions, "margin")

    glr: float | None = again(
        Options, "glr", default=0.0025, by_cfg={**dict.fromkeys(FASTGANS, 0.0002), "stylegan2-projected": 0.002}
    )
    dlr: float | None = again(
        Options, "dlr", default=0.0025, by_cfg={**dict.fromkeys(FASTGANS, 0.0002), "stylegan2-projected": 0.002}
    )
    ema_kimg: float | None = again(StyleGANOptions, "ema_kimg")
    ema_rampup: float | None = again(StyleGANOptions, "ema_rampup")
    clamp_images: bool | None = again(StyleGANOptions, "clamp_images")
    blur_sigma: float | None = option(
        "Width in pixels of a blur in front of D that fades; 0 for none.", OPTIMISATION, default=0.0,
        by_cfg={"stylegan3-r-projected": 10.0}, at_least=0, at_most=limits.BLUR, changes=OTHER_RECIPE,
    )  # fmt: skip
    blur_kimg: float | None = option(
        "Until when the blur fades.", OPTIMISATION, rule="batch * 200 / 32", at_least=0, metavar="KIMG",
        changes=OTHER_RECIPE,
    )  # fmt: skip
