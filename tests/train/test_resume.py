"""Exact resume: a run that stops and continues ends bit for bit where the uninterrupted one ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sg3.errors import TrainingStopped
from sg3.processes import World
from sg3.train.bad_steps import Found
from sg3.train.log import Stats, StatsWriter
from sg3.train.state import load_state
from sg3.train.state_check import check_state
from tests.helpers.compare import assert_same
from tests.helpers.runs import facts, tiny_config
from tests.helpers.trainers import StopAfter, comparable, new_trainer, run_loop, train


@pytest.mark.parametrize("cfg", ["stylegan3-t", "stylegan3-r", "stylegan2"])
def test_continued_run_equals_uninterrupted(discs: Path, tmp_path: Path, cfg: str) -> None:
    """18 steps: two R1 phases, five of path length (stylegan2), fading blur (stylegan3-r), one tick in between."""
    config = tiny_config(discs, cfg=cfg, mirror=True)
    whole = train(config, tmp_path / "whole", 18)
    train(config, tmp_path / "parts", 7)
    parts = train(config, tmp_path / "parts", 18)
    assert parts["step"] == 18
    assert_same(comparable(whole), comparable(parts))
    if cfg == "stylegan2":
        assert float(whole["pl_mean"]) > 0
    assert not torch.equal(whole["G"]["mapping.w_avg"], torch.zeros(8))


def test_conditional_resume_and_workers(labelled_discs: Path, tmp_path: Path) -> None:
    """Labels are drawn per sample, too; loader processes change nothing."""
    data = facts(path=str(labelled_discs), label_dim=3, has_labels=True)
    whole = train(tiny_config(labelled_discs, data, cfg="stylegan2", cond=True), tmp_path / "whole", 8)
    config = tiny_config(labelled_discs, data, cfg="stylegan2", cond=True, workers=2)
    train(config, tmp_path / "parts", 3)
    assert_same(comparable(whole), comparable(train(config, tmp_path / "parts", 8)))


def test_evaluation_in_between_changes_nothing(discs: Path, tmp_path: Path) -> None:
    """Whatever else draws random numbers, training draws its own."""
    config = tiny_config(discs, cfg="stylegan2")
    quiet = train(config, tmp_path / "quiet", 4)
    trainer = new_trainer(config)

    def draw() -> None:
        torch.randn(1000)
        trainer.G_ema(torch.randn(2, 8))

    with pytest.raises(TrainingStopped):
        run_loop(trainer, tmp_path / "noisy", StopAfter(4, draw))
    assert_same(comparable(quiet), comparable(load_state(tmp_path / "noisy", pytest.fail)))


def test_seed_decides(discs: Path, tmp_path: Path) -> None:
    a = train(tiny_config(discs, seed=1), tmp_path / "a", 2)
    b = train(tiny_config(discs, seed=1), tmp_path / "b", 2)
    c = train(tiny_config(discs, seed=2), tmp_path / "c", 2)
    assert_same(comparable(a), comparable(b))
    assert not torch.equal(a["G"]["mapping.fc0.weight"], c["G"]["mapping.fc0.weight"])


@pytest.mark.parametrize("cfg", ["stylegan3-t", "stylegan2"])
def test_accumulation_equals_one_batch(discs: Path, tmp_path: Path, cfg: str) -> None:
    """Micro-batches give the gradient of the whole batch, apart from what looks across samples (D's statistics,
    switched off here) and from layer noise, which is drawn per micro-batch."""
    grads = []
    for batch_gpu in (4, 2):
        config = tiny_config(discs, cfg=cfg, batch_gpu=batch_gpu)
        trainer = new_trainer(config)
        trainer.system.loss.style_mixing_prob = 0
        trainer.D.b4.mbstd.group_size = 1
        phase = next(p for p in trainer.phases if p.name in ("Gmain", "Gboth"))
        real = torch.zeros(4, 3, 16, 16)
        trainer.run_phase(phase, real, torch.zeros(4, 0))
        named = [(n, p.grad) for n, p in trainer.G.named_parameters() if not n.endswith("noise_strength")]
        grads.append(torch.cat([grad.flatten() for _, grad in named]))
    relative = (grads[0] - grads[1]).norm() / grads[0].norm()
    assert 0 < float(relative) < 1e-5


def test_statistics_survive_a_restart(discs: Path, tmp_path: Path) -> None:
    """stats.jsonl of a continued run has every tick once, with all images counted."""
    config = tiny_config(discs, kimg=2, batch=100, mbstd_group=1, layers=3)
    with pytest.raises(TrainingStopped):
        run_loop(new_trainer(config), tmp_path, StopAfter(13))
    with open(tmp_path / "stats.jsonl", "a") as file:
        file.write('{"Progress/kimg": {"num": 1, "mean": 1.9, "std": 0}}\n{"Progress/ki')  # beyond the state, cut off
    again = new_trainer(config)
    again.load_state_dict(load_state(tmp_path, pytest.fail))
    run_loop(again, tmp_path, StopAfter(10**9))
    lines = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert [line["Progress/tick"]["mean"] for line in lines] == [0, 1, 2]
    assert sum(line["Loss/G/loss"]["num"] for line in lines) == 2000


def test_statistics_keep_the_tick_of_the_state(tmp_path: Path) -> None:
    """0.008 kimg is 8 images, whatever float32 or 0.008 * 1000 make of it."""
    stats = Stats()
    for nimg in (8, 16056, 20000):
        writer = StatsWriter(tmp_path, nimg)
        stats.report("Progress/kimg", nimg / 1000)
        writer.write(stats.flush())
    for nimg, lines in ((20000, 3), (16056, 2), (8, 1)):
        StatsWriter(tmp_path, nimg)
        assert len((tmp_path / "stats.jsonl").read_text().splitlines()) == lines


@pytest.mark.parametrize("cfg", ["stylegan3-t", "stylegan2"])
def test_one_bad_batch_leaves_no_trace(discs: Path, tmp_path: Path, cfg: str) -> None:
    """NaN in every running mean's input for one step: afterwards training goes on as if nothing had been."""
    trainer = new_trainer(tiny_config(discs, cfg=cfg))
    real, labels = torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.zeros(4, 0)
    first = trainer.G.mapping.fc0
    hook = first.register_forward_hook(lambda _m, _i, out: out * float("nan"))
    trainer.train_step(real, labels)
    hook.remove()
    assert Found("Dmain", 1, 1) in trainer.bad_steps.look()
    for _ in range(4):
        trainer.train_step(real, labels)
    assert trainer.bad_steps.look() == []
    for module in (trainer.G, trainer.D, trainer.G_ema):
        assert all(tensor.isfinite().all() for tensor in module.state_dict().values())
    assert trainer.system.loss.pl_mean.isfinite()


def test_each_rank_goes_on_with_its_own_sums(discs: Path, tmp_path: Path) -> None:
    """Sums of an unfinished tick that were added up over ranks would end with other last digits."""
    config = tiny_config(discs)
    trainer = new_trainer(config)
    trainer.train_step(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.zeros(4, 0))
    mine = {name: sums.clone() for name, sums in trainer.stats.state_dict().items()}
    trainer.world = _SecondOfTwo()
    state = trainer.state_dict()
    assert trainer.stats.state_dict().keys() == mine.keys()  # saving changes nothing
    assert [set(sums) for sums in state["stats_by_rank"]] == [set(), set(mine)]
    again = new_trainer(config)
    check_state({**state, "stats": mine}, again.state_dict(), again.optimizers, "x")
    again.world = _SecondOfTwo()
    again.load_state_dict({**state, "stats_by_rank": [{"Loss/G/loss": torch.ones(3)}, mine]})
    assert all(torch.equal(sums, mine[name]) for name, sums in again.stats.state_dict().items())
    alone = new_trainer(config)
    alone.load_state_dict({**state, "stats": {"Loss/G/loss": torch.ones(3)}, "stats_by_rank": [{}, mine]})
    assert list(alone.stats.state_dict()) == ["Loss/G/loss"]


class _SecondOfTwo(World):
    """Rank 1, as if rank 0 had nothing to add."""

    def __init__(self) -> None:
        super().__init__(1, 2, torch.device("cpu"))

    def gather(self, value: Any) -> list[Any]:
        return [type(value)(), value]

    def add_up(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor
