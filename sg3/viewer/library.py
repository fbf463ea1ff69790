"""Networks that are open: read by the safe loader when first asked for, and again when the file has changed."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch

from sg3.errors import MissingInputError
from sg3.formats import averaged_generator, load
from sg3.viewer.catalogue import Catalogue, newest
from sg3.viewer.pictures import Painter
from sg3.viewer.shelf import Shelf

MOST_OPEN = 3


class Library:
    """For the network's thread alone."""

    def __init__(self, catalogue: Catalogue, device: torch.device, shelf: Shelf) -> None:
        self.catalogue = catalogue
        self.device = device
        self.shelf = shelf
        self._open: OrderedDict[tuple[str, int, int], Painter] = OrderedDict()

    def painter(self, name: str) -> Painter:
        """The network of that name. Raises MissingInputError, and what `load` raises."""
        entry = self.catalogue.find(name)
        path = newest(entry)
        key = _version(path, entry.name)
        if key not in self._open:
            while len(self._open) >= MOST_OPEN:
                self._open.popitem(last=False)[1].forget()
            self._open[key] = Painter(averaged_generator(load(path, self.device), entry.name), self.shelf)
        self._open.move_to_end(key)
        return self._open[key]

    def forget(self) -> None:
        """Free what memory there is to free: another picture may then fit."""
        for painter in self._open.values():
            painter.forget()
        while len(self._open) > 1:
            self._open.popitem(last=False)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _version(path: Path, name: str) -> tuple[str, int, int]:
    """The file as it is now: a run may write another one of that name."""
    try:
        status = path.stat()
    except OSError:
        raise MissingInputError(f"network={name}: the file is gone; see api/networks") from None
    return str(path), status.st_mtime_ns, status.st_size
