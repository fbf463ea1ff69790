"""A run of Projected GAN: its configuration, the defaults of its code by `cfg`, and what must fit together."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

from sg3.train.config import DatasetFacts, TrainConfig, image_problems
from sg3.train.options import Options
from sg3.train.recipes.projected.options import FASTGANS, ProjectedOptions

ENLARGED = 224  # pixels that the original's D enlarges smaller images to
MULTIPLE = 32  # of pixels, for maps that double from one to the next
FASTGAN_SIZES = (32, 64, 128, 256, 512, 1024)
FASTGAN_WIDTH = 128  # channels at 128 x 128 that the factors of FastGAN's other widths are relative to
WIDEST = 16  # the factor at 4 x 4
CLASSES = 1000


@dataclass(frozen=True, kw_only=True)
class ProjectedConfig(TrainConfig):
    """A complete run of --cfg=fastgan, fastgan_lite, or a StyleGAN with --projected."""

    FREE: ClassVar[frozenset[str]] = TrainConfig.FREE | {"ema_rampup"}  # (which depends on --resume)

    loss: str
    diffaug: bool
    backbone: str
    enlarge: int = ENLARGED  # (runs that began before there were these two)
    clamp_images: bool = False
    cout: int
    ndf: int | None
    cbase: int
    cmax: int
    w_dim: int
    map_depth: int
    layers: int
    margin: int
    num_fp16_res: int
    magnitude_ema_beta: float

    gamma: float
    adam_beta2: float
    adam_eps: float
    g_reg_interval: int | None  # nothing happens in G's, but its optimizer is slowed down for it
    d_reg_interval: int
    ema_kimg: float
    ema_rampup: float | None
    blur_sigma: float
    blur_kimg: float

    @classmethod
    def resolve(cls, options: Options, dataset: DatasetFacts) -> Self:
        """Fill in what was not said."""
        o = options.with_defaults()
        softplus = o.loss == "softplus"
        aug = o.aug or ("ada" if softplus else "noaug")
        ema_rampup = (None if o.resume else 0.05) if o.ema_rampup is None else o.ema_rampup or None
        half = 0 if o.fp32 or o.cfg in FASTGANS else 5 if softplus else 4
        return cls.from_options(
            o,
            dataset,
            aug=aug,
            p=o.p if aug == "fixed" else 0.0,
            num_fp16_res=half,
            magnitude_ema_beta=0.5 ** (o.batch / 20e3),
            gamma=0.0 if o.gamma is None else o.gamma,
            adam_beta2=0.99,
            adam_eps=1e-8,
            g_reg_interval=4 if softplus else None,
            d_reg_interval=16,
            ema_kimg=o.batch * 10 / 32 if o.ema_kimg is None else o.ema_kimg,
            ema_rampup=ema_rampup,
            blur_kimg=o.batch * 200 / 32 if o.blur_kimg is None else o.blur_kimg,
        )

    def problems(self, said: Options) -> list[str]:
        """As in TrainConfig."""
        is_fastgan = self.cfg in FASTGANS
        problems = super().problems(dataclasses.replace(said, bf16=None) if is_fastgan else said)
        if is_fastgan and said.bf16:
            problems.append(f"--bf16: {self.cfg} has no layers with 16 bits")
        if is_fastgan and cast(ProjectedOptions, said).projected is False:
            problems.append(f"--projected=0: {self.cfg} always has a projected discriminator")
        if self.compile != "off":
            why = "the means and singular vectors here, which every pass moves, are not made for it"
            problems.append(f"--compile={self.compile}: is for StyleGAN2 and StyleGAN3 without --projected; {why}")
        if self.enlarge % MULTIPLE:
            problems.append(f"--enlarge={self.enlarge}: expected a multiple of {MULTIPLE}")
        classes = self.dataset.label_dim
        if self.cond and classes > CLASSES:
            problems.append(f"--cond: {self.dataset.path} has {classes} classes, the embeddings hold {CLASSES}")
        return problems

    def data_problems(self) -> list[str]:
        """As in TrainConfig."""
        data, size = self.dataset, self.dataset.resolution
        if self.cfg not in FASTGANS or not data.is_square:
            return image_problems(data, least=16)
        if size in FASTGAN_SIZES:
            return []
        sizes = f"--data: {data.path} has {size} x {size} images, FastGAN makes 32, 64, ... 1024 pixels"
        return [f"{sizes}; `sg3 dataset --resolution=WxH` resizes"]

    @property
    def is_half(self) -> bool:
        """Whether some layers run in 16 bits on a GPU."""
        return self.num_fp16_res > 0

    @property
    def follows_input_transform(self) -> bool:
        """StyleGAN3's do."""
        return self.cfg.startswith("stylegan3")

    def value_of(self, option: str) -> Any:
        """As in TrainConfig."""
        return True if option == "projected" else super().value_of(option)

    def generator_kwargs(self) -> dict[str, Any]:
        """Constructor arguments of the generator of `cfg`."""
        data = self.dataset
        common: dict[str, Any] = {
            "z_dim": self.z_dim, "c_dim": data.label_dim, "img_resolution": data.resolution,
            "img_channels": data.channels,
        }  # fmt: skip
        if self.cfg in FASTGANS:
            ngf = max(min(self.cbase // FASTGAN_WIDTH, self.cmax // WIDEST), 1)
            lite = self.cfg == "fastgan_lite"
            return {**common, "ngf": ngf, "cond": self.cond, "synthesis_kwargs": {"lite": lite}}
        common |= {
            "w_dim": self.w_dim, "mapping_kwargs": {"num_layers": self.map_depth}, "num_fp16_res": self.num_fp16_res,
            "conv_clamp": 256.0 if self.num_fp16_res else None,
        }  # fmt: skip
        if self.cfg == "stylegan2-projected":
            return {**common, "channel_base": self.cbase, "channel_max": self.cmax, "fp16_channels_last": self.nhwc}
        shape = {"num_layers": self.layers, "margin_size": self.margin, "magnitude_ema_beta": self.magnitude_ema_beta}
        if self.cfg == "stylegan3-t-projected":
            return {**common, **shape, "channel_base": self.cbase, "channel_max": self.cmax}
        return {
            **common, **shape, "channel_base": self.cbase * 2, "channel_max": self.cmax * 2,
            "conv_kernel": 1, "use_radial_filters": True,
        }  # fmt: skip

    def discriminator_kwargs(self) -> dict[str, Any]:
        """Constructor arguments of the discriminator."""
        data = self.dataset
        heads = {"num_discs": 4, "ndf": self.ndf, "cond": self.cond, "separable": self.cfg not in FASTGANS}
        projection = {"cout": self.cout, "expand": True, "proj_type": 2}
        return {
            "diffaug": self.diffaug, "interp224": data.resolution < self.enlarge, "enlarged": self.enlarge,
            "backbone": self.backbone, "backbone_kwargs": projection | heads, "c_dim": data.label_dim,
            "img_resolution": data.resolution, "img_channels": data.channels,
        }  # fmt: skip
