"""R3GAN's generator and discriminator (Huang et al. 2024, "The GAN is dead; long live the GAN!", arXiv 2501.05441).

A ResNet of today without tricks: no normalisation, no style, no noise, one residual block everywhere. Both networks
are pyramids of stages from 4 x 4 pixels upwards or downwards:

    G   z -> basis 4x4 -> blocks -> (x2, blocks) ... -> 1x1 to RGB
    D   1x1 from RGB -> (blocks, /2) ... -> blocks -> basis 4x4 -> logit

    block   x + conv1x1(act(conv3x3(act(conv1x1(x)))))        the 3x3 grouped, the inside `ExpansionFactor` times wider

There are no biases but those of the activations. What keeps it trainable without normalisation is the initialisation
(Zhang et al. 2019, "Fixup"): the last convolution of a block starts at zero, the others are scaled down by the number
of blocks in the network.

Constructor arguments and state_dict names are the original's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sg3.kernels import bias_act, downsample2d, upsample2d
from sg3.models.layers import HALF_DEVICES

LRELU_GAIN = sqrt(2 / (1 + 0.2**2))  # keeps the variance through a leaky ReLU of slope 0.2 (He et al. 2015, Eq. 15)


@dataclass(frozen=True)
class StageShape:
    """One resolution of a network: its channels, the groups of its 3 x 3 convolutions, its residual blocks."""

    width: int
    cardinality: int
    blocks: int
    bf16: bool


class Weight(nn.Module):
    """A tensor called `weight`, normal with standard deviation gain / sqrt(fan-in), at a place in the module tree."""

    def __init__(self, *shape: int, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(*shape) * (gain / sqrt(prod(shape[1:]))))


class Convolution(nn.Module):
    """[N, I, H, W] -> [N, O, H, W], without bias."""

    def __init__(self, cin: int, cout: int, kernel_size: int, groups: int = 1, gain: float = 1.0) -> None:
        super().__init__()
        self.groups = groups
        self.Layer = Weight(cout, cin // groups, kernel_size, kernel_size, gain=gain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        w = self.Layer.weight.to(x.dtype)
        return F.conv2d(x, w, padding=w.shape[2] // 2, groups=self.groups)


class BiasedActivation(nn.Module):
    """Leaky ReLU of x + bias, unscaled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.Bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return bias_act(x, self.Bias.to(x.dtype), act="lrelu", gain=1)


class ResidualBlock(nn.Module):
    """x [N, C, H, W] -> x + f(x). `blocks` is how many there are in the whole network."""

    def __init__(self, channels: int, cardinality: int, expansion: int, kernel_size: int, blocks: int) -> None:
        super().__init__()
        inner = channels * expansion
        gain = LRELU_GAIN * blocks**-0.25  # two such convolutions: 1 / sqrt(blocks) together
        self.LinearLayer1 = Convolution(channels, inner, 1, gain=gain)
        self.LinearLayer2 = Convolution(inner, inner, kernel_size, groups=cardinality, gain=gain)
        self.LinearLayer3 = Convolution(inner, channels, 1, gain=0)
        self.NonLinearity1 = BiasedActivation(inner)
        self.NonLinearity2 = BiasedActivation(inner)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.LinearLayer1(x)
        y = self.LinearLayer2(self.NonLinearity1(y))
        return x + self.LinearLayer3(self.NonLinearity2(y))


class Resampler(nn.Module):
    """The filter between stages: `taps` twice box-filtered, so that two-fold resampling does not shift the image."""

    Kernel: torch.Tensor

    def __init__(self, taps: Sequence[float]) -> None:
        super().__init__()
        wide = torch.tensor([a + b for a, b in zip([*taps, 0], [0, *taps], strict=True)], dtype=torch.float32)
        self.register_buffer("Kernel", torch.outer(wide, wide) / wide.sum() ** 2)


class UpsampleLayer(nn.Module):
    """[N, I, H, W] -> [N, O, 2 H, 2 W]. The 1 x 1 convolution is there only where the widths differ."""

    def __init__(self, cin: int, cout: int, taps: Sequence[float]) -> None:
        super().__init__()
        self.Resampler = Resampler(taps)
        self.LinearLayer = Convolution(cin, cout, 1) if cin != cout else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.LinearLayer is not None:
            x = self.LinearLayer(x)
        return upsample2d(x, self.Resampler.Kernel)


class DownsampleLayer(nn.Module):
    """[N, I, H, W] -> [N, O, H / 2, W / 2]."""

    def __init__(self, cin: int, cout: int, taps: Sequence[float]) -> None:
        super().__init__()
        self.Resampler = Resampler(taps)
        self.LinearLayer = Convolution(cin, cout, 1) if cin != cout else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = downsample2d(x, self.Resampler.Kernel)
        return x if self.LinearLayer is None else self.LinearLayer(x)


class GenerativeBasis(nn.Module):
    """z [N, F] -> [N, C, 4, 4]: every channel one learned picture, times a linear function of z."""

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.Basis = nn.Parameter(torch.randn(channels, 4, 4))
        self.LinearLayer = Weight(channels, features)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        scales = z @ self.LinearLayer.weight.to(z.dtype).t()
        return self.Basis.to(z.dtype) * scales[:, :, None, None]


class DiscriminativeBasis(nn.Module):
    """[N, C, 4, 4] -> [N, F]: every channel's product with one learned picture, then a linear layer."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.Basis = Weight(channels, 1, 4, 4)
        self.LinearLayer = Weight(features, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        basis = self.Basis.weight.to(x.dtype)
        x = F.conv2d(x, basis, groups=basis.shape[0]).flatten(1)  # [N, C]
        return x @ self.LinearLayer.weight.to(x.dtype).t()


class Stage(nn.Module):
    """Layers in a row, in bfloat16 if `bf16` and the device is for it."""

    def __init__(self, layers: Sequence[nn.Module], bf16: bool) -> None:
        super().__init__()
        self.Layers = nn.ModuleList(layers)
        self.bf16 = bf16

    def forward(self, x: torch.Tensor, force_fp32: bool) -> torch.Tensor:
        x = self.cast(x, force_fp32)
        for layer in self.Layers:
            x = layer(x)
        return x

    def cast(self, x: torch.Tensor, force_fp32: bool) -> torch.Tensor:
        """x in the type that this stage computes in."""
        is_half = self.bf16 and not force_fp32 and x.device.type in HALF_DEVICES
        return x.to(torch.bfloat16 if is_half else next(self.parameters()).dtype)


class GeneratorModel(nn.Module):
    """What the original wraps as `Model`: (z, one-hot label or nothing) -> image, in the last stage's type."""

    def __init__(
        self, z_dim: int, c_dim: int, img_channels: int, embedding: int, stages: Sequence[StageShape],
        expansion: int, kernel_size: int, taps: Sequence[float],
    ) -> None:  # fmt: skip
        super().__init__()
        total = sum(stage.blocks for stage in stages)
        self.MainLayers = nn.ModuleList()
        width = z_dim + (embedding if c_dim > 0 else 0)
        for number, stage in enumerate(stages):
            first = UpsampleLayer(width, stage.width, taps) if number > 0 else GenerativeBasis(width, stage.width)
            blocks = residual_blocks(stage, expansion, kernel_size, total)
            self.MainLayers.append(Stage([first, *blocks], stage.bf16))
            width = stage.width
        self.AggregationLayer = Convolution(width, img_channels, 1)
        self.EmbeddingLayer = Weight(embedding, c_dim) if c_dim > 0 else None

    def forward(self, z: torch.Tensor, c: torch.Tensor | None, force_fp32: bool) -> torch.Tensor:
        x = z
        if self.EmbeddingLayer is not None:
            assert c is not None
            w = self.EmbeddingLayer.weight
            x = torch.cat([z.to(w.dtype), c.to(w.dtype) @ w.t()], dim=1)
        for stage in self.MainLayers:
            x = stage(x, force_fp32)
        return self.AggregationLayer(x)


class DiscriminatorModel(nn.Module):
    """What the original wraps as `Model`: (image, one-hot label or nothing) -> one logit per image."""

    def __init__(
        self, c_dim: int, img_channels: int, embedding: int, stages: Sequence[StageShape],
        expansion: int, kernel_size: int, taps: Sequence[float],
    ) -> None:  # fmt: skip
        super().__init__()
        total = sum(stage.blocks for stage in stages)
        self.ExtractionLayer = Convolution(img_channels, stages[0].width, 1)
        self.MainLayers = nn.ModuleList()
        for number, stage in enumerate(stages):
            blocks = residual_blocks(stage, expansion, kernel_size, total)
            last: nn.Module
            if number + 1 < len(stages):
                last = DownsampleLayer(stage.width, stages[number + 1].width, taps)
            else:
                last = DiscriminativeBasis(stage.width, embedding if c_dim > 0 else 1)
            self.MainLayers.append(Stage([*blocks, last], stage.bf16))
        self.EmbeddingLayer = Weight(embedding, c_dim, gain=1 / sqrt(embedding)) if c_dim > 0 else None

    def forward(self, img: torch.Tensor, c: torch.Tensor | None, force_fp32: bool) -> torch.Tensor:
        first = self.MainLayers[0]
        assert isinstance(first, Stage)
        x = self.ExtractionLayer(first.cast(img, force_fp32))
        for stage in self.MainLayers:
            x = stage(x, force_fp32)
        if self.EmbeddingLayer is not None:
            assert c is not None
            x = x * (c.to(x.dtype) @ self.EmbeddingLayer.weight.to(x.dtype).t())
        return x.sum(dim=1)  # [N, 1] or [N, embedding]: a projection on the label


class Generator(nn.Module):
    """Latent and label -> image.

    Each stage from 4 x 4 upwards has its width, its cardinality (groups of the 3 x 3 convolutions, of the widened
    features) and its number of blocks. `FP16Stages` are the indices of stages that compute in bfloat16 on a GPU,
    negative ones counted from the last. A label is embedded into `ConditionEmbeddingDimension` numbers that stand
    beside z.

    There is nothing between z and the image that truncation could act on, and no noise.
    """

    def __init__(
        self,
        NoiseDimension: int,
        WidthPerStage: Sequence[int],
        CardinalityPerStage: Sequence[int],
        BlocksPerStage: Sequence[int],
        ExpansionFactor: int = 2,
        ConditionEmbeddingDimension: int = 64,
        KernelSize: int = 3,
        ResamplingFilter: Sequence[float] = (1, 2, 1),
        FP16Stages: Sequence[int] = (),
        c_dim: int = 0,
        img_resolution: int | None = None,
        img_channels: int = 3,
    ) -> None:
        """Raises ValueError for lists of different lengths, or a resolution that is not 4 doubled at each stage."""
        super().__init__()
        self.init_args: tuple[Any, ...] = ()
        self.init_kwargs: dict[str, Any] = {
            "NoiseDimension": NoiseDimension, "WidthPerStage": list(WidthPerStage),
            "CardinalityPerStage": list(CardinalityPerStage), "BlocksPerStage": list(BlocksPerStage),
            "ExpansionFactor": ExpansionFactor, "ConditionEmbeddingDimension": ConditionEmbeddingDimension,
            "KernelSize": KernelSize, "ResamplingFilter": list(ResamplingFilter), "FP16Stages": list(FP16Stages),
            "c_dim": c_dim, "img_resolution": img_resolution, "img_channels": img_channels,
        }  # fmt: skip
        stages = stage_shapes(WidthPerStage, CardinalityPerStage, BlocksPerStage, FP16Stages)
        self.z_dim = NoiseDimension
        self.c_dim = c_dim
        self.img_resolution = checked_resolution(img_resolution, len(stages))
        self.img_channels = img_channels
        self.Model = GeneratorModel(
            NoiseDimension, c_dim, img_channels, ConditionEmbeddingDimension, stages, ExpansionFactor, KernelSize,
            ResamplingFilter,
        )  # fmt: skip

    def forward(
        self,
        z: torch.Tensor,
        c: torch.Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: str = "random",
        force_fp32: bool = False,
    ) -> torch.Tensor:
        """z [N, z_dim], c [N, c_dim] -> image [N, img_channels, R, R], float32, about -1..1.

        The original's images are in the type of the last stage instead, so bfloat16 in its presets. The arguments for
        truncation and noise are there for all generators to be called alike, and without effect.
        """
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise ValueError(f"z: got shape {list(z.shape)}, expected [N, {self.z_dim}]")
        check_labels(c, z.shape[0], self.c_dim)  # len() would fix the batch of an exported network
        return self.Model(z, c, force_fp32).to(next(self.parameters()).dtype)

    def extra_repr(self) -> str:
        return f"z_dim={self.z_dim}, c_dim={self.c_dim}, img={self.img_channels} x {self.img_resolution}^2"


class Discriminator(nn.Module):
    """Image and label -> logit; stages from the image's resolution downwards, arguments as in `Generator`.

    With labels the last layer gives `ConditionEmbeddingDimension` numbers, and the logit is their product with the
    label's embedding (Miyato and Koyama 2018, "cGANs with projection discriminator").
    """

    def __init__(
        self,
        WidthPerStage: Sequence[int],
        CardinalityPerStage: Sequence[int],
        BlocksPerStage: Sequence[int],
        ExpansionFactor: int = 2,
        ConditionEmbeddingDimension: int = 768,
        KernelSize: int = 3,
        ResamplingFilter: Sequence[float] = (1, 2, 1),
        FP16Stages: Sequence[int] = (),
        c_dim: int = 0,
        img_resolution: int | None = None,
        img_channels: int = 3,
    ) -> None:
        """Raises ValueError for lists of different lengths, or a resolution that is not 4 doubled at each stage."""
        super().__init__()
        self.init_args: tuple[Any, ...] = ()
        self.init_kwargs: dict[str, Any] = {
            "WidthPerStage": list(WidthPerStage), "CardinalityPerStage": list(CardinalityPerStage),
            "BlocksPerStage": list(BlocksPerStage), "ExpansionFactor": ExpansionFactor,
            "ConditionEmbeddingDimension": ConditionEmbeddingDimension, "KernelSize": KernelSize,
            "ResamplingFilter": list(ResamplingFilter), "FP16Stages": list(FP16Stages),
            "c_dim": c_dim, "img_resolution": img_resolution, "img_channels": img_channels,
        }  # fmt: skip
        stages = stage_shapes(WidthPerStage, CardinalityPerStage, BlocksPerStage, FP16Stages)
        self.c_dim = c_dim
        self.img_resolution = checked_resolution(img_resolution, len(stages))
        self.img_channels = img_channels
        self.Model = DiscriminatorModel(
            c_dim, img_channels, ConditionEmbeddingDimension, stages, ExpansionFactor, KernelSize, ResamplingFilter,
        )  # fmt: skip

    def forward(self, img: torch.Tensor, c: torch.Tensor | None = None, force_fp32: bool = False) -> torch.Tensor:
        """img [N, img_channels, R, R] in -1..1, c [N, c_dim] -> logits [N], in the last stage's type."""
        expected = (self.img_channels, self.img_resolution, self.img_resolution)
        if img.ndim != 4 or img.shape[1:] != expected:
            raise ValueError(f"img: got shape {list(img.shape)}, expected [N, {', '.join(map(str, expected))}]")
        check_labels(c, len(img), self.c_dim)
        return self.Model(img, c, force_fp32)

    def extra_repr(self) -> str:
        return f"c_dim={self.c_dim}, img={self.img_channels} x {self.img_resolution}^2"


def stage_shapes(
    widths: Sequence[int], cardinalities: Sequence[int], blocks: Sequence[int], bf16: Sequence[int]
) -> list[StageShape]:
    """The stages' lists as one. Raises ValueError if they do not fit together."""
    count = len(widths)
    if not count == len(cardinalities) == len(blocks) or count == 0:
        raise ValueError(
            f"WidthPerStage, CardinalityPerStage, BlocksPerStage: got {count}, {len(cardinalities)} and {len(blocks)} "
            "numbers, expected one for each stage"
        )
    if any(not -count <= index < count for index in bf16):
        raise ValueError(f"FP16Stages: got {list(bf16)}, expected indices of {count} stages")
    half = {index % count for index in bf16}
    rows = zip(widths, cardinalities, blocks, strict=True)
    return [StageShape(*row, bf16=number in half) for number, row in enumerate(rows)]


def residual_blocks(stage: StageShape, expansion: int, kernel_size: int, total: int) -> list[ResidualBlock]:
    """The blocks of a stage, in a network of `total` blocks."""
    if stage.width * expansion % stage.cardinality:
        raise ValueError(
            f"CardinalityPerStage: {stage.cardinality} groups do not divide {stage.width * expansion} features"
        )
    return [ResidualBlock(stage.width, stage.cardinality, expansion, kernel_size, total) for _ in range(stage.blocks)]


def checked_resolution(resolution: int | None, stages: int) -> int:
    """What so many stages make of 4 pixels. Raises ValueError if `resolution` is given and another."""
    reached = 4 << (stages - 1)
    if resolution not in (None, reached):
        raise ValueError(f"img_resolution: got {resolution}, but {stages} stages end at {reached}")
    return reached


def check_labels(c: torch.Tensor | None, count: int, c_dim: int) -> None:
    """Raises ValueError if a conditional network gets no labels [count, c_dim]."""
    if c_dim > 0 and (c is None or c.shape != (count, c_dim)):
        got = "None" if c is None else f"shape {list(c.shape)}"
        raise ValueError(f"c: got {got}, expected [{count}, {c_dim}] (this network takes labels)")
