"""DINOv2's vision transformers (Oquab et al., arXiv 2304.07193), without registers: features learned without labels.

Stein et al. (arXiv 2306.04675) found Frechet distances of the large one's class token nearer to what people judge than
FID. Names of parameters are those of the published files `dinov2_vitl14_pretrain.pth` and `dinov2_vitb14_pretrain.pth`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sg3.models.features.resize import resize_bicubic
from sg3.models.features.vgg16 import DEVIATION, MEAN

PATCH = 14  # pixels
TRAINED_GRID = 37  # patches along a side, 518 pixels, that positions were learned for
RESOLUTION = 224
# The published code scales positions by (grid + 0.1) / 37, so that rounding cannot lose a row. It shows: source
# coordinates step by 37 / 16.1 and not by 37 / 16.
OFFSET = 0.1


@dataclass(frozen=True)
class Variant:
    """A size of the network."""

    name: str
    width: int
    depth: int
    heads: int


LARGE = Variant("ViT-L/14", width=1024, depth=24, heads=16)
BASE = Variant("ViT-B/14", width=768, depth=12, heads=12)


class DinoV2(nn.Module):
    """RGB images [N, 3, H, W] with values 0..255 -> the class token after the last normalisation, [N, width]."""

    def __init__(self, variant: Variant = LARGE) -> None:
        super().__init__()
        self.variant = variant
        width = variant.width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + TRAINED_GRID**2, width))
        self.patch_embed = Patches(width)
        self.blocks = nn.ModuleList(Block(width, variant.heads) for _ in range(variant.depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, images: torch.Tensor, resize_images: bool = True) -> torch.Tensor:
        """Images are stretched to 224 x 224; without `resize_images`, sides have to be multiples of 14."""
        if resize_images:
            images = resize_bicubic(images, RESOLUTION, RESOLUTION)
        mean, deviation = (images.new_tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
        patches = self.patch_embed((images / 255 - mean) / deviation)  # [N, width, h, w]
        x = patches.flatten(2).transpose(1, 2)  # [N, h w, width]
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        x = x + self.positions(*patches.shape[2:])
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]

    def positions(self, height: int, width: int) -> torch.Tensor:
        """Of the class token and of height x width patches, [1, 1 + height width, width]."""
        if (height, width) == (TRAINED_GRID, TRAINED_GRID):
            return self.pos_embed
        of_class, of_patches = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        grid = of_patches.transpose(1, 2).unflatten(2, (TRAINED_GRID, TRAINED_GRID))
        scale = ((height + OFFSET) / TRAINED_GRID, (width + OFFSET) / TRAINED_GRID)
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False)
        assert grid.shape[2:] == (height, width)
        return torch.cat([of_class, grid.flatten(2).transpose(1, 2)], dim=1)


class Patches(nn.Module):
    """Each patch of 14 x 14 pixels to a vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, stride=PATCH)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.proj(images)


class Block(nn.Module):
    """Attention and a perceptron, each normalised before, scaled after, and added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.ls1 = Scale(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Perceptron(width)
        self.ls2 = Scale(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Attention(nn.Module):
    """Every token looks at all, in `heads` ways of width / heads numbers each."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [N, heads, tokens, 64]
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Perceptron(nn.Module):
    """Four times as wide inside, with the exact GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Scale(nn.Module):
    """LayerScale: a learned factor for each number."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma
