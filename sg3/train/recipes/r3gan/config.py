"""A run of R3GAN: its configuration, the published defaults, and what must fit together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from sg3.train.config import DatasetFacts, TrainConfig, image_problems
from sg3.train.options import Options

EXPANSION = 2  # features inside a residual block, per channel
EMBEDDING = 64  # of G's labels
HALF_STAGES = 4  # the last ones of G and the first ones of D, but for 4 x 4 pixels
LR_DECAY, GAMMA_DECAY = 4.0, 10.0  # start / end of the schedules
BETA2 = (0.9, 0.99)


@dataclass(frozen=True, kw_only=True)
class R3GANConfig(TrainConfig):
    """A complete run of --cfg=r3gan."""

    cbase: int
    cmax: int
    blocks: int
    group: int
    num_half_stages: int

    gamma: float
    adam_eps: float
    final_p: float
    ema_kimg: float
    schedule_kimg: float
    penalty: str
    clamp_images: bool = False  # (runs that began before there was this)

    @classmethod
    def resolve(cls, options: Options, dataset: DatasetFacts) -> Self:
        """Fill in what was not said."""
        o = options.with_defaults()
        stages = (dataset.resolution // 4).bit_length()
        return cls.from_options(
            o,
            dataset,
            z_dim=o.latent,
            num_half_stages=0 if o.fp32 else max(min(HALF_STAGES, stages - 1), 0),
            gamma=0.0002 * dataset.resolution**2 if o.gamma is None else o.gamma,
            adam_eps=1e-8,
            ema_kimg=500.0 if o.ema_kimg is None else o.ema_kimg,
        )

    def problems(self, said: Options) -> list[str]:
        """As in TrainConfig."""
        problems = super().problems(said)
        if self.compile != "off":
            why = "R3GAN's D is differentiated twice in every step, which torch.compile cannot"
            problems.append(f"--compile={self.compile}: is for StyleGAN2 and StyleGAN3; {why}")
        for width in sorted(set(self.widths)):
            if width * EXPANSION % self.group:
                problems.append(
                    f"--group={self.group}: does not divide the {width * EXPANSION} features of a layer of {width} "
                    "channels; see --cbase and --cmax"
                )
        return problems

    def data_problems(self) -> list[str]:
        """As in TrainConfig."""
        return image_problems(self.dataset, least=8)

    @property
    def is_half(self) -> bool:
        """Whether some layers run in 16 bits on a GPU: always in bfloat16."""
        return self.num_half_stages > 0

    @property
    def highlights(self) -> dict[str, str]:
        """The one number worth trying."""
        return {"gamma": f"{self.gamma:g}"}

    def value_of(self, option: str) -> Any:
        """As in TrainConfig."""
        return super().value_of({"latent": "z_dim"}.get(option, option))

    @property
    def widths(self) -> list[int]:
        """Channels at 4 x 4, 8 x 8, ... up to the image."""
        sizes = [4]
        while sizes[-1] < self.dataset.resolution:
            sizes.append(sizes[-1] * 2)
        return [max(min(self.cbase // size, self.cmax), 1) for size in sizes]

    def generator_kwargs(self) -> dict[str, Any]:
        """Constructor arguments of the generator."""
        return {
            "NoiseDimension": self.z_dim, **self._stages(self.widths),
            "FP16Stages": [-1 - number for number in range(self.num_half_stages)],
            "ConditionEmbeddingDimension": EMBEDDING,
        }  # fmt: skip

    def discriminator_kwargs(self) -> dict[str, Any]:
        """Constructor arguments of the discriminator, the generator's mirror image."""
        return {
            **self._stages(self.widths[::-1]), "FP16Stages": list(range(self.num_half_stages)),
            "ConditionEmbeddingDimension": self.widths[0],
        }  # fmt: skip

    def _stages(self, widths: list[int]) -> dict[str, Any]:
        data = self.dataset
        return {
            "WidthPerStage": widths, "CardinalityPerStage": [width * EXPANSION // self.group for width in widths],
            "BlocksPerStage": [self.blocks] * len(widths), "ExpansionFactor": EXPANSION, "c_dim": data.label_dim,
            "img_resolution": data.resolution, "img_channels": data.channels,
        }  # fmt: skip
