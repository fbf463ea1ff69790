"""What can be said of R3GAN, beside the options that every system has."""

from __future__ import annotations

from dataclasses import dataclass

from sg3 import limits
from sg3.train.options import AUGMENTATION, NETWORKS, OPTIMISATION, OTHER_RECIPE, Options, again, option
from sg3.train.recipes.stylegan.options import StyleGANOptions


@dataclass(frozen=True, kw_only=True)
class R3GANOptions(Options):
    """Options of --cfg=r3gan."""

    cfg: str | None = again(Options, "cfg", default="r3gan", choices=("r3gan",))
    batch: int | None = again(Options, "batch", default=256)
    gamma: float | None = again(StyleGANOptions, "gamma", rule="0.0002 * resolution^2 to a tenth of it")

    aug: str | None = again(Options, "aug", default="schedule", choices=("noaug", "fixed", "schedule"))
    augpipe: str | None = again(
        Options, "augpipe", default="r3gan", choices=(*Options.declared()["augpipe"].choices, "r3gan")
    )
    final_p: float | None = option(
        "--aug=schedule: probability at the schedule's end.", AUGMENTATION, default=0.3, at_least=0, at_most=1,
        changes=OTHER_RECIPE,
    )  # fmt: skip

    cbase: int | None = again(StyleGANOptions, "cbase", default=24576)
    cmax: int | None = again(StyleGANOptions, "cmax", default=768)
    latent: int | None = again(StyleGANOptions, "latent", default=64)
    blocks: int | None = option(
        "Residual blocks at each resolution.", NETWORKS, default=2, at_least=1, at_most=limits.LAYERS
    )
    group: int | None = option(
        "Channels that a 3 x 3 convolution mixes.", NETWORKS, default=16, at_least=1, at_most=limits.FEATURES
    )

    glr: float | None = again(Options, "glr", default=0.0002)
    dlr: float | None = again(Options, "dlr", default=0.0002)
    ema_kimg: float | None = again(StyleGANOptions, "ema_kimg", rule="0 to 500")
    clamp_images: bool | None = again(StyleGANOptions, "clamp_images")
    schedule_kimg: float | None = option(
        "Learning rates, gamma, beta2, augmentation and weight average change until here.", OPTIMISATION,
        default=20000.0, at_least=0.001, metavar="KIMG", changes=OTHER_RECIPE,
    )  # fmt: skip
    penalty: str | None = option(
        "R1 and R2 by differentiating twice, or by finite differences.", OPTIMISATION, default="exact",
        choices=("exact", "approximate"), changes=OTHER_RECIPE,
    )  # fmt: skip

    def images_together(self) -> int:
        """Nothing is computed of several images."""
        return 1
