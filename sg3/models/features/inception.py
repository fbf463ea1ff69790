"""Inception-v3 as in Google's TensorFlow graph of 2015-12-05, which FID, KID and IS are defined by.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (arXiv 1512.00567), with that graph's
peculiarities: 1008 classes, averages at the border leave padding out, and the last block pools by maximum. Parameter
names are those of `pt_inception-2015-12-05-6726825d.pth`, the conversion that pytorch-fid and torch-fidelity use.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from sg3.models.features.resize import resize_tf1

RESOLUTION = 299
FEATURES = 2048
CLASSES = 1008  # 1000 of ImageNet, the others unused


class InceptionV3(nn.Module):
    """RGB images [N, 3, H, W] of any size with values 0..255 -> pooled features [N, 2048]."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvBN(3, 32, 3, stride=2, pad=False)
        self.Conv2d_2a_3x3 = ConvBN(32, 32, 3, pad=False)
        self.Conv2d_2b_3x3 = ConvBN(32, 64, 3)
        self.Conv2d_3b_1x1 = ConvBN(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvBN(80, 192, 3, pad=False)
        self.Mixed_5b = MixedA(192, pooled=32)
        self.Mixed_5c = MixedA(256, pooled=64)
        self.Mixed_5d = MixedA(288, pooled=64)
        self.Mixed_6a = ReduceA(288)
        self.Mixed_6b = MixedB(768, inner=128)
        self.Mixed_6c = MixedB(768, inner=160)
        self.Mixed_6d = MixedB(768, inner=160)
        self.Mixed_6e = MixedB(768, inner=192)
        self.Mixed_7a = ReduceB(768)
        self.Mixed_7b = MixedC(1280)
        self.Mixed_7c = MixedC(2048, pool_by_maximum=True)
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = resize_tf1(images, RESOLUTION, RESOLUTION)  # [N, 3, 299, 299]
        x = (x - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = F.max_pool2d(x, 3, stride=2)  # [N, 64, 73, 73]
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = F.max_pool2d(x, 3, stride=2)  # [N, 192, 35, 35]
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))  # [N, 288, 35, 35]
        x = self.Mixed_6a(x)  # [N, 768, 17, 17]
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))
        x = self.Mixed_7a(x)  # [N, 1280, 8, 8]
        x = self.Mixed_7c(self.Mixed_7b(x))  # [N, 2048, 8, 8]
        return x.mean(dim=(2, 3))

    def logits(self, features: torch.Tensor, output_bias: bool = True) -> torch.Tensor:
        """Features [N, 2048] -> scores [N, 1008] of the classes. The Inception Score leaves the output bias out."""
        return F.linear(features, self.fc.weight, self.fc.bias if output_bias else None)


class ConvBN(nn.Module):
    """Convolution without bias, batch normalisation, ReLU. `pad` keeps the size (at stride 1)."""

    def __init__(
        self, cin: int, cout: int, kernel: int | tuple[int, int], stride: int = 1, pad: bool = True
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if pad else (0, 0)
        self.conv = nn.Conv2d(cin, cout, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(cout, eps=0.001)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x)))


def average3x3(x: torch.Tensor) -> torch.Tensor:
    """Mean of the neighbours that exist: TensorFlow does not count the padding."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class MixedA(nn.Module):
    """35 x 35 block (the paper's Figure 5): 1x1, 5x5, two 3x3 in a row, pooling."""

    def __init__(self, cin: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = ConvBN(cin, 64, 1)
        self.branch5x5_1 = ConvBN(cin, 48, 1)
        self.branch5x5_2 = ConvBN(48, 64, 5)
        self.branch3x3dbl_1 = ConvBN(cin, 64, 1)
        self.branch3x3dbl_2 = ConvBN(64, 96, 3)
        self.branch3x3dbl_3 = ConvBN(96, 96, 3)
        self.branch_pool = ConvBN(cin, pooled, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = (
            self.branch1x1(x),
            self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.branch_pool(average3x3(x)),
        )
        return torch.cat(branches, dim=1)


class ReduceA(nn.Module):
    """35 x 35 -> 17 x 17 (Figure 10)."""

    def __init__(self, cin: int) -> None:
        super().__init__()
        self.branch3x3 = ConvBN(cin, 384, 3, stride=2, pad=False)
        self.branch3x3dbl_1 = ConvBN(cin, 64, 1)
        self.branch3x3dbl_2 = ConvBN(64, 96, 3)
        self.branch3x3dbl_3 = ConvBN(96, 96, 3, stride=2, pad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat((self.branch3x3(x), double, F.max_pool2d(x, 3, stride=2)), dim=1)


class MixedB(nn.Module):
    """17 x 17 block (Figure 6): 7x7 as 1x7 and 7x1, once and twice."""

    def __init__(self, cin: int, inner: int) -> None:
        super().__init__()
        self.branch1x1 = ConvBN(cin, 192, 1)
        self.branch7x7_1 = ConvBN(cin, inner, 1)
        self.branch7x7_2 = ConvBN(inner, inner, (1, 7))
        self.branch7x7_3 = ConvBN(inner, 192, (7, 1))
        self.branch7x7dbl_1 = ConvBN(cin, inner, 1)
        self.branch7x7dbl_2 = ConvBN(inner, inner, (7, 1))
        self.branch7x7dbl_3 = ConvBN(inner, inner, (1, 7))
        self.branch7x7dbl_4 = ConvBN(inner, inner, (7, 1))
        self.branch7x7dbl_5 = ConvBN(inner, 192, (1, 7))
        self.branch_pool = ConvBN(cin, 192, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat((self.branch1x1(x), single, double, self.branch_pool(average3x3(x))), dim=1)


class ReduceB(nn.Module):
    """17 x 17 -> 8 x 8."""

    def __init__(self, cin: int) -> None:
        super().__init__()
        self.branch3x3_1 = ConvBN(cin, 192, 1)
        self.branch3x3_2 = ConvBN(192, 320, 3, stride=2, pad=False)
        self.branch7x7x3_1 = ConvBN(cin, 192, 1)
        self.branch7x7x3_2 = ConvBN(192, 192, (1, 7))
        self.branch7x7x3_3 = ConvBN(192, 192, (7, 1))
        self.branch7x7x3_4 = ConvBN(192, 192, 3, stride=2, pad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        single = self.branch3x3_2(self.branch3x3_1(x))
        separated = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat((single, self.branch7x7x3_4(separated), F.max_pool2d(x, 3, stride=2)), dim=1)


class MixedC(nn.Module):
    """8 x 8 block (Figure 7): 3x3 as 1x3 beside 3x1. The last block of the graph pools by maximum."""

    def __init__(self, cin: int, pool_by_maximum: bool = False) -> None:
        super().__init__()
        self.pool_by_maximum = pool_by_maximum
        self.branch1x1 = ConvBN(cin, 320, 1)
        self.branch3x3_1 = ConvBN(cin, 384, 1)
        self.branch3x3_2a = ConvBN(384, 384, (1, 3))
        self.branch3x3_2b = ConvBN(384, 384, (3, 1))
        self.branch3x3dbl_1 = ConvBN(cin, 448, 1)
        self.branch3x3dbl_2 = ConvBN(448, 384, 3)
        self.branch3x3dbl_3a = ConvBN(384, 384, (1, 3))
        self.branch3x3dbl_3b = ConvBN(384, 384, (3, 1))
        self.branch_pool = ConvBN(cin, 192, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, stride=1, padding=1) if self.pool_by_maximum else average3x3(x)
        branches = (
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(pooled),
        )
        return torch.cat(branches, dim=1)
