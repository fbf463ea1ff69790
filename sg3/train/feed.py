"""Real images for the loop: an endless stream of batches that starts at any image of the run."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Generator
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from sg3.data.dataset import ImageFolderDataset
from sg3.data.loader_signals import LoaderSignals
from sg3.data.sampler import InfiniteSampler
from sg3.errors import DataError, Sg3Error

Batch = tuple[torch.Tensor, torch.Tensor]  # uint8 images [N, C, R, R], float32 labels [N, label_dim]
HUNG_SECONDS = 2.0  # that a loader's process may take to end, before it is ended
MOST_UNREADABLE = 100  # images in a row, after which the data set, not an image, is broken


def real_batches(
    dataset: ImageFolderDataset,
    *,
    batch: int,
    seed: int,
    start: int,
    workers: int,
    pin_memory: bool,
    rank: int = 0,
    ranks: int = 1,
    on_error: str = "fail",
    warn: Callable[[str], None] = lambda _: None,
) -> Generator[Batch, None, None]:
    """A rank's batches of `batch` images each, from global image `start` on, without end. Close it to
    end the loader's processes.

    A broken image raises its own one-line DataError here, in the main process, whichever worker met it. With
    `on_error` 'skip' the next readable image of the data set takes its place, and `warn` gets that line, once an image.
    """
    signals = LoaderSignals()
    loader = DataLoader(
        _Guarded(dataset, skip=on_error == "skip"),
        batch_size=batch,
        sampler=InfiniteSampler(len(dataset), seed, start, rank, ranks, block=batch),
        collate_fn=_collate,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=signals if workers else None,
        prefetch_factor=2 if workers else None,
    )
    known: set[str] = set()
    others = set(multiprocessing.active_children())
    items = iter(loader)
    processes = set(multiprocessing.active_children()) - others
    try:
        try:
            for item in items:
                if isinstance(item, Sg3Error):
                    raise item
                images, labels, skipped = item
                for line in sorted(set(skipped) - known):
                    warn(f"warning: {line}; another image takes its place (--on-error=skip)")
                known.update(skipped)
                yield images, labels
        finally:
            signals.over()
            last_resort = threading.Timer(HUNG_SECONDS, _end_all, [processes])
            try:
                last_resort.start()
            finally:
                del items  # ends the processes, and waits for them
                last_resort.cancel()
    # PyTorch raises a RuntimeError when it hears of a dead process, be it in `finally`; the others come where an image
    # was being handed over.
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        cause = (str(error) or type(error).__name__).splitlines()[0]
        error.__traceback__ = None  # which knows the loader, whose processes would stay as long as it
        raise Sg3Error(
            f"a process that loads images has ended ({cause}): out of memory, or of shared memory "
            "(/dev/shm; docker run --shm-size); fewer --workers need less, continue from the last state"
        ) from error


class _Guarded(Dataset[Any]):
    """Items (image, label, errors of images passed over). An error that ends the run is handed over as an item, too:
    the loader would bury it under the worker's traceback."""

    def __init__(self, dataset: ImageFolderDataset, skip: bool) -> None:
        self.dataset = dataset
        self.skip = skip

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, list[str]] | Sg3Error:
        try:
            return read_item(self.dataset, index, self.skip)
        except Sg3Error as error:
            return error


def read_item(
    dataset: ImageFolderDataset, index: int, skip: bool
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """An item's image and label. With `skip` those of the next readable item, and the errors of the ones before it.

    Raises DataError for an image that cannot be read, or with `skip` for many in a row, and StorageError.
    """
    skipped: list[str] = []
    for step in range(min(MOST_UNREADABLE, len(dataset))):
        try:
            return *dataset[(index + step) % len(dataset)], skipped
        except DataError as error:
            if not skip:
                raise
            skipped.append(str(error))
    raise DataError(f"{len(skipped)} images in a row cannot be read, the last one: {skipped[-1]}")


def _collate(
    items: list[tuple[np.ndarray, np.ndarray, list[str]] | Sg3Error],
) -> tuple[torch.Tensor, torch.Tensor, list[str]] | Sg3Error:
    images, labels, skipped = [], [], []
    for item in items:
        if isinstance(item, Sg3Error):
            return item
        images.append(item[0])
        labels.append(item[1])
        skipped += item[2]
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels)), skipped


def _end_all(processes: set[BaseProcess]) -> None:
    """End those that hang, in a read from a disk that does not answer. The main process would wait for them."""
    for process in processes:
        process.terminate()
