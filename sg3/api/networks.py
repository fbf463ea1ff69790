"""What functions take for a network: a name, a file, a run, or one that is in memory."""

from __future__ import annotations

import os

import torch

from sg3.canvas import Size, shown_part
from sg3.formats import Snapshot, averaged_generator, load
from sg3.formats.snapshot import visible_part
from sg3.models import Generator

# A run folder (its newest snapshot), a file, an address, a published network's short name, `sg3.load`'s result, `G`.
Network = str | os.PathLike[str] | Snapshot | Generator


def generator_of(network: Network, device: torch.device) -> Generator:
    """The averaged generator on the device; one that is in memory stays where it is and is not changed.

    Raises what `sg3.load` raises, DataError for a file or snapshot without one.
    """
    return framed(network, device)[0]


def framed(network: Network, device: torch.device) -> tuple[Generator, Size | None]:
    """The same, and height and width of what lies between black bars; None if its file says nothing of any."""
    if isinstance(network, Generator):
        return network, None
    snapshot = network if isinstance(network, Snapshot) else load(os.fspath(network), device)
    where = "the snapshot" if isinstance(network, Snapshot) else os.fspath(network)
    G = averaged_generator(snapshot, where)
    return G, shown_part(G, visible_part(snapshot))
