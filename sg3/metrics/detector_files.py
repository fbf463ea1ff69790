"""Where the weights of frozen networks are, and how files of any kind are read: never executed.

State dicts go through torch's weights-only loader, TorchScript archives and NVIDIA's pickles through our own readers.
What the content is decides how it is read, the name only helps to find it.
"""

from __future__ import annotations

import importlib.util
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sg3.errors import DataError, MissingInputError, Sg3Error, StorageError
from sg3.formats import is_remote
from sg3.formats.digest import sha256_of
from sg3.formats.pickle_values import Record, read_pickle
from sg3.formats.safe_pickle import Call
from sg3.formats.torch_file import LEGACY_TORCH, read_chosen
from sg3.formats.torchscript import ZIP_START, is_torchscript, read_torchscript
from sg3.models.features import efficientnet_lite, weights
from sg3.named_paths import Kind, nothing_at, to_read
from sg3.terminal import printable

FOLDER_VARIABLE = "SG3_DETECTORS"
HEADS = "weights-vgg16-lpips.pth"  # torch-fidelity's name for LPIPS's linear layers
HEADS_IN_PACKAGE = Path("weights", "v0.1", "vgg.pth")


@dataclass(frozen=True)
class Published:
    """A file on the web, and what it holds by several public records that agree (none was at hand to look into)."""

    url: str
    megabytes: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """Where a network's weights come from: names of files, best first, and one of them on the web."""

    files: tuple[str, ...]
    published: Published | None


SOURCES = {
    "inception": Source(
        (
            "pt_inception-2015-12-05-6726825d.pth",  # pytorch-fid
            "weights-inception-2015-12-05-6726825d.pth",  # torch-fidelity, the same file
            "inception-2015-12-05.pt",  # NVIDIA, StyleGAN2-ADA
            "inception-2015-12-05.pkl",  # NVIDIA, StyleGAN3
        ),
        Published(
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
            "pt_inception-2015-12-05-6726825d.pth",
            96, "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        ),
    ),
    "vgg16": Source(
        ("vgg16.pt", "vgg16.pkl", "vgg16-397923af.pth"),  # NVIDIA twice, torchvision
        Published(
            "https://download.pytorch.org/models/vgg16-397923af.pth",
            553, "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        ),
    ),
    "efflite": Source((efficientnet_lite.LITE0.file,), None),
    "lite1": Source((efficientnet_lite.LITE1.file,), None),
    "dinov2": Source(
        ("dinov2_vitl14_pretrain.pth",),
        Published(
            "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
            1218, "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
        ),
    ),
    "dinov2b": Source(
        ("dinov2_vitb14_pretrain.pth",),
        Published(
            "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
            346, "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
        ),
    ),
}  # fmt: skip
LITES = {"efflite": efficientnet_lite.LITE0, "lite1": efficientnet_lite.LITE1}


# ---- finding files


def find_file(name: str, folder: Path | None, named: str | None = None) -> Path:
    """The weights of a detector: `named`, a path or an address, or what its name leads to.

    Raises MissingInputError, and DataError if what is downloaded is not the published file.
    """
    from sg3.formats.download import fetch, is_kept

    if named is not None:
        if is_remote(named):
            return fetch(named)
        file = to_read(named, Kind.FILE, name)
        if not file.exists():
            raise nothing_at(named, Kind.FILE, name)
        return file
    source = SOURCES[name]
    if (path := _in_folders(source, folder)) is not None:
        return path
    if (published := source.published) is None:
        return efficientnet_lite.package_file(LITES[name])
    try:
        # What is kept has been compared when it came; `checked_hash` reads it anyway, for the record.
        return fetch(published.url, sha256=None if is_kept(published.url) else published.sha256)
    except DataError:
        raise
    except Sg3Error as error:
        raise MissingInputError(
            f"{name}: no weights; put one of {', '.join(source.files)} into a folder and name it with --detector-dir "
            f"or {FOLDER_VARIABLE} ({error}; {published.megabytes} MB, sha256 {published.sha256})"
        ) from error


def is_to_be_downloaded(name: str, folder: Path | None) -> bool:
    """Whether `find_file` would download the weights. Raises MissingInputError for a folder that is not there."""
    from sg3.formats.download import is_kept

    source = SOURCES[name]
    published = source.published
    return _in_folders(source, folder) is None and published is not None and not is_kept(published.url)


def _in_folders(source: Source, folder: Path | None) -> Path | None:
    for said_by, named in (("--detector-dir", folder), (FOLDER_VARIABLE, os.environ.get(FOLDER_VARIABLE))):
        if not named:
            continue
        place = Path(named)
        if not place.is_dir():
            raise nothing_at(place, Kind.FOLDER, said_by)
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
