"""Layers under spectral normalisation: y = layer(x) with the weight divided by its largest singular value.

Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks", Algorithm 1. The singular vectors are
buffers, refined by one step of the power method in each forward pass in train mode. The names are those of torch's
older `nn.utils.spectral_norm`, under which the networks of Projected GAN were saved: `weight_orig`, `weight_u`,
`weight_v`.
"""

from __future__ import annotations

from math import prod, sqrt

import torch
import torch.nn.functional as F
from torch import nn


class SpectralLayer(nn.Module):
    """A weight, under spectral normalisation, and perhaps a bias, which is not."""

    bias: torch.Tensor | None
    weight_u: torch.Tensor
    weight_v: torch.Tensor

    def __init__(self, shape: tuple[int, ...], out_axis: int, fan_in: int, bias: bool) -> None:
        """`shape` of the weight, whose axis `out_axis` counts outputs. Starts uniform, as torch's own layers do."""
        super().__init__()
        self.out_axis = out_axis
        bound = 1 / sqrt(fan_in)
        channels = shape[out_axis]
        self.bias = nn.Parameter((torch.rand(channels) * 2 - 1) * bound) if bias else None
        self.weight_orig = nn.Parameter((torch.rand(*shape) * 2 - 1) * bound)
        self.register_buffer("weight_u", F.normalize(torch.randn(channels), dim=0))
        self.register_buffer("weight_v", torch.zeros(prod(shape) // channels))
        with torch.no_grad():
            self.refine(self.matrix())  # a network is of use in eval mode, too, before it is trained

    def matrix(self) -> torch.Tensor:
        """The weight as a matrix, one row per output."""
        return self.weight_orig.movedim(self.out_axis, 0).flatten(1)

    def refine(self, matrix: torch.Tensor) -> None:
        """One step of the power method."""
        self.weight_v.copy_(F.normalize(matrix.t() @ self.weight_u, dim=0, eps=1e-12))
        self.weight_u.copy_(F.normalize(matrix @ self.weight_v, dim=0, eps=1e-12))

    def weight(self) -> torch.Tensor:
        """The weight to use in this pass."""
        matrix = self.matrix()
        if self.training:
            with torch.no_grad():
                self.refine(matrix)
        # Copies, because the next pass changes the vectors, perhaps before this one's gradient is computed.
        u, v = self.weight_u.clone(), self.weight_v.clone()
        return self.weight_orig / (u @ (matrix @ v))

    def extra_repr(self) -> str:
        return f"weight={list(self.weight_orig.shape)}, bias={self.bias is not None}"


class SpectralConv2d(SpectralLayer):
    """[N, I, H, W] -> [N, O, H', W']."""

    def __init__(
        self, cin: int, cout: int, kernel_size: int, stride: int = 1, padding: int = 0, groups: int = 1,
        bias: bool = False,
    ) -> None:  # fmt: skip
        shape = (cout, cin // groups, kernel_size, kernel_size)
        super().__init__(shape, 0, prod(shape[1:]), bias)
        self.stride, self.padding, self.groups = stride, padding, groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight(), self.bias, self.stride, self.padding, groups=self.groups)


class SpectralConvTranspose2d(SpectralLayer):
    """[N, I, 1, 1] -> [N, O, K, K]; without bias."""

    def __init__(self, cin: int, cout: int, kernel_size: int) -> None:
        super().__init__((cin, cout, kernel_size, kernel_size), 1, cout * kernel_size**2, False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv_transpose2d(x, self.weight())


class SpectralLinear(SpectralLayer):
    """[N, I] -> [N, O], with bias."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__((cout, cin), 0, cin, True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight(), self.bias)
