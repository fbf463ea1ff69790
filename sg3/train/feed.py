"""Real images for the loop: an endless stream of batches that starts at any image of the run."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from sg3.data.dataset import ImageFolderDataset
from sg3.data.sampler import InfiniteSampler
from sg3.errors import Sg3Error

Item = tuple[np.ndarray, np.ndarray]


def real_batches(
    dataset: ImageFolderDataset, *, batch: int, seed: int, start: int, workers: int, pin_memory: bool
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of (uint8 images [batch, C, R, R], float32 labels [batch, label_dim]) from global image `start` on.

    A broken image raises its own one-line DataError here, in the main process, whichever worker met it.
    """
    loader = DataLoader(
        _Guarded(dataset),
        batch_size=batch,
        sampler=InfiniteSampler(len(dataset), seed, start=start),
        collate_fn=_collate,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_ignore_stop_signals if workers else None,
        prefetch_factor=2 if workers else None,
    )
    for item in loader:
        if isinstance(item, Sg3Error):
            raise item
        yield item


class _Guarded(Dataset[Item | Sg3Error]):
    """Hands errors over as items: the loader would bury them under the worker's traceback."""

    def __init__(self, dataset: ImageFolderDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Item | Sg3Error:
        try:
            return self.dataset[index]
        except Sg3Error as error:
            return error


def _collate(items: list[Item | Sg3Error]) -> tuple[torch.Tensor, torch.Tensor] | Sg3Error:
    images, labels = [], []
    for item in items:
        if isinstance(item, Sg3Error):
            return item
        images.append(item[0])
        labels.append(item[1])
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))


def _ignore_stop_signals(_worker: int) -> None:
    """Ctrl-C, `timeout` and job schedulers signal the whole process group; the main process decides what it means."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
