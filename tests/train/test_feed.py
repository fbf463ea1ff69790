"""Real images for the loop: blocks for ranks, and loader processes that go away."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from itertools import islice
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch

from sg3.data.dataset import ImageFolderDataset
from sg3.errors import Sg3Error
from sg3.train.feed import real_batches


def images(discs: Path, **said) -> list[torch.Tensor]:
    arguments = {"batch": 4, "seed": 3, "start": 0, "workers": 0, "pin_memory": False, **said}
    with closing(real_batches(ImageFolderDataset(discs), **arguments)) as batches:
        return [batch[0] for batch in islice(batches, 5)]


def test_ranks_share_out_each_step(discs: Path) -> None:
    """The two ranks' halves of a step, one after the other, are the step of one rank."""
    whole = images(discs, batch=8)
    halves = [images(discs, rank=rank, ranks=2) for rank in (0, 1)]
    for step, batch in enumerate(whole):
        assert torch.equal(torch.cat([half[step] for half in halves]), batch)
    assert torch.equal(images(discs, start=16, batch=8)[0], whole[2])


def test_a_killed_loader_process_is_one_line(discs: Path) -> None:
    dataset = ImageFolderDataset(discs)
    before = set(active_children())
    with closing(real_batches(dataset, batch=2, seed=0, start=0, workers=1, pin_memory=False)) as batches:
        next(batches)
        (loader,) = set(active_children()) - before
        os.kill(loader.pid, signal.SIGKILL)
        with pytest.raises(Sg3Error, match=r"a process that loads images has ended .*--workers"):
            list(islice(batches, 10))


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()])
def test_a_loader_process_killed_while_it_hands_over_an_image(discs: Path, monkeypatch, error: Exception) -> None:
    def broken(self: object) -> object:
        raise error

    monkeypatch.setattr("torch.utils.data.dataloader._MultiProcessingDataLoaderIter._next_data", broken)
    before = set(active_children())
    batches = real_batches(ImageFolderDataset(discs), batch=2, seed=0, start=0, workers=1, pin_memory=False)
    with closing(batches), pytest.raises(Sg3Error, match=r"a process that loads images has ended .*--workers"):
        next(batches)
    assert set(active_children()) <= before


def test_a_loader_process_whose_death_is_known_when_the_others_are_ended(discs: Path, monkeypatch) -> None:
    """PyTorch's handler of SIGCHLD raises wherever the main thread is."""

    def late(self: object) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    def broken(self: object) -> object:
        monkeypatch.setattr("sg3.train.feed.threading.Timer.start", late)
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr("torch.utils.data.dataloader._MultiProcessingDataLoaderIter._next_data", broken)
    before = set(active_children())
    batches = real_batches(ImageFolderDataset(discs), batch=2, seed=0, start=0, workers=1, pin_memory=False)
    with closing(batches), pytest.raises(Sg3Error, match=r"a process that loads images has ended .*--workers"):
        next(batches)
    assert set(active_children()) <= before
