"""What functions take for a network: a name, a file, a run, or one that is in memory."""

from __future__ import annotations

import os

import torch

from sg3.formats import Snapshot, averaged_generator, load
from sg3.models import Generator

# A run folder (its newest snapshot), a file, an address, a published network's short name, `sg3.load`'s result, `G`.
Network = str | os.PathLike[str] | Snapshot | Generator


def generator_of(network: Network, device: torch.device) -> Generator:
    """The averaged generator on the device; one that is in memory stays where it is and is not changed.

    Raises what `sg3.load` raises, DataError for a file or snapshot without one.
    """
    if isinstance(network, Generator):
        return network
    if isinstance(network, Snapshot):
        return averaged_generator(network, "the snapshot")
    return averaged_generator(load(os.fspath(network), device), os.fspath(network))
