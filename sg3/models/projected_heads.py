"""The trained part of a projected discriminator: one small convolutional head on each of the feature maps.

Sauer et al. 2021, "Projected GANs Converge Faster" (arXiv 2111.01007), Section 3.2 and Appendix. A head halves its map
until it is nominally 8 x 8 (heads know the sizes they would have for images of 256 x 256), then gives one logit for
each 4 x 4 window. All convolutions are spectrally normalised.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from torch import nn

from sg3.models.layers import BatchNorm2d
from sg3.models.spectral import SpectralConv2d

WIDTHS = {4: 512, 8: 512, 16: 256, 32: 128, 64: 64, 128: 64, 256: 32, 512: 16, 1024: 8}  # by nominal size
END = 8
PATCH_START = 16
CLASSES, EMBEDDING, PROJECTED = 1000, 128, 64


class DownBlock(nn.Module):
    """[N, I, H, W] -> [N, O, H / 2, W / 2]: 4 x 4 convolution of stride 2, batch norm, leaky ReLU."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            SpectralConv2d(cin, cout, 4, stride=2, padding=1, bias=True), BatchNorm2d(cout), nn.LeakyReLU(0.2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.main(x)


class SeparableConv2d(nn.Module):
    """3 x 3 channel by channel, then 1 x 1."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.depthwise = SpectralConv2d(cin, cin, 3, padding=1, groups=cin)
        self.pointwise = SpectralConv2d(cin, cout, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pointwise(self.depthwise(x))


class SeparableDownBlock(nn.Module):
    """[N, I, H, W] -> [N, O, H / 2, W / 2]: separable convolution, batch norm, leaky ReLU, average of 2 x 2."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            SeparableConv2d(cin, cout), BatchNorm2d(cout), nn.LeakyReLU(0.2), nn.AvgPool2d(2, 2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.main(x)


class PatchDownBlock(nn.Module):
    """A block, then 1 x 1 convolution, batch norm, leaky ReLU."""

    def __init__(self, block: nn.Module, channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            block, SpectralConv2d(channels, channels, 1), BatchNorm2d(channels), nn.LeakyReLU(0.2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.main(x)


def body(
    nc: int, ndf: int | None, start_sz: int, end_sz: int, head: bool, separable: bool, patch: bool
) -> tuple[list[nn.Module], int]:
    """The layers of a head before the last convolution, and the channels they end with.

    `nc` channels come in, at a nominal size of `start_sz`, or the next in the table. `ndf` is the width of all blocks
    if given. With `head` a convolution stands in front. With `patch` a 1 x 1 convolution follows each block.
    """
    widths = dict.fromkeys(WIDTHS, ndf) if ndf is not None else dict(WIDTHS)
    size = start_sz if start_sz in widths else min(widths, key=lambda known: abs(known - start_sz))
    layers: list[nn.Module] = []
    if head:
        layers += [SpectralConv2d(nc, widths[size], 3, padding=1), nn.LeakyReLU(0.2)]
    else:
        widths[size] = nc
    while size > end_sz:
        cin, cout = widths[size], widths[size // 2]
        block: nn.Module = SeparableDownBlock(cin, cout) if separable else DownBlock(cin, cout)
        layers.append(PatchDownBlock(block, cout) if patch else block)
        size //= 2
    return layers, widths[size]


class SingleDisc(nn.Module):
    """Features [N, nc, H, W] -> logits [N, 1, h, w]. Arguments as in `body`."""

    def __init__(
        self, nc: int, ndf: int | None = None, start_sz: int = 256, end_sz: int = END, head: bool = False,
        separable: bool = False, patch: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        layers, width = body(nc, ndf, start_sz, end_sz, head, separable, patch)
        self.main = nn.Sequential(*layers, SpectralConv2d(width, 1, 4))

    def forward(self, x: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        return self.main(x)


class SingleDiscCond(nn.Module):
    """The same for labels: 64 maps, whose product with a projection of the class's embedding is the logit."""

    def __init__(
        self, nc: int, ndf: int | None = None, start_sz: int = 256, end_sz: int = END, head: bool = False,
        separable: bool = False, patch: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        layers, width = body(nc, ndf, start_sz, end_sz, head, separable, patch)
        self.main = nn.Sequential(*layers)
        self.cls = SpectralConv2d(width, PROJECTED, 4)
        self.embed = nn.Embedding(CLASSES, EMBEDDING)
        self.embed_proj = nn.Sequential(nn.Linear(EMBEDDING, PROJECTED), nn.LeakyReLU(0.2))

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """c is one-hot, [N, classes]."""
        maps = self.cls(self.main(x))  # [N, 64, h, w]
        cmap = self.embed_proj(self.embed(c.argmax(dim=1)))  # [N, 64]
        return (maps * cmap[:, :, None, None]).sum(dim=1, keepdim=True) / sqrt(PROJECTED)


class MultiScaleD(nn.Module):
    """One head for each of the first `num_discs` maps; their channels and nominal sizes are given, finest first."""

    def __init__(
        self, channels: Sequence[int], resolutions: Sequence[int], num_discs: int = 4, ndf: int | None = None,
        cond: bool = False, separable: bool = False, patch: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if not 1 <= num_discs <= len(channels):
            raise ValueError(f"num_discs: got {num_discs}, expected 1 to {len(channels)}, a head for each map")
        kind = SingleDiscCond if cond else SingleDisc
        self.mini_discs = nn.ModuleDict({
            str(number): kind(
                channels[number], ndf, PATCH_START if patch else resolutions[number], END,
                separable=separable, patch=patch,
            )
            for number in range(num_discs)
        })  # fmt: skip

    def forward(self, features: Sequence[torch.Tensor], c: torch.Tensor | None) -> torch.Tensor:
        """The logits of all heads side by side, [N, logits], finest map first, each row by row."""
        pairs = zip(features, self.mini_discs.values(), strict=False)
        return torch.cat([head(x, c).flatten(1) for x, head in pairs], dim=1)
