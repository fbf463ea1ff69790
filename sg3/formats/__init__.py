"""Reading and writing network files: `load` and `save`.

    load -> a folder? an address? -> by content: pickle       -> tensorflow or official      save -> by suffix
                                                 torch.save   -> mmagic or rosinality
                                                 safetensors  -> safetensors_file

A format is a module that turns a file into a `Snapshot`; `networks.build` makes the networks for all of them.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from sg3.canvas import Size, is_canvas, size_of, spelled
from sg3.errors import DataError, MissingInputError, StorageError, UsageError
from sg3.formats import (
    mmagic,
    networks,
    official,
    official_write,
    rosinality,
    safetensors_file,
    tensorflow,
    torch_file,
)
from sg3.formats.pickle_values import read_pickle
from sg3.formats.snapshot import Snapshot, averaged_generator, style_generator
from sg3.formats.torch_file import LEGACY_TORCH
from sg3.named_paths import Kind, to_write
from sg3.plain_files import refuse_special
from sg3.published import is_remote, published_url, require_there
from sg3.run_folder import going_on, newest_snapshot
from sg3.terminal import printable

__all__ = [
    "ChannelOrder", "Snapshot", "averaged_generator", "fetch_remote", "is_remote", "load", "name_of", "save",
    "style_generator",
]  # fmt: skip

ChannelOrder = Literal["auto", "rgb", "bgr"]
READS = (
    "official StyleGAN3, StyleGAN2 and StyleGAN2-ADA .pkl snapshots (TensorFlow's, too), those of Projected GAN, "
    "FastGAN and R3GAN, mmagic .pth, rosinality .pt and its own .safetensors"
)
WRITES = {".pkl": official_write.write, ".safetensors": safetensors_file.write, ".pt": rosinality.write}
KNOWS_CANVAS = ".safetensors"  # the one format with a place for images that are no squares of 2^n
LOOKS = (  # first bytes -> what kind of file it is
    (b"", "an empty file"),
    (b"\x1f\x8b", "gzip-compressed"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89HDF", "an HDF5 file"),
    (b"version https://git-lfs", "a git-lfs pointer; fetch the file itself with 'git lfs pull'"),
    (b"<", "a web page; the download failed"),
)


def load(
    path_or_url: str | Path, device: torch.device | str = "cpu", channel_order: ChannelOrder = "auto"
) -> Snapshot:
    """Read a network file without executing anything in it.

    `path_or_url` is a file (recognised by its content, whatever its name), a run folder, which stands for its newest
    network snapshot, an address (http://, https://, file://, hf://OWNER/NAME), or the short name of a published
    network, such as stylegan3-r-afhqv2-512x512 (`sg3 list`). `channel_order` is the order of colours inside the file;
    `auto` is rgb, but for mmagic's files, see `mmagic`. The networks come in eval mode, without gradients, on `device`,
    for images in the order red, green, blue.

    Raises MissingInputError if there is no such file, DataError if it is damaged or of an unknown format,
    StorageError if it cannot be read or downloaded, UsageError for another channel_order.
    """
    if channel_order not in ("auto", "rgb", "bgr"):
        raise UsageError(f"channel_order: got {channel_order!r}, expected auto, rgb or bgr")
    source, place = name_of(path_or_url), _place(device)
    try:
        path = _local_path(source)
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise StorageError(f"{printable(source)}: cannot be read: {error.strerror or error}") from error
    snapshot, usual_order = _read(path)
    if Path(source).is_dir() and (note := going_on(path)):
        snapshot.notes.append(note)
    is_bgr = "bgr" in (channel_order, usual_order if channel_order == "auto" else "rgb")
    for slot in ("G", "D", "G_ema", "augment_pipe"):
        network = getattr(snapshot, slot)
        if network is None:
            continue
        if is_bgr and slot != "augment_pipe" and (channel_order == "bgr" or network.img_channels == 3):
            networks.reverse_colours(network, f"{path}: {slot}")
        networks.frozen(network, place)
    return snapshot


def name_of(network: object, also: str = "") -> str:
    """The name of a run, file or published network, or its address. Raises UsageError for what can be none; `also` is
    what else is expected there."""
    if isinstance(network, (str, os.PathLike)):
        name = os.fspath(network)
        if isinstance(name, str) and name and "\0" not in name:
            return name
    is_text = isinstance(network, (str, bytes, os.PathLike))
    what = printable(repr(network), limit=60) if is_text else type(network).__name__
    raise UsageError(f"network: got {what}, expected a run, a file, an address, a published network's name{also}")


def _place(device: torch.device | str) -> torch.device:
    """Raises UsageError for one that is not there."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, TypeError, ValueError, AssertionError, NotImplementedError) as error:
        cause = printable(str(error).partition("\n")[0], limit=120)
        raise UsageError(f"device={printable(device)}: {cause}; expected cpu or cuda, see `sg3 doctor`") from None


def save(snapshot: Snapshot, path: str | Path) -> None:
    """Write a network file in the format of its suffix.

    `.pkl` is the official format, readable where sg3 is installed; `.safetensors` has everything that sg3 knows about
    a snapshot; `.pt` is rosinality's, for StyleGAN2 without labels. Networks for images that are not square need
    .safetensors.

    The file appears whole or not at all. Raises UsageError for another suffix or a network that the format has no
    place for, MissingInputError if the folder does not exist, StorageError if writing fails.
    """
    if not isinstance(snapshot, Snapshot):
        raise UsageError(f"save: got {type(snapshot).__name__}, expected a snapshot such as sg3.Snapshot(G_ema=G)")
    if not isinstance(path, (str, os.PathLike)):
        raise UsageError(f"save: got {type(path).__name__} for the path, expected the name of a file")
    if is_remote(path):
        raise UsageError(f"save: {printable(path)} is an address; save a file, and sg3.push uploads it")
    path = to_write(path, Kind.FILE)
    if path.suffix not in WRITES:
        kinds = ", ".join(WRITES)
        raise UsageError(f"{path}: sg3 writes {kinds} files, not {path.suffix or 'files without a suffix'}")
    if snapshot.G is None and snapshot.D is None and snapshot.G_ema is None:
        raise UsageError(f"{path}: nothing to save: the snapshot has neither G nor D nor G_ema")
    if getattr(snapshot.D, "has_own_features", False):
        raise UsageError(f"{path}: D looks through a feature network of its own, which no file has a place for")
    if path.suffix != KNOWS_CANVAS:
        _check_square(snapshot, path)
    if not path.parent.is_dir():
        raise MissingInputError(f"{path.parent}: there is no such folder")
    WRITES[path.suffix](snapshot, path)


def _check_square(snapshot: Snapshot, path: Path) -> None:
    """Raises UsageError for networks of another canvas than the square of their img_resolution."""
    for slot in ("G_ema", "G", "D"):
        network = getattr(snapshot, slot)
        if network is not None and is_canvas(network):
            raise UsageError(
                f"{path}: {slot} is for images of {spelled(size_of(network))}, and {path.suffix} files have a place "
                f"for {_what_others_read(size_of(network))}; write {KNOWS_CANVAS}"
            )


def _what_others_read(size: Size) -> str:
    if size[0] != size[1]:
        return "one side only, which the programs that read them take for a square's"
    return "a side only, which the programs that read them take for a power of two"


def fetch_remote(source: str | Path) -> Path:
    """The local copy of what `is_remote`. Raises what `fetch` and `fetch_from_hub` raise."""
    from sg3.formats.download import fetch
    from sg3.formats.hub import SCHEME, fetch_from_hub

    name = str(source)
    return fetch_from_hub(name) if name.startswith(SCHEME) else fetch(published_url(name) or name)


def _local_path(source: str | Path) -> Path:
    """The file itself, after downloading it or choosing it from a run folder."""
    if is_remote(source):
        return fetch_remote(source)
    require_there(source)
    path = Path(source)
    if path.is_dir():
        path = newest_snapshot(path)
    refuse_special(path)
    return path


def _read(path: Path) -> tuple[Snapshot, Literal["rgb", "bgr"]]:
    """The snapshot in a file, by its first bytes and then by its structure, and the order of colours that such files
    usually have."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error
    if head.startswith((b"PK\x03\x04", LEGACY_TORCH)):
        snapshot = _read_torch(path)
        return snapshot, mmagic.usual_order(path) if snapshot.origin in mmagic.ORIGINS else "rgb"
    if len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5:  # a pickle of protocol 2 or later
        content = read_pickle(path)
        if tensorflow.recognises(content):
            return tensorflow.interpret(content, path), "rgb"
        return official.interpret(content, path), "rgb"
    if safetensors_file.looks_like(head):
        return safetensors_file.read(path), "rgb"
    raise DataError(f"{path}: looks like {_describe(head)}; sg3 reads {READS}")


def _read_torch(path: Path) -> Snapshot:
    try:
        content = torch_file.read_torch_file(path, ("state_dict", *rosinality.ENTRIES))
    except DataError:
        networks_in_it = _whole_networks(path)
        if networks_in_it is None:
            raise
        return networks_in_it
    if "state_dict" not in content and any(slot in content for slot in rosinality.SLOTS):
        return rosinality.interpret(content, path)
    state = rosinality.without_encoder(torch_file.state_dict(content.get("state_dict", content), str(path)))
    names = set(state)
    if mmagic.recognises(names):
        return mmagic.interpret(state, path)
    if slot := rosinality.recognises(names):
        return rosinality.interpret({slot: state, "latent_avg": content.get("latent_avg")}, path)
    raise DataError(f"{path}: holds weights, but of no network that sg3 knows; sg3 reads {READS}")


def _whole_networks(path: Path) -> Snapshot | None:
    """The snapshot in a torch.save file of networks rather than weights; None if it is no such file."""
    try:
        content = torch_file.read_torch_networks(path, (*official.SLOTS, "augment_pipe", "training_set_kwargs"))
    except DataError:
        return None
    if not official.is_of_networks(content):
        return None
    snapshot = official.interpret(content, path)
    return replace(snapshot, origin="whole networks in a torch.save file")


def _describe(head: bytes) -> str:
    for start, name in LOOKS:
        if head.startswith(start) and bool(start) == bool(head):
            return name
    return "no kind of network file"
