"""The frozen networks that metrics and projection look through, opened from the files that people have.

    open_detector -> find the file (named, or in a folder, $SG3_DETECTORS, a package, a download) -> check -> read
    tensors (detector_files) -> fill
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, overload

import torch
from torch import nn

from sg3.errors import DataError, MissingInputError, UsageError
from sg3.metrics.detector_files import HEADS, LITES, SOURCES, checked_hash, find_file, find_heads, read_tensors
from sg3.models.features import (
    LPIPS,
    VGG16,
    DinoV2,
    EfficientNetLite,
    InceptionV3,
    dinov2,
    efficientnet_lite,
    vgg16,
    weights,
)
from sg3.models.features.resize import resize_bicubic
from sg3.terminal import printable

# Images that a network sees at a time on a CPU. On one core EfficientNet-Lite0 takes 60 images/s in fours, 19 in
# batches of 32, Inception-v3 1.1 times as many. And several threads together need no more memory than a batch would.
CPU_BATCH = 4
DINOV2S = {"dinov2": dinov2.LARGE, "dinov2b": dinov2.BASE}


class Detector(Protocol):
    """A frozen network that turns images into feature vectors.

    Images are [N, C, H, W], uint8 or floating point with values 0..255, with 3 channels or with 1, which is repeated.
    They are moved to the detector's device; uint8 is the form in which the published metrics see images. Gradients
    flow back to floating-point images that ask for them.
    """

    @property
    def name(self) -> str:
        """One of SOURCES."""

    @property
    def sha256(self) -> str:
        """Of the file that the weights come from, for the record of a metric."""

    @property
    def dim(self) -> int:
        """Length of a feature vector."""

    @property
    def resize(self) -> str | None:
        """For the record: to which size it brings images, and how; None if they keep theirs."""

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Feature vectors [N, dim], float32."""


@dataclass(frozen=True)
class InceptionDetector:
    """Inception-v3 of 2015-12-05: FID and KID compare its features, the Inception Score its probabilities."""

    network: InceptionV3
    sha256: str
    device: torch.device
    name: str = field(default="inception", init=False)
    dim: int = field(default=2048, init=False)
    resize: str = field(default="299x299 bilinear of TensorFlow 1", init=False)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """What the last pooling gives, [N, 2048]."""
        with exact_convolutions(self.device):
            return in_parts(lambda part: self.network(prepare(part, self.device)), images, self.device)

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        """Of the 1008 classes, [N, 1008]; the output bias is left out, as the published Inception Score does."""
        return self.probabilities_from(self.features(images))

    def probabilities_from(self, features: torch.Tensor) -> torch.Tensor:
        """The same from features that are there already."""
        return self.network.logits(features.to(self.device), output_bias=False).softmax(dim=1)


@dataclass(frozen=True)
class Vgg16Detector:
    """VGG16: precision and recall compare its features, PPL and projection its LPIPS vectors."""

    network: VGG16
    perceptual: LPIPS | None
    sha256: str
    device: torch.device
    name: str = field(default="vgg16", init=False)
    dim: int = field(default=4096, init=False)
    resize: str = field(default="224x224 bilinear of TensorFlow 1", init=False)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """The second hidden layer's outputs, [N, 4096], of the images resized to 224 x 224."""
        with exact_convolutions(self.device):
            return in_parts(lambda part: self.network(prepare(part, self.device)), images, self.device)

    def lpips(self, images: torch.Tensor) -> torch.Tensor:
        """Vectors [N, 117.5 H W] whose squared distance is LPIPS. Images keep their size, at least 16 x 16.

        Raises MissingInputError if the weights came without LPIPS heads, UsageError for smaller images.
        """
        if self.perceptual is None:
            raise MissingInputError(
                f"vgg16: LPIPS needs its linear layers, which come with NVIDIA's vgg16 files; put {HEADS} beside the "
                "weights or install them with: pip install --no-deps lpips"
            )
        pixels = prepare(images, self.device)
        if min(pixels.shape[2:]) < vgg16.SMALLEST:
            size = f"{pixels.shape[2]} x {pixels.shape[3]}"
            raise UsageError(f"vgg16: LPIPS needs images of at least {vgg16.SMALLEST} x {vgg16.SMALLEST}, not {size}")
        with exact_convolutions(self.device):
            return self.perceptual(pixels)


@dataclass(frozen=True)
class EffliteDetector:
    """EfficientNet-Lite0, or its larger relative Lite1, which no recipe trains against unless told to: ImageNet
    features without a download. Distances of one are comparable neither with FID nor with those of the other."""

    network: EfficientNetLite
    sha256: str
    device: torch.device
    name: str = "efflite"
    dim: int = field(default=efficientnet_lite.FEATURES, init=False)

    @property
    def resize(self) -> str:
        """For the record."""
        return f"{self.network.variant.resolution}x{self.network.variant.resolution} bilinear, antialiased"

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """What the last pooling gives, [N, 1280], of the images resized to 224 x 224, or 240 x 240."""
        with exact_convolutions(self.device):
            return in_parts(lambda part: self.network(prepare(part, self.device)), images, self.device)

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps with 24, 40, 112 and 320 channels at strides 4, 8, 16 and 32. Images keep their size."""
        with exact_convolutions(self.device):
            return self.network.maps(prepare(images, self.device))


@dataclass(frozen=True)
class Dinov2Detector:
    """DINOv2's ViT-L/14 (`dinov2`) or its smaller relative ViT-B/14 (`dinov2b`), which are not comparable."""

    network: DinoV2
    sha256: str
    device: torch.device
    name: str = "dinov2"
    resize: str = field(default="224x224 bicubic of Pillow, rounded", init=False)

    @property
    def dim(self) -> int:
        """1024 or 768."""
        return self.network.variant.width

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """The class token after the last normalisation, [N, dim], of the images stretched to 224 x 224."""
        check_images(images)

        def look(part: torch.Tensor) -> torch.Tensor:
            pixels = part if part.dtype == torch.uint8 else part.to(self.device, torch.float32)
            pixels = prepare(resize_bicubic(pixels, dinov2.RESOLUTION, dinov2.RESOLUTION), self.device)
            return self.network(pixels, resize_images=False)

        with exact_convolutions(self.device):
            return in_parts(look, images, self.device)


@overload
def open_detector(
    name: Literal["inception"], device: torch.device | str = ..., folder: Path | None = ...,
    source: str | None = ...,
) -> InceptionDetector: ...
@overload
def open_detector(
    name: Literal["vgg16"], device: torch.device | str = ..., folder: Path | None = ...,
    source: str | None = ...,
) -> Vgg16Detector: ...
@overload
def open_detector(
    name: Literal["efflite", "lite1"], device: torch.device | str = ..., folder: Path | None = ...,
    source: str | None = ...,
) -> EffliteDetector: ...
@overload
def open_detector(
    name: str, device: torch.device | str = ..., folder: Path | None = ..., source: str | None = ...
) -> Detector: ...
def open_detector(
    name: str, device: torch.device | str = "cpu", folder: Path | None = None, source: str | None = None
) -> Detector:
    """A detector by its name: `inception`, `vgg16`, `efflite`, `lite1`, `dinov2` or `dinov2b`.

    Its file is what `source` names, a path or an address. Without that it is looked for in `folder`, then in the folder
    that `$SG3_DETECTORS` names. If it is in neither, efflite and lite1 come from their PyPI packages, the others are
    downloaded once (Inception-v3 as pytorch-fid publishes it, VGG16 as torchvision does, DINOv2 as its authors do;
    LPIPS heads then come from the package `lpips`).

    Raises UsageError for another name, MissingInputError if there is no file, DataError if it is not what its name
    says, StorageError if it cannot be read.
    """
    if name not in SOURCES:
        raise UsageError(f"detector {printable(name)}: unknown, choose from {', '.join(SOURCES)}")
    path = find_file(name, folder, source)
    device = torch.device(device)
    if name in LITES:
        lite = efficientnet_lite.load_efficientnet_lite(LITES[name], path)
        place(lite, device)
        return EffliteDetector(lite, lite.variant.sha256, device, name)
    digest = checked_hash(path)
    tensors = read_tensors(path)
    if name in DINOV2S and any(tensor.endswith("register_tokens") for tensor in tensors):
        raise DataError(f"{path}: is a DINOv2 with registers, whose features are others; {name} is the one without")
    network: InceptionV3 | VGG16 | DinoV2
    with torch.device("meta"):  # no random weights: they cost time, and the caller's random numbers
        if name in DINOV2S:
            network = DinoV2(DINOV2S[name])
        else:
            network = InceptionV3() if name == "inception" else VGG16()
    weights.fill(network, tensors, str(path))
    place(network, device)
    if isinstance(network, InceptionV3):
        return InceptionDetector(network, digest, device)
    if isinstance(network, DinoV2):
        return Dinov2Detector(network, digest, device, name)
    heads = find_heads(path, tensors, network.widths)
    perceptual = LPIPS(network, heads).to(device).eval() if heads else None
    return Vgg16Detector(network, perceptual, digest, device)


def prepare(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """[N, 1 or 3, H, W], uint8 or floating point -> float32 [N, 3, H, W] on the device. Raises UsageError."""
    check_images(images)
    pixels = images.to(device).float().expand(-1, 3, -1, -1)
    return pixels.contiguous(memory_format=torch.channels_last) if device.type == "cpu" else pixels


def in_parts(
    network: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, device: torch.device
) -> torch.Tensor:
    """What a network on this device makes of images [N, ...], on a CPU of `CPU_BATCH` at a time."""
    if device.type != "cpu":
        return network(images)
    return torch.cat([network(part) for part in images.split(CPU_BATCH)])


def check_images(images: torch.Tensor) -> None:
    """Raise UsageError unless they are [N, 1 or 3, H, W], uint8 or floating point."""
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
        raise UsageError(f"detectors take images [N, 1 or 3, H, W], not {list(images.shape)}")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise UsageError(f"detectors take images of uint8 or floating point, not {images.dtype}")


def place(network: nn.Module, device: torch.device) -> None:
    """Move a network to its device. On the CPU its kernels are laid out channels last, as `prepare` lays out images."""
    network.to(device)
    if device.type == "cpu":
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it


@contextmanager
def exact_convolutions(device: torch.device) -> Iterator[None]:
    """Plain float32 also where cuDNN would round to TF32: published numbers were made that way."""
    if device.type == "cpu":  # where threads look at images side by side, and the setting is everybody's
        yield
        return
    cudnn = torch.backends.cudnn
    with cudnn.flags(
        enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
    ):
        yield
