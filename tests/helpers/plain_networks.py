"""Inception-v3 and VGG16 written a second time, as plain functions of a list of layers, with random weights.

The layers are made on the first forward pass, in the order in which they are used. They carry the names that published
files use, but as modules they are only numbered, as in a file whose names say nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

Pair = tuple[int, int]


class Layer(nn.Module):
    """A convolution and its normalisation under names that are not ours. TensorFlow's graph has no scale."""

    def __init__(self, name: str, cin: int, cout: int, kernel: Pair) -> None:
        super().__init__()
        self.title = name
        deviation = (2 / (cin * kernel[0] * kernel[1])) ** 0.5
        self.kernel = nn.Parameter(torch.randn(cout, cin, *kernel) * deviation)
        self.register_buffer("beta", torch.randn(cout) * 0.1)
        self.register_buffer("moving_mean", torch.randn(cout) * 0.1)
        self.register_buffer("moving_variance", torch.rand(cout) + 0.5)


class PlainInception(nn.Module):
    """Images [N, 3, H, W], 0..255 -> features. `seen` keeps what each named part has computed last."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.softmax_weight = nn.Parameter(torch.randn(1008, 2048) * 0.05)
        self.softmax_bias = nn.Parameter(torch.randn(1008) * 0.1)
        self.seen: dict[str, torch.Tensor] = {}
        with torch.no_grad():
            self(torch.zeros(1, 3, 2, 2))
        # Registered last, to be last in the file as well.
        self.output = nn.Module()
        self.output.weight, self.output.bias = self.softmax_weight, self.softmax_bias
        del self.softmax_weight, self.softmax_bias
        self.eval().requires_grad_(False)

    def conv(
        self, x: torch.Tensor, name: str, cout: int, kernel: Pair, stride: int = 1, same: bool = True
    ) -> torch.Tensor:
        if self.at == len(self.layers):
            self.layers.append(Layer(name, x.shape[1], cout, kernel))
        layer = self.layers[self.at]
        assert layer.title == name
        self.at += 1
        padding = [kernel[0] // 2, kernel[1] // 2] if same else 0
        y = F.conv2d(x, layer.kernel, stride=stride, padding=padding)
        y = (y - layer.moving_mean.view(-1, 1, 1)) * (layer.moving_variance + 0.001).rsqrt().view(-1, 1, 1)
        y = (y + layer.beta.view(-1, 1, 1)).clamp(min=0)
        self.seen[name] = y
        return y

    def chain(self, x: torch.Tensor, *steps: tuple[str, int, Pair]) -> torch.Tensor:
        for name, cout, kernel in steps:
            x = self.conv(x, name, cout, kernel)
        return x

    def block_a(self, x: torch.Tensor, m: str, pooled: int) -> torch.Tensor:
        parts = [
            self.conv(x, f"{m}.branch1x1", 64, (1, 1)),
            self.chain(x, (f"{m}.branch5x5_1", 48, (1, 1)), (f"{m}.branch5x5_2", 64, (5, 5))),
            self.chain(x, (f"{m}.branch3x3dbl_1", 64, (1, 1)), (f"{m}.branch3x3dbl_2", 96, (3, 3)),
                       (f"{m}.branch3x3dbl_3", 96, (3, 3))),
            self.conv(average(x), f"{m}.branch_pool", pooled, (1, 1)),
        ]
        return torch.cat(parts, 1)

    def block_b(self, x: torch.Tensor, m: str, c: int) -> torch.Tensor:
        parts = [
            self.conv(x, f"{m}.branch1x1", 192, (1, 1)),
            self.chain(x, (f"{m}.branch7x7_1", c, (1, 1)), (f"{m}.branch7x7_2", c, (1, 7)),
                       (f"{m}.branch7x7_3", 192, (7, 1))),
            self.chain(x, (f"{m}.branch7x7dbl_1", c, (1, 1)), (f"{m}.branch7x7dbl_2", c, (7, 1)),
                       (f"{m}.branch7x7dbl_3", c, (1, 7)), (f"{m}.branch7x7dbl_4", c, (7, 1)),
                       (f"{m}.branch7x7dbl_5", 192, (1, 7))),
            self.conv(average(x), f"{m}.branch_pool", 192, (1, 1)),
        ]
        return torch.cat(parts, 1)

    def block_c(self, x: torch.Tensor, m: str, maximum: bool) -> torch.Tensor:
        parts = [self.conv(x, f"{m}.branch1x1", 320, (1, 1))]
        y = self.conv(x, f"{m}.branch3x3_1", 384, (1, 1))
        parts += [self.conv(y, f"{m}.branch3x3_2a", 384, (1, 3)), self.conv(y, f"{m}.branch3x3_2b", 384, (3, 1))]
        y = self.chain(x, (f"{m}.branch3x3dbl_1", 448, (1, 1)), (f"{m}.branch3x3dbl_2", 384, (3, 3)))
        parts += [self.conv(y, f"{m}.branch3x3dbl_3a", 384, (1, 3)), self.conv(y, f"{m}.branch3x3dbl_3b", 384, (3, 1))]
        pooled = maximum3x3(x) if maximum else average(x)
        return torch.cat([*parts, self.conv(pooled, f"{m}.branch_pool", 192, (1, 1))], 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.at = 0
        x = (resize(images, 299) - 128) * 0.0078125
        x = self.conv(x, "Conv2d_1a_3x3", 32, (3, 3), 2, same=False)
        x = self.conv(x, "Conv2d_2a_3x3", 32, (3, 3), same=False)
        x = shrunk(self.conv(x, "Conv2d_2b_3x3", 64, (3, 3)))
        x = self.conv(x, "Conv2d_3b_1x1", 80, (1, 1))
        x = shrunk(self.conv(x, "Conv2d_4a_3x3", 192, (3, 3), same=False))
        for m, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = self.seen[m] = self.block_a(x, m, pooled)
        direct = self.conv(x, "Mixed_6a.branch3x3", 384, (3, 3), 2, same=False)
        y = self.chain(x, ("Mixed_6a.branch3x3dbl_1", 64, (1, 1)), ("Mixed_6a.branch3x3dbl_2", 96, (3, 3)))
        y = self.conv(y, "Mixed_6a.branch3x3dbl_3", 96, (3, 3), 2, same=False)
        x = self.seen["Mixed_6a"] = torch.cat([direct, y, shrunk(x)], 1)
        for m, inner in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            x = self.seen[m] = self.block_b(x, m, inner)
        y = self.conv(x, "Mixed_7a.branch3x3_1", 192, (1, 1))
        y = self.conv(y, "Mixed_7a.branch3x3_2", 320, (3, 3), 2, same=False)
        z = self.chain(x, ("Mixed_7a.branch7x7x3_1", 192, (1, 1)), ("Mixed_7a.branch7x7x3_2", 192, (1, 7)),
                       ("Mixed_7a.branch7x7x3_3", 192, (7, 1)))  # fmt: skip
        z = self.conv(z, "Mixed_7a.branch7x7x3_4", 192, (3, 3), 2, same=False)
        x = self.seen["Mixed_7a"] = torch.cat([y, z, shrunk(x)], 1)
        x = self.seen["Mixed_7b"] = self.block_c(x, "Mixed_7b", maximum=False)
        x = self.seen["Mixed_7c"] = self.block_c(x, "Mixed_7c", maximum=True)
        return x.flatten(2).sum(2) / x[0, 0].numel()

    def published(self) -> dict[str, torch.Tensor]:
        """The weights under the names of pytorch-fid's file."""
        state = {}
        for layer in self.layers:
            state[f"{layer.title}.conv.weight"] = layer.kernel.data
            state[f"{layer.title}.bn.weight"] = torch.ones_like(layer.beta)
            state[f"{layer.title}.bn.bias"] = layer.beta
            state[f"{layer.title}.bn.running_mean"] = layer.moving_mean
            state[f"{layer.title}.bn.running_var"] = layer.moving_variance
        return {**state, "fc.weight": self.output.weight.data, "fc.bias": self.output.bias.data}


def interpolation(have: int, size: int) -> np.ndarray:
    """[size, have]: TensorFlow 1's bilinear resizing as a matrix. Output i lies at i * have / size."""
    matrix = np.zeros((size, have), np.float32)
    for i in range(size):
        position = np.float32(i) * np.float32(have / size)
        low = int(position)
        part = position - np.float32(low)
        matrix[i, low] += np.float32(1) - part
        matrix[i, min(low + 1, have - 1)] += part
    return matrix


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    rows = torch.from_numpy(interpolation(images.shape[2], size))
    columns = torch.from_numpy(interpolation(images.shape[3], size))
    return rows @ images @ columns.T


def neighbours(x: torch.Tensor) -> torch.Tensor:
    """[N, C, 9, H, W]: each pixel's 3 x 3 neighbourhood, zeros outside."""
    n, c, h, w = x.shape
    return F.unfold(x, 3, padding=1).view(n, c, 9, h, w)


def average(x: torch.Tensor) -> torch.Tensor:
    return neighbours(x).sum(2) / neighbours(torch.ones_like(x)).sum(2)


def maximum3x3(x: torch.Tensor) -> torch.Tensor:
    return neighbours(x).amax(2)  # zeros outside do no harm: x is not negative


def shrunk(x: torch.Tensor) -> torch.Tensor:
    """Maximum of 3 x 3 at every second pixel, as far as whole neighbourhoods go."""
    n, c, h, w = x.shape
    out = (h - 3) // 2 + 1, (w - 3) // 2 + 1
    return F.unfold(x, 3, stride=2).view(n, c, 9, *out).amax(2)


class Step(nn.Module):
    """A convolution or matrix, and its bias."""

    def __init__(self, *size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size) * (2 / np.prod(size[1:])) ** 0.5)
        self.bias = nn.Parameter(torch.rand(size[0]) * 0.2)  # positive: a narrow network may not fall silent


class PlainVGG16(nn.Module):
    """A narrow VGG16 with LPIPS heads, and five classes. Layers are numbered through: `steps.0.weight` ..."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.widths = [width * k for k in (1, 2, 4, 8, 8)]
        cin, sizes = 3, []
        for k, count in zip((1, 2, 4, 8, 8), (2, 2, 3, 3, 3), strict=True):
            for _ in range(count):
                sizes.append((width * k, cin, 3, 3))
                cin = width * k
        sizes += [(hidden, cin * 49), (hidden, hidden), (5, hidden)]
        self.steps = nn.ModuleList(Step(*size) for size in sizes)
        self.heads = nn.ParameterList(torch.rand(1, width, 1, 1) for width in self.widths)
        self.eval().requires_grad_(False)

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x = (images / 255 - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
        number, maps = 0, []
        for count in (2, 2, 3, 3, 3):
            if maps:
                x = F.unfold(x, 2, stride=2).view(*x.shape[:2], 4, x.shape[2] // 2, x.shape[3] // 2).amax(2)
            for step in self.steps[number : number + count]:
                x = F.conv2d(x, step.weight, step.bias, padding=1).clamp(min=0)
            number += count
            maps.append(x)
        return maps

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.maps(resize(images, 224))[-1]
        x = x.view(*x.shape[:2], 7, 2, 7, 2).amax((3, 5)).flatten(1)
        for step in self.steps[13:15]:
            x = (x @ step.weight.T + step.bias).clamp(min=0)
        return x

    def distance(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """LPIPS, equation 1 of the paper."""
        total = torch.zeros(len(a))
        for x, y, head in zip(self.maps(a), self.maps(b), self.heads, strict=True):
            difference = x / (x.norm(dim=1, keepdim=True) + 1e-10) - y / (y.norm(dim=1, keepdim=True) + 1e-10)
            total += (head * difference**2).sum(1).mean((1, 2))
        return total

    def published(self) -> dict[str, torch.Tensor]:
        """The weights under torchvision's names."""
        places = [f"features.{n}" for n in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)]
        places += ["classifier.0", "classifier.3", "classifier.6"]
        pairs = list(zip(places, self.steps, strict=True))
        return {f"{p}.weight": s.weight.data for p, s in pairs} | {f"{p}.bias": s.bias.data for p, s in pairs}
