"""The frozen networks that metrics and projection look through, opened from the files that people have.

    open_detector -> find the file (folder, $SG3_DETECTORS, package or download) -> check -> read tensors -> fill

Files are read, never executed: state dicts with torch's weights-only loader, TorchScript archives and NVIDIA's pickles
with our own readers. What the content is decides how it is read, the name only helps to find it.
"""

from __future__ import annotations

import importlib.util
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, overload

import torch
from torch import nn

from sg3.errors import DataError, MissingInputError, Sg3Error, StorageError, UsageError
from sg3.formats.digest import sha256_of
from sg3.formats.pickle_values import Record, read_pickle
from sg3.formats.safe_pickle import Call
from sg3.formats.torch_file import LEGACY_TORCH, read_chosen
from sg3.formats.torchscript import ZIP_START, is_torchscript, read_torchscript
from sg3.models.features import LPIPS, VGG16, EfficientNetLite, InceptionV3, efficientnet_lite, vgg16, weights
from sg3.terminal import printable

FOLDER_VARIABLE = "SG3_DETECTORS"
HEADS = "weights-vgg16-lpips.pth"  # torch-fidelity's name for LPIPS's linear layers
HEADS_IN_PACKAGE = Path("weights", "v0.1", "vgg.pth")
CPU_BATCH = 4  # EfficientNet-Lite0 on one core: 60 images/s in fours, 19 in batches of 32


@dataclass(frozen=True)
class Source:
    """Where a network's weights come from: names of files, best first, and the address that one of them has."""

    files: tuple[str, ...]
    url: str | None


SOURCES = {
    "inception": Source(
        (
            "pt_inception-2015-12-05-6726825d.pth",  # pytorch-fid
            "weights-inception-2015-12-05-6726825d.pth",  # torch-fidelity, the same file
            "inception-2015-12-05.pt",  # NVIDIA, StyleGAN2-ADA
            "inception-2015-12-05.pkl",  # NVIDIA, StyleGAN3
        ),
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    ),
    "vgg16": Source(
        ("vgg16.pt", "vgg16.pkl", "vgg16-397923af.pth"),  # NVIDIA twice, torchvision
        "https://download.pytorch.org/models/vgg16-397923af.pth",
    ),
    "efflite": Source((efficientnet_lite.LITE0.file,), None),
    "lite1": Source((efficientnet_lite.LITE1.file,), None),
}
LITES = {"efflite": efficientnet_lite.LITE0, "lite1": efficientnet_lite.LITE1}


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
        with exact_convolutions():
            return self.network(prepare(images, self.device))

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
        with exact_convolutions():
            return self.network(prepare(images, self.device))

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
        with exact_convolutions():
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
        pixels = prepare(images, self.device)
        parts = pixels.split(CPU_BATCH) if self.device.type == "cpu" else (pixels,)
        with exact_convolutions():
            return torch.cat([self.network(part) for part in parts])

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps with 24, 40, 112 and 320 channels at strides 4, 8, 16 and 32. Images keep their size."""
        with exact_convolutions():
            return self.network.maps(prepare(images, self.device))


@overload
def open_detector(
    name: Literal["inception"], device: torch.device | str = ..., folder: Path | None = ...
) -> InceptionDetector: ...
@overload
def open_detector(
    name: Literal["vgg16"], device: torch.device | str = ..., folder: Path | None = ...
) -> Vgg16Detector: ...
@overload
def open_detector(
    name: Literal["efflite", "lite1"], device: torch.device | str = ..., folder: Path | None = ...
) -> EffliteDetector: ...
@overload
def open_detector(name: str, device: torch.device | str = ..., folder: Path | None = ...) -> Detector: ...
def open_detector(name: str, device: torch.device | str = "cpu", folder: Path | None = None) -> Detector:
    """A detector by its name: `inception`, `vgg16`, `efflite` or `lite1`.

    Its file is looked for in `folder`, then in the folder that `$SG3_DETECTORS` names. If it is in neither, efflite and
    lite1 come from their PyPI packages, the others are downloaded once (Inception-v3 as pytorch-fid publishes it, VGG16
    as torchvision does; LPIPS heads then come from the package `lpips`).

    Raises UsageError for another name, MissingInputError if there is no file, DataError if it is not what its name
    says, StorageError if it cannot be read.
    """
    if name not in SOURCES:
        raise UsageError(f"detector {printable(name)}: unknown, choose from {', '.join(SOURCES)}")
    path = find_file(name, folder)
    device = torch.device(device)
    if name in LITES:
        lite = efficientnet_lite.load_efficientnet_lite(LITES[name], path)
        place(lite, device)
        return EffliteDetector(lite, lite.variant.sha256, device, name)
    digest = checked_hash(path)
    tensors = read_tensors(path)
    with torch.device("meta"):  # no random weights: they cost time, and the caller's random numbers
        network = InceptionV3() if name == "inception" else VGG16()
    weights.fill(network, tensors, str(path))
    place(network, device)
    if isinstance(network, InceptionV3):
        return InceptionDetector(network, digest, device)
    heads = find_heads(path, tensors, network.widths)
    perceptual = LPIPS(network, heads).to(device).eval() if heads else None
    return Vgg16Detector(network, perceptual, digest, device)


def prepare(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """[N, 1 or 3, H, W], uint8 or floating point -> float32 [N, 3, H, W] on the device. Raises UsageError."""
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
        raise UsageError(f"detectors take images [N, 1 or 3, H, W], not {list(images.shape)}")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise UsageError(f"detectors take images of uint8 or floating point, not {images.dtype}")
    pixels = images.to(device).float().expand(-1, 3, -1, -1)
    return pixels.contiguous(memory_format=torch.channels_last) if device.type == "cpu" else pixels


def place(network: nn.Module, device: torch.device) -> None:
    """Move a network to its device. On the CPU its kernels are laid out channels last, as `prepare` lays out images."""
    network.to(device)
    if device.type == "cpu":
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Plain float32 also where cuDNN would round to TF32: published numbers were made that way."""
    cudnn = torch.backends.cudnn
    with cudnn.flags(
        enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
    ):
        yield


# ---- finding files


def find_file(name: str, folder: Path | None) -> Path:
    """The weights of a detector. Raises MissingInputError."""
    source = SOURCES[name]
    if (path := _in_folders(source, folder)) is not None:
        return path
    if source.url is None:
        return efficientnet_lite.package_file(LITES[name])
    from sg3.formats.download import fetch

    try:
        return fetch(source.url)
    except Sg3Error as error:
        raise MissingInputError(
            f"{name}: no weights; put one of {', '.join(source.files)} into a folder and name it with --detector-dir "
            f"or {FOLDER_VARIABLE} ({error})"
        ) from error


def is_to_be_downloaded(name: str, folder: Path | None) -> bool:
    """Whether `find_file` would download the weights. Raises MissingInputError for a folder that is not there."""
    from sg3.formats.download import is_kept

    source = SOURCES[name]
    return _in_folders(source, folder) is None and source.url is not None and not is_kept(source.url)


def _in_folders(source: Source, folder: Path | None) -> Path | None:
    for place in [Path(place) for place in (folder, os.environ.get(FOLDER_VARIABLE)) if place]:
        if not place.is_dir():
            raise MissingInputError(f"{place}: there is no such folder (of detectors)")
        for file in source.files:
            if (place / file).is_file():
                return place / file
    return None


def find_heads(path: Path, tensors: weights.Tensors, widths: tuple[int, ...]) -> list[torch.Tensor] | None:
    """LPIPS's linear layers: among the tensors, in the file beside them, in the package `lpips`; else None."""
    if heads := weights.lpips_heads(widths, tensors, str(path)):
        return heads
    candidates = [path.with_name(HEADS)]
    if variable := os.environ.get(FOLDER_VARIABLE):
        candidates.append(Path(variable) / HEADS)
    package = importlib.util.find_spec("lpips")  # found, not imported: it would want torchvision
    for place in (package.submodule_search_locations or ()) if package else ():
        candidates.append(Path(place) / HEADS_IN_PACKAGE)
    for candidate in candidates:
        if candidate.is_file():
            return weights.lpips_heads(widths, read_tensors(candidate), str(candidate))
    return None


def checked_hash(path: Path) -> str:
    """The file's sha256. A name that ends in `-1234abcd.pth` says how it begins. Raises DataError, StorageError."""
    digest = sha256_of(path)
    promised = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
    if promised and not digest.startswith(promised[1]):
        raise DataError(f"{path}: is damaged: its sha256 begins with {digest[:8]}, its name says {promised[1]}")
    return digest


# ---- reading files


def read_tensors(path: Path) -> weights.Tensors:
    """The tensors of a state dict, a TorchScript archive or one of NVIDIA's pickles, by name, in the file's order.

    Raises DataError if it is none of these, StorageError if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
            if head.startswith(ZIP_START) and is_torchscript(file):
                return read_torchscript(file, str(path))
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error
    if head.startswith((ZIP_START, LEGACY_TORCH)):
        return _state_dict(path)
    if head[:1] == b"\x80":
        return _from_pickle(path)
    raise DataError(f"{path}: is neither a state dict nor a TorchScript archive nor a pickle")


def _state_dict(path: Path) -> weights.Tensors:
    def tensors(content: Any) -> dict[str, Any]:
        if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
            raise DataError(f"{path}: holds one {type(content).__name__}, expected a state dict")
        return {name: value for name, value in content.items() if isinstance(value, Call)}

    values = read_chosen(path, tensors)
    return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}


def _from_pickle(path: Path) -> weights.Tensors:
    """A pickle of the original's objects: tensors in its tree of records, or a TorchScript archive as bytes.

    Which of the two NVIDIA's files are is not known here; a file with both counts as an archive.
    """
    content = read_pickle(path)
    tensors: weights.Tensors = {}
    archives: list[bytes] = []
    for place, value in _leaves(content):
        if isinstance(value, torch.Tensor):
            tensors[place] = value
        elif isinstance(value, bytes) and value.startswith(ZIP_START):
            archives.append(value)
    if archives:
        return read_torchscript(io.BytesIO(max(archives, key=len)), str(path))
    if not tensors:
        what = content.class_name if isinstance(content, Record) else type(content).__name__
        raise DataError(f"{path}: holds one {printable(what)} without tensors or a TorchScript archive in it")
    return tensors


def _leaves(item: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every value in a tree of records and containers, by its place; a module's inner dictionaries are passed over."""
    if isinstance(item, Record):
        item = item.state
    if isinstance(item, dict):
        for name, entry in item.items():
            inner = path if name in ("_parameters", "_buffers", "_modules") else (*path, name)
            yield from _leaves(entry, inner)
    elif isinstance(item, (list, tuple)):
        for number, entry in enumerate(item):
            yield from _leaves(entry, (*path, str(number)))
    else:
        yield ".".join(path), item
