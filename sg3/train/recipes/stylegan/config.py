"""A run of StyleGAN2 or StyleGAN3: its configuration, the original's defaults by `cfg`, and what must fit together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log2
from typing import Any, ClassVar, Self, cast

from sg3.canvas import Size, nominal, sampling_rate
from sg3.train.config import DatasetFacts, TrainConfig, image_problems
from sg3.train.options import Options
from sg3.train.recipes.stylegan import half_precision
from sg3.train.recipes.stylegan.options import StyleGANOptions


@dataclass(frozen=True, kw_only=True)
class StyleGANConfig(TrainConfig):
    """A complete run of --cfg=stylegan3-t, stylegan3-r or stylegan2."""

    FREE: ClassVar[frozenset[str]] = TrainConfig.FREE | {"blur_init_sigma", "ema_rampup"}  # (these depend on --resume)

    w_dim: int
    map_depth: int
    d_map_depth: int
    d_arch: str
    cbase: int
    cmax: int
    layers: int
    margin: int
    layer_noise: bool = True  # (runs that began before there were these two)
    clamp_images: bool = False
    num_fp16_res: int
    d_num_fp16_res: int | None = None  # None: as many as G's (as in runs that began before there was this)
    conv_clamp: float | None
    amp_on_cpu: bool = False
    g_scaler: str = "none"
    d_scaler: str = "none"
    loss_scale: int = 512
    magnitude_ema_beta: float
    mbstd_group: int
    freezed: int

    gamma: float
    adam_beta2: float
    adam_eps: float
    g_reg_interval: int | None
    d_reg_interval: int
    pl_weight: float
    pl_batch_shrink: int
    pl_decay: float
    style_mixing_prob: float
    blur_init_sigma: float
    blur_fade_kimg: float
    ema_kimg: float
    ema_rampup: float | None

    @classmethod
    def resolve(cls, options: Options, dataset: DatasetFacts) -> Self:
        """Fill in what was not said."""
        o = options.with_defaults()
        rotation = o.cfg == "stylegan3-r"
        amp = half_precision.OFF if o.fp32 else o.amp
        g_half, d_half = (half_precision.fp16_resolutions(a, dataset.resolution) for a in (amp, o.d_amp or amp))
        ema_rampup = (None if o.resume else 0.05) if o.ema_rampup is None else o.ema_rampup or None
        return cls.from_options(
            o,
            dataset,
            z_dim=o.latent,
            w_dim=o.latent,
            num_fp16_res=g_half,
            d_num_fp16_res=None if d_half == g_half else d_half,
            conv_clamp=half_precision.clamp(g_half),
            magnitude_ema_beta=0.5 ** (o.batch / 20e3),
            gamma=default_gamma(dataset.image_size[0], o.batch, dataset.image_size[1]) if o.gamma is None else o.gamma,
            adam_beta2=0.99,
            adam_eps=1e-8,
            g_reg_interval=4 if o.pl_weight > 0 else None,
            d_reg_interval=16,
            pl_batch_shrink=2,
            pl_decay=0.01,
            style_mixing_prob=o.style_mix,
            # R starts with blurred images, which keeps the discriminator from winning on high frequencies (Karras et
            # al. 2021, Appendix F); a pre-trained network does not need that.
            blur_init_sigma=10.0 if rotation and not o.resume else 0.0,
            blur_fade_kimg=o.batch * 200 / 32 if rotation else 0.0,
            ema_kimg=o.batch * 10 / 32 if o.ema_kimg is None else o.ema_kimg,
            ema_rampup=ema_rampup,
        )

    def problems(self, said: Options) -> list[str]:
        """As in TrainConfig."""
        problems = super().problems(replace(said, bf16=None))
        half = {"G": self.num_fp16_res > 0, "D": self.d_half > 0}
        scalers = {"G": self.g_scaler, "D": self.d_scaler}
        problems += half_precision.contradictions(cast(StyleGANOptions, said), half, scalers, self.loss_scale)
        if not self.layer_noise and self.cfg != "stylegan2":
            problems.append(f"--layer-noise=0: {self.cfg} has none in any case, that is stylegan2's")
        if said.batch_gpu is None and self.batch % self.gpus:
            return problems  # what follows from a batch that is not to be shared out is no problem of its own
        if self.batch_gpu < self.mbstd_group:
            problems.append(f"--batch-gpu={self.batch_gpu}: cannot be smaller than --mbstd-group={self.mbstd_group}")
        elif self.batch_gpu % self.mbstd_group:
            problems.append(f"--batch-gpu={self.batch_gpu}: must be a multiple of --mbstd-group={self.mbstd_group}")
        return problems

    def notes(self, said: Options) -> list[str]:
        """As in TrainConfig."""
        notes = super().notes(said)
        said = cast(StyleGANOptions, said)
        if self.cfg == "stylegan2":
            ours = {"--layers": said.layers, "--margin": said.margin}
            notes += [f"{flag}={value}: is StyleGAN3's, without effect with --cfg=stylegan2"
                      for flag, value in ours.items() if value is not None]  # fmt: skip
        if self.freezed > self.freezable:
            notes.append(f"--freezed={self.freezed}: D has {self.freezable} layers before those at its lowest "
                         "resolution, all of these are frozen")  # fmt: skip
        return notes

    @property
    def freezable(self) -> int:
        """How many layers of D --freezed can freeze: the convolutions of all blocks, not the last layers' at 4 x 4."""
        blocks = int(log2(nominal(self.dataset.image_size))) - 2
        return blocks * 2 + 1 if self.d_arch == "orig" else blocks * 3 + (self.d_arch == "resnet")

    def data_problems(self) -> list[str]:
        """As in TrainConfig."""
        return image_problems(self.dataset, least=16, rectangles=True)

    @property
    def is_half(self) -> bool:
        """Whether some layers run in 16 bits on a GPU."""
        return self.num_fp16_res > 0 or self.d_half > 0

    @property
    def is_half_on_cpu(self) -> bool:
        """As in TrainConfig."""
        return self.is_half and self.amp_on_cpu

    @property
    def d_half(self) -> int:
        """How many resolutions of D may run in 16 bits."""
        return self.num_fp16_res if self.d_num_fp16_res is None else self.d_num_fp16_res

    @property
    def amp(self) -> str:
        """Which layers of G run in 16 bits, in the option's words."""
        return half_precision.amp_of(self.num_fp16_res)

    @property
    def d_amp(self) -> str:
        """Which layers of D do."""
        return half_precision.amp_of(self.d_half)

    @property
    def follows_input_transform(self) -> bool:
        """StyleGAN3's do, StyleGAN2 has no input to transform."""
        return self.cfg != "stylegan2"

    @property
    def highlights(self) -> dict[str, str]:
        """The one number worth trying."""
        return {"gamma": f"{self.gamma:g}"}

    def value_of(self, option: str) -> Any:
        """As in TrainConfig."""
        names = {"latent": "z_dim", "style_mix": "style_mixing_prob"}
        return super().value_of(names.get(option, option))

    def generator_kwargs(self) -> dict[str, Any]:
        """Constructor arguments of the generator of `cfg`."""
        common = {
            "z_dim": self.z_dim, "c_dim": self.dataset.label_dim, "w_dim": self.w_dim,
            **self._image(nominal if self.cfg == "stylegan2" else sampling_rate),
            "mapping_kwargs": {"num_layers": self.map_depth},
            "num_fp16_res": self.num_fp16_res, "conv_clamp": self.conv_clamp,
        }  # fmt: skip
        if self.cfg == "stylegan2":
            channels = {"channel_base": self.cbase, "channel_max": self.cmax}
            noise = {} if self.layer_noise else {"use_noise": False}
            return {**common, **channels, **noise, "fp16_channels_last": self.nhwc}
        shape = {"num_layers": self.layers, "margin_size": self.margin, "magnitude_ema_beta": self.magnitude_ema_beta}
        if self.cfg == "stylegan3-t":
            return {**common, **shape, "channel_base": self.cbase, "channel_max": self.cmax}
        # R: 1 x 1 convolutions and circularly symmetric filters, with twice the channels (Section 3.2).
        return {
            **common, **shape, "channel_base": self.cbase * 2, "channel_max": self.cmax * 2,
            "conv_kernel": 1, "use_radial_filters": True,
        }  # fmt: skip

    def discriminator_kwargs(self) -> dict[str, Any]:
        """Constructor arguments of the discriminator."""
        return {
            "c_dim": self.dataset.label_dim, **self._image(nominal), "architecture": self.d_arch,
            "channel_base": self.cbase, "channel_max": self.cmax, "num_fp16_res": self.d_half,
            "conv_clamp": half_precision.clamp(self.d_half),
            "block_kwargs": {"freeze_layers": self.freezed, "fp16_channels_last": self.nhwc},
            "mapping_kwargs": {"num_layers": self.d_map_depth},
            "epilogue_kwargs": {"mbstd_group_size": self.mbstd_group},
        }  # fmt: skip


    def _image(self, resolution_of: Callable[[Size], int | None]) -> dict[str, Any]:
        """The arguments that say what images are; of others than squares of a power of two,
        `resolution_of` makes img_resolution."""
        data = self.dataset
        if data.is_plain:
            return {"img_resolution": data.resolution, "img_channels": data.channels}
        size = data.image_size
        return {"img_resolution": resolution_of(size), "img_size": list(size), "img_channels": data.channels}


def default_gamma(resolution: int, batch: int, width: int | None = None) -> float:
    """R1 weight 0.0002 * resolution^2 / batch, of rectangles height * width: the rule of thumb of StyleGAN2-ADA's
    automatic configuration."""
    return 0.0002 * (resolution * (width or resolution)) / batch
