"""Networks that are open: read by the safe loader when first asked for, and again when the file has changed.

A large file takes seconds. So it is read on another thread (`read`) and handed over (`keep`) to that of the networks,
which goes on with everybody's frames meanwhile.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch

from sg3.canvas import Size, shown_part
from sg3.errors import MissingInputError
from sg3.formats import averaged_generator, load
from sg3.formats.snapshot import visible_part
from sg3.models import Generator
from sg3.viewer.catalogue import Catalogue, newest
from sg3.viewer.engine import Busy
from sg3.viewer.pictures import Painter
from sg3.viewer.shelf import Shelf

MOST_OPEN = 3
Key = tuple[str, int, int]  # a file, as it was then


class Unread(Busy):
    """The network has to be read first."""

    def __init__(self, name: str) -> None:
        super().__init__(f"network={name}: is being read; try again in a moment")
        self.name = name


@dataclass(frozen=True)
class Opened:
    """A network that has been read, not yet handed over."""

    key: Key
    G: Generator
    visible: Size | None  # what lies between the black bars of its images


class Library:
    """For the networks' thread alone, but for `known` and `read`."""

    def __init__(self, catalogue: Catalogue, device: torch.device, shelf: Shelf) -> None:
        self.catalogue = catalogue
        self.device = device
        self.shelf = shelf
        self._open: OrderedDict[Key, Painter] = OrderedDict()

    def painter(self, name: str) -> Painter:
        """The network of that name. Raises Unread if it is not open, MissingInputError."""
        key, _, _ = self._find(name)
        if key not in self._open:
            raise Unread(name)
        self._open.move_to_end(key)
        return self._open[key]

    def known(self, name: str) -> Painter | None:
        """The same from any thread, to look at what stays the same of a network; None if it is not open."""
        return self._open.get(self._find(name)[0])

    def read(self, name: str) -> Opened:
        """The file of that network, on any thread. Raises MissingInputError, and what `load` raises."""
        key, path, shown = self._find(name)
        snapshot = load(path, self.device)
        G = averaged_generator(snapshot, shown)
        return Opened(key, G, shown_part(G, visible_part(snapshot)))

    def keep(self, opened: Opened) -> None:
        """Take over what has been read; the one that was not used for longest goes."""
        while len(self._open) >= MOST_OPEN:
            self._open.popitem(last=False)[1].forget()
        self._open[opened.key] = Painter(opened.G, self.shelf, opened.visible)

    def _find(self, name: str) -> tuple[Key, Path, str]:
        entry = self.catalogue.find(name)
        path = newest(entry)
        return _version(path, entry.name), path, entry.name

    def forget(self) -> None:
        """Free what memory there is to free: another picture may then fit."""
        for painter in self._open.values():
            painter.forget()
        while len(self._open) > 1:
            self._open.popitem(last=False)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _version(path: Path, name: str) -> Key:
    """The file as it is now: a run may write another one of that name."""
    try:
        status = path.stat()
    except OSError:
        raise MissingInputError(f"network={name}: the file is gone; see api/networks") from None
    return str(path), status.st_mtime_ns, status.st_size
