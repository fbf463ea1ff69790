"""FastGAN and R3GAN in the hands of tools that walk through w: their latent and label stand for it."""

from __future__ import annotations

import torch
from torch import nn

from sg3.models import StyleGenerator, fastgan, r3gan


class LatentAsW(nn.Module):
    """A generator without a w, as one with a single w [N, 1, z_dim + c_dim] that is z and the label, side by side.

    Between two labels the larger part decides (FastGAN), or both do (R3GAN). There is nothing to truncate towards.
    """

    def __init__(self, G: fastgan.Generator | r3gan.Generator) -> None:
        super().__init__()
        self.z_dim = G.z_dim
        self.c_dim = G.c_dim
        self.w_dim = G.z_dim + G.c_dim
        self.num_ws = 1
        self.img_resolution = G.img_resolution
        self.img_channels = G.img_channels
        self.mapping = _SideBySide(self.w_dim)
        self.synthesis = _Generate(G)


class _SideBySide(nn.Module):
    w_avg: torch.Tensor

    def __init__(self, w_dim: int) -> None:
        super().__init__()
        self.register_buffer("w_avg", torch.zeros(w_dim), persistent=False)

    def forward(self, z: torch.Tensor, c: torch.Tensor, truncation_psi: float = 1.0) -> torch.Tensor:
        return torch.cat([z, c.to(z)], dim=1)[:, None]


class _Generate(nn.Module):
    def __init__(self, G: fastgan.Generator | r3gan.Generator) -> None:
        super().__init__()
        self.G = G

    def forward(self, ws: torch.Tensor, noise_mode: str = "const") -> torch.Tensor:
        z, c = ws[:, 0].split([self.G.z_dim, self.G.c_dim], dim=1)
        return self.G(z, c, noise_mode=noise_mode)


Walkable = StyleGenerator | LatentAsW  # what has a mapping to ws and a synthesis from them
