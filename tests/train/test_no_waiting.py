"""A training step only tells the device what to do: on torch's meta device, which computes nothing, whatever asks for a
number raises, and so does a tensor that was left behind on the CPU. A GPU would wait in the first case.

It would also wait where something is sent to it from memory that is not pinned, be it a number (`torch.tensor(...,
device=...)`); who sends what is looked at as well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import sg3
from sg3.data.dataset import ImageFolderDataset
from sg3.processes import World
from sg3.train.trainer import Trainer
from sg3.train.watchdog import Watchdog
from tests.helpers.runs import facts, tiny_config
from tests.helpers.tiny_systems import projected_config, r3gan_config

PACKAGE = str(Path(sg3.__file__).parent)


def meta_trainer(monkeypatch, data: Path, labels: int = 0, **said) -> Trainer:
    """A trainer on the meta device, but for the optimisers' own step, for which there is no such device."""
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: None)
    known = facts(path=str(data), resolution=said.pop("resolution", 16), label_dim=labels, has_labels=labels > 0)
    make = {"r3gan": r3gan_config, "fastgan": projected_config}.get(said.get("cfg"), tiny_config)
    config = make(data, known, cond=labels > 0, **said)
    world = World(0, 1, torch.device("meta"))
    dataset = ImageFolderDataset(config.dataset.path, use_labels=config.cond)
    return Trainer(config, dataset, world, Watchdog(world, 60, lambda *_: None))


class Uploads(TorchDispatchMode):
    """Notes which functions of sg3 bring something from the CPU to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.senders: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        copies = function.overloadpacket.__name__ in ("copy_", "_to_copy")
        tensors = [each for each in tree_leaves((args, kwargs, result)) if isinstance(each, torch.Tensor)]
        # Other operations take a number from the CPU along; a tensor, such as an index, they copy.
        sent = [each for each in tensors if each.device.type == "cpu" and (copies or each.ndim > 0)]
        if sent and any(each.device.type == "meta" for each in tensors):
            frame = sys._getframe()
            while not frame.f_code.co_filename.startswith(PACKAGE):
                assert frame.f_back is not None
                frame = frame.f_back
            self.senders.add(frame.f_code.co_qualname)
        return result


@pytest.mark.parametrize(
    "said",
    [
        {"cfg": "stylegan3-t", "batch_gpu": 2},
        {"cfg": "stylegan3-r"},
        {"cfg": "stylegan2", "aug": "ada", "augpipe": "bgcfnc"},
        {"cfg": "stylegan2", "aug": "fixed", "p": 0.7, "labels": 3},
        {"cfg": "r3gan", "aug": "fixed", "p": 0.7, "labels": 3},
        {"cfg": "r3gan", "penalty": "approximate", "posthoc_ema": True},
        pytest.param(
            {"cfg": "fastgan", "resolution": 32, "labels": 3, "loss": "softplus", "blur_sigma": 3.0, "steps": 1},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["t", "r", "ada", "cond", "r3gan", "r3gan-approximate", "fastgan"],
)
def test_a_step_never_waits(monkeypatch, discs: Path, labelled_discs: Path, said: dict) -> None:
    """Four steps with every phase in them: R1, path length, style mixing, augmentation, labels."""
    said = dict(said)
    steps = said.pop("steps", 4)
    trainer = meta_trainer(monkeypatch, labelled_discs if "labels" in said else discs, gamma=1.0, **said)
    trainer.augmentation.signs_before = torch.zeros(2)  # the one number that a step reads is an interval old

    def only_on_cpu(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def call(*args: Any, **kwargs: Any) -> torch.Tensor:
            result = make(*args, **kwargs)
            of_numbers = not isinstance(args[-1], torch.Tensor)
            assert result.device.type == "cpu" or not of_numbers, "numbers are sent to the device"
            return result

        return call

    for where, name in ((torch, "tensor"), (torch, "as_tensor"), (torch.Tensor, "new_tensor")):
        monkeypatch.setattr(where, name, only_on_cpu(getattr(where, name)))
    count, size = 4 * trainer.system.real_batches, trainer.config.dataset.resolution
    labels = torch.zeros(count, said.get("labels", 0))
    with Uploads() as uploads:
        for _ in range(steps):
            trainer.train_step(torch.zeros(count, 3, size, size, dtype=torch.uint8), labels)
    assert trainer.nimg == 4 * steps
    assert uploads.senders <= {"Trainer.train_step", "upload"}  # which gets pinned memory, and which pins
    assert all(p.grad is not None for phase in trainer.phases for p in phase.module.parameters() if phase.is_main)


def test_waiting_is_noticed(monkeypatch, discs: Path) -> None:
    """What the test above stands on."""
    trainer = meta_trainer(monkeypatch, discs)
    plain = trainer.run_phase
    monkeypatch.setattr(trainer, "run_phase", lambda *each: plain(*each).item())
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        trainer.train_step(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.zeros(4, 0))


def test_uploads_are_noticed(monkeypatch) -> None:
    """Whatever brings more than a number from the CPU along; numbers alone do not count."""
    device = torch.zeros(4, device="meta")
    monkeypatch.setattr("tests.train.test_no_waiting.PACKAGE", str(Path(__file__).parent))
    for upload in (
        lambda: torch.ones(2).to("meta"),
        lambda: device[torch.tensor([0, 1])],
        lambda: device.clone().copy_(torch.ones(4)),
    ):
        with Uploads() as uploads:
            upload()
        assert uploads.senders
    with Uploads() as uploads:
        torch.where(device > 0, torch.tensor(1.0), device * 2)
    assert not uploads.senders
