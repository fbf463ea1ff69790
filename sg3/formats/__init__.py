"""Reading and writing network files: `load` and `save`.

    load -> is it a folder? a pickle? -> official.read        save -> by suffix -> official_write.write

A format is a module that turns a file into a `Snapshot`; `networks.build` makes the networks for all of them.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from sg3.errors import DataError, MissingInputError, StorageError, UsageError
from sg3.formats import official, official_write
from sg3.formats.snapshot import Snapshot

__all__ = ["Snapshot", "load", "save"]

READS = "official StyleGAN3, StyleGAN2 and StyleGAN2-ADA .pkl snapshots"
LOOKS = (  # first bytes -> what kind of file it is
    (b"", "an empty file"),
    (b"PK\x03\x04", "a zip archive or a torch.save file"),
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "an old torch.save file"),
    (b"\x1f\x8b", "gzip-compressed"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89HDF", "an HDF5 file"),
    (b"version https://git-lfs", "a git-lfs pointer; fetch the file itself with 'git lfs pull'"),
    (b"<", "a web page; the download failed"),
)


def load(path: str | Path, device: torch.device | str = "cpu") -> Snapshot:
    """Read a network file without executing anything in it.

    `path` is a file (recognised by its content, whatever its name) or a run folder, which stands for its
    newest `network-snapshot-*.pkl`. The networks come in eval mode, without gradients, on `device`.

    Raises MissingInputError if there is no such file, DataError if it is damaged or of an unknown format,
    StorageError if it cannot be read.
    """
    if re.match("[a-z]+://", str(path)):
        raise MissingInputError(f"{path}: sg3 does not download files yet; fetch it and give its path")
    path = Path(path)
    if path.is_dir():
        path = _newest_snapshot(path)
    if not path.is_file():
        raise MissingInputError(f"{path}: there is no such file")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error
    if _is_pickle(head):
        return official.read(path, device)
    raise DataError(f"{path}: looks like {_describe(head)}; sg3 reads {READS}")


def save(snapshot: Snapshot, path: str | Path) -> None:
    """Write a network file in the format of its suffix: `.pkl`, the official one, readable where sg3 is
    installed.

    The file appears whole or not at all. Raises UsageError for another suffix or a network that is not sg3's,
    MissingInputError if the folder does not exist, StorageError if writing fails.
    """
    path = Path(path)
    if path.suffix != ".pkl":
        raise UsageError(f"{path}: sg3 writes .pkl files, not {path.suffix or 'files without a suffix'}")
    if snapshot.G is None and snapshot.D is None and snapshot.G_ema is None:
        raise UsageError(f"{path}: nothing to save: the snapshot has neither G nor D nor G_ema")
    if not path.parent.is_dir():
        raise MissingInputError(f"{path.parent}: there is no such folder")
    official_write.write(snapshot, path)


def _newest_snapshot(folder: Path) -> Path:
    """The snapshot with the highest number: file times do not survive copying."""
    numbered = []
    for path in folder.iterdir():
        if found := re.fullmatch(r"network-snapshot-(\d+)\.pkl", path.name):
            numbered.append((int(found[1]), path))
    if not numbered:
        raise MissingInputError(f"{folder}: holds no network-snapshot-*.pkl")
    return max(numbered)[1]


def _is_pickle(head: bytes) -> bool:
    """Protocol 2 or later: the only ones that network files are written in."""
    return len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5 and not head.startswith(LOOKS[2][0])


def _describe(head: bytes) -> str:
    if len(head) > 9 and head[8:9] == b"{" and head[7] == 0:
        return "a safetensors file"
    for start, name in LOOKS:
        if head.startswith(start) and bool(start) == bool(head):
            return name
    return "no kind of network file"
