"""The networks that may be opened: those named at the start, and what lies in the folders that were named.

Outside of this file a network has a name, never a path: the file's own, behind that of its run or folder. A name is
looked up among those found; nothing that a client says becomes part of a path.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sg3 import run_folder
from sg3.errors import MissingInputError, Sg3Error
from sg3.terminal import printable

SUFFIXES = (".pkl", ".safetensors", ".pt", ".pth")
MOST = 2_000  # networks in one list
SECONDS = 1.0  # that a list is good for to look a name up; frames ask for one each


@dataclass(frozen=True)
class Entry:
    """A network that may be opened. `run` is its run's name; `kimg` how long it was trained, if its name says so.

    The newest of a run stands for whatever is the newest when it is opened; its `kimg` is None.
    """

    name: str
    path: Path
    run: str | None = None
    kimg: int | None = None


class Catalogue:
    """Networks by name: files and runs (`networks`), and all that lie in `folders` and in the runs in them."""

    def __init__(self, networks: list[Path], folders: list[Path]) -> None:
        self._networks = networks
        self._folders = folders
        self._listed: tuple[float, dict[str, Entry]] | None = None  # when, and what there was

    def entries(self) -> dict[str, Entry]:
        """What there is now, by name."""
        found: dict[str, Entry] = {}
        for entry in self._all():
            if len(found) >= MOST:
                break
            name, count = entry.name, 1
            while name in found and found[name].path != entry.path:
                count += 1
                name = f"{entry.name} ({count})"
            found.setdefault(name, Entry(name, entry.path, entry.run, entry.kimg))
        self._listed = time.monotonic(), found
        return found

    def find(self, name: str) -> Entry:
        """The network of that name; the first one for an empty name. Raises MissingInputError."""
        listed = self._listed
        entries = {} if listed is None or time.monotonic() - listed[0] > SECONDS else listed[1]
        entry = entries.get(name) if name else next(iter(entries.values()), None)
        if entry is not None and entry.path.exists():
            return entry
        entries = self.entries()  # it may have come since
        if not name and entries:
            return next(iter(entries.values()))
        if name not in entries:
            raise MissingInputError(f"network={printable(name)}: there is none of that name; see api/networks")
        return entries[name]

    def runs(self) -> dict[str, Path]:
        """Folders of the runs, by name."""
        return {entry.run: entry.path for entry in self.entries().values() if entry.run and entry.kimg is None}

    def _all(self) -> Iterator[Entry]:
        for path in self._networks:
            yield from _run(path, _name(path)) if path.is_dir() else [Entry(_name(path), path)]
        for folder in self._folders:
            with suppress(OSError, Sg3Error):  # gone, or not ours to read: then there is nothing in it
                yield from _inside(folder)


def newest(entry: Entry) -> Path:
    """The file of a network; of a run its newest snapshot. Raises MissingInputError if it has none."""
    if not entry.path.is_dir():
        return entry.path
    files = [path for path in run_folder.snapshots(entry.path) if _is_file(path)]
    if not files:
        raise MissingInputError(f"{entry.name}: has no snapshot yet; wait for the first one")
    return files[-1]


def public(error: Exception, catalogue: Catalogue) -> str:
    """What went wrong, in words that name no path of this machine."""
    text = " ".join(str(error).split())
    with suppress(OSError):
        for entry in catalogue.entries().values():
            text = text.replace(str(entry.path), entry.name)
            if entry.run is not None and entry.kimg is None:
                text = text.replace(f"{entry.path}{os.sep}", f"{entry.run}/")
    return " ".join(Path(word).name if _is_path(word) else word for word in text.split(" "))


def _is_path(word: str) -> bool:
    return "://" not in word and ((word.startswith("/") and word.count("/") > 1) or word[1:3] == ":\\")


def _inside(folder: Path) -> Iterator[Entry]:
    label = _name(folder)
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.suffix in SUFFIXES and _is_file(path):
            yield Entry(f"{label}/{path.name}", path)
        elif path.is_dir() and not path.is_symlink() and run_folder.is_run(path):
            yield from _run(path, path.name)


def _run(folder: Path, name: str) -> Iterator[Entry]:
    yield Entry(name, folder, run=name)
    for path in run_folder.snapshots(folder):
        if _is_file(path):
            yield Entry(f"{name}/{path.name}", path, run=name, kimg=run_folder.kimg_of(path.name))


def _is_file(path: Path) -> bool:
    """Whether this is a file itself: a link in a folder could lead anywhere."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _name(path: Path) -> str:
    return printable(path.resolve().name or "networks")
