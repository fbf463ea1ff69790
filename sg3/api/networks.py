"""What functions take for a network: a name, a file, a run, or one that is in memory."""

from __future__ import annotations

import os

import torch

from sg3.canvas import Size, shown_part
from sg3.formats import Snapshot, averaged_generator, load, name_of
from sg3.formats.snapshot import visible_part
from sg3.models import Generator

# A run folder (its newest snapshot), a file, an address, a published network's short name, `sg3.load`'s result, `G`.
Network = str | os.PathLike[str] | Snapshot | Generator
IN_MEMORY = ", what sg3.load returned, or a generator"  # in messages, after the names


def generator_of(network: Network, device: torch.device) -> Generator:
    """The averaged generator on the device; one that is in memory stays where it is and is not changed.

    Raises what `sg3.load` raises, UsageError for something else, DataError for a file or snapshot without one.
    """
    return framed(network, device)[0]


def framed(network: Network, device: torch.device) -> tuple[Generator, Size | None]:
    """The same, and height and width of what lies between black bars; None if its file says nothing of any."""
    if isinstance(network, Generator):
        return network, None
    if isinstance(network, Snapshot):
        snapshot, where = network, "the snapshot"
    else:
        where = name_of(network, IN_MEMORY)
        snapshot = load(where, device)
    G = averaged_generator(snapshot, where)
    return G, shown_part(G, visible_part(snapshot))
