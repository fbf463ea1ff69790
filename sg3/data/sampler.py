"""The order in which training sees the images: endless, shuffled every epoch, a function of the seed alone.

Position i of the run is a number, not a state: a run that stopped after k images continues with `start=k`
and sees exactly what it would have seen, on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from sg3.errors import UsageError

_ORDER = int.from_bytes(b"order", "big")  # separates this use of the seed from all others


def epoch_order(seed: int, dataset_size: int, epoch: int) -> NDArray[np.int64]:
    """The permutation of 0..dataset_size-1 that epoch `epoch` (from 0) goes through, int64 [dataset_size].

    By sorting raw Philox words, because numpy keeps those for good, while `Generator.permutation` may change.
    """
    key = np.array([seed % (1 << 64), _ORDER], dtype=np.uint64)
    words = np.random.Philox(key=key, counter=[0, 0, 0, epoch]).random_raw(dataset_size)
    return np.argsort(words, kind="stable").astype(np.int64)


def sample_index(seed: int, dataset_size: int, position: int) -> int:
    """Index of the image at a position (from 0) of the order. Draws a whole epoch: for tests and tools."""
    epoch, offset = divmod(position, dataset_size)
    return int(epoch_order(seed, dataset_size, epoch)[offset])


class InfiniteSampler(Sampler[int]):
    """Yields `sample_index` of every position from `start` on, without end.

    With several replicas each step of `block * num_replicas` positions is shared out, `block` to each in turn of rank:
    whoever computes it, a block holds the same images.
    """

    def __init__(
        self, dataset_size: int, seed: int, start: int = 0, rank: int = 0, num_replicas: int = 1, block: int = 1
    ) -> None:
        if dataset_size < 1:
            raise UsageError("a dataset without images has no order")
        if start < 0 or not 0 <= rank < num_replicas or block < 1:
            raise UsageError(f"start={start}, rank={rank} of {num_replicas}, block={block}: no such place in the order")
        self.dataset_size = dataset_size
        self.seed = seed
        self.start = start
        self.rank = rank
        self.num_replicas = num_replicas
        self.block = block

    def __iter__(self) -> Iterator[int]:
        first = self.start + self.rank * self.block
        epoch, order = -1, np.empty(0, dtype=np.int64)
        while True:
            for position in range(first, first + self.block):
                now, offset = divmod(position, self.dataset_size)
                if now != epoch:
                    epoch, order = now, epoch_order(self.seed, self.dataset_size, now)
                yield int(order[offset])
            first += self.block * self.num_replicas
