"""Averages whose length is chosen afterwards: their profiles against the closed form, combinations of them against
averages that were kept all along, and runs that keep them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sg3
from sg3.run_folder import averages
from sg3.train.power_ema import WIDTHS, PowerAverages, Profile, beta, combination, gamma_of, read_averages, width_of
from tests.helpers.compare import assert_same
from tests.helpers.runs import tiny_config
from tests.helpers.tiny_networks import generator3
from tests.helpers.tiny_systems import config_of
from tests.helpers.trainers import comparable, new_trainer, train


def test_widths_and_exponents() -> None:
    """16.97 and 6.94 for 0.05 and 0.1 (Section 3.1)."""
    assert gamma_of(0.05) == pytest.approx(16.97, abs=0.005)
    assert gamma_of(0.1) == pytest.approx(6.94, abs=0.005)
    for width in (0.01, 0.05, 0.1, 0.2, 0.28):
        assert width_of(gamma_of(width)) == pytest.approx(width, rel=1e-9)
        s = (np.arange(10**6) + 0.5) / 10**6
        weight = s ** gamma_of(width) / np.sum(s ** gamma_of(width))
        assert np.sqrt(weight @ s**2 - (weight @ s) ** 2) == pytest.approx(width, rel=1e-4)


def closed_form(gamma: float, steps: int) -> torch.Tensor:
    """How much each of so many steps counts: the integral of the profile over it."""
    edges = torch.arange(steps + 1, dtype=torch.float64) / steps
    return (edges ** (gamma + 1)).diff()


@pytest.mark.parametrize("batch", [1, 32])
def test_the_average_has_the_closed_forms_profile(batch: int) -> None:
    """Weights that are 1 at one step and 0 at all others show how much that step counts."""
    steps = 200
    network = nn.Linear(steps, 1, bias=False)
    averages = PowerAverages(network)
    for step in range(steps):
        with torch.no_grad():
            network.weight.copy_(torch.eye(steps)[step])
        averages.update(step * batch, (step + 1) * batch)
    for width, kept in zip(WIDTHS, averages.state_dict(), strict=True):
        expected = closed_form(gamma_of(width), steps)
        torch.testing.assert_close(kept["weight"][0].double(), expected, rtol=1e-5, atol=1e-9)
        assert float(kept["weight"].sum()) == pytest.approx(1, abs=1e-5)
    assert beta(3.0, 0, 8) == 0, "the first step is copied"


def test_products_of_profiles() -> None:
    one, other = Profile(6.94, 3.0), Profile(2.5, 2.0)
    s = (np.arange(10**6) + 0.5) / 10**6 * 2.0
    numeric = np.sum(7.94 / 3**7.94 * s**6.94 * 3.5 / 2**3.5 * s**2.5) * 2.0 / 10**6
    assert one.product(other) / one.t == pytest.approx(numeric, rel=1e-6)
    assert other.product(one) / other.t == pytest.approx(numeric, rel=1e-6)


def test_combination_finds_what_is_there() -> None:
    kept = [Profile(gamma_of(width), t) for t in (10.0, 20.0, 30.0) for width in WIDTHS]
    factors, distance = combination(kept, kept[3])
    np.testing.assert_allclose(factors, np.eye(6)[3], atol=1e-6)
    assert distance < 1e-6
    with pytest.raises(ValueError, match="nothing is kept"):
        combination(kept, Profile(5.0, 31.0))


@pytest.mark.parametrize("width", [0.03, 0.07, 0.1, 0.15, 0.2])
@pytest.mark.parametrize("moment", [24, 40])
def test_combination_comes_close_to_any_width(width: float, moment: int) -> None:
    """From 40 snapshots of two widths, by the distance of profiles and of the weights of a walk at random."""
    steps, every, gamma = 400, 10, gamma_of(width)
    walk = np.random.default_rng(0).normal(size=[steps, 50]).cumsum(axis=0)  # weights after each step
    kept, values = [], []
    for t in range(every, steps + 1, every):
        for known in WIDTHS:
            kept.append(Profile(gamma_of(known), t))
            values.append(closed_form(gamma_of(known), t).numpy() @ walk[:t])
    end = moment * every
    factors, distance = combination(kept, Profile(gamma, end))
    assert factors.sum() == pytest.approx(1)
    assert distance < (0.15 if width < WIDTHS[0] else 0.02), "outside of the two widths it is hard"
    true = closed_form(gamma, end).numpy() @ walk[:end]
    spread = np.abs(walk[:end] - true).mean()
    assert np.abs(factors @ np.array(values) - true).max() < (0.3 if width < WIDTHS[0] else 0.02) * spread


def test_few_files_do_their_best() -> None:
    """A sum of 1 is kept even then: weights must not shrink."""
    factors, distance = combination([Profile(6.94, 10.0)], Profile(2.0, 10.0))
    assert factors == pytest.approx([1.0])
    assert 0.3 < distance < 1


# ---- runs


@pytest.mark.parametrize("name", ["stylegan3-t", "r3gan", pytest.param("fastgan", marks=pytest.mark.slow)])
def test_a_run_that_keeps_averages(run, tmp_path: Path, name: str) -> None:
    """It continues exactly, keeps a file with each snapshot, and `sg3 ema` makes networks of them."""
    config = config_of(name, tmp_path, posthoc_ema=True)
    whole = train(config, tmp_path / "whole", 4)
    train(config, tmp_path / "parts", 2)
    (tmp_path / "parts" / "power-ema-0000000999.pt").touch()  # of a longer life
    parts = train(config, tmp_path / "parts", 4)
    assert_same(comparable(whole), comparable(parts))
    one, other = whole["power_averages"]
    first = next(iter(one))
    assert not torch.equal(one[first], other[first])
    assert not torch.equal(one[first], whole["G"][first])

    (path,) = averages(tmp_path / "parts")  # after the first step, at the end of tick 0
    kept = read_averages(path)
    assert (kept.nimg, list(kept.widths)) == (4, list(WIDTHS))
    trainer = new_trainer(config)
    trainer.load_state_dict(parts)
    assert trainer.power_averages is not None
    trainer.power_averages.write(tmp_path / "parts", trainer.nimg)
    for width, average in zip(WIDTHS, parts["power_averages"], strict=True):
        output = tmp_path / f"{width}.pkl"
        result = run("ema", tmp_path / "parts", f"--width={width}", f"--output={output}")
        assert (result.code, result.out) == (0, f"{output}\n"), result.err
        assert f"width {width:g} at 0.016 kimg from 2 files, 0.0% from its true profile" in result.err
        G = sg3.load(output).G_ema
        for key, tensor in G.named_parameters():
            torch.testing.assert_close(tensor, average[key], rtol=1e-4, atol=1e-6, msg=key)
        for key, tensor in G.named_buffers():
            assert torch.equal(tensor, parts["G"][key]), key
    result = run("ema", tmp_path / "parts", "--width=0.2", f"--output={tmp_path / 'wide.safetensors'}", "--kimg=0.01")
    assert "note: that is far" in result.err, "from two files"


def test_without_it_nothing_is_kept(discs: Path, run, tmp_path: Path) -> None:
    state = train(tiny_config(discs), tmp_path / "run", 2)
    assert "power_averages" not in state
    assert averages(tmp_path / "run") == []
    for words, code, said in (
        ((tmp_path / "run", "--width=0.1", "--output=a.pkl"), 66, "holds no power-ema-*.pt; train with --posthoc-ema"),
        ((tmp_path / "none", "--width=0.1", "--output=a.pkl"), 66, "there is no such folder"),
        ((tmp_path / "run", "--width=0.3", "--output=a.pkl"), 2, "--width"),
        ((tmp_path / "run", "--width=0.1", "--output=a.onnx"), 2, "expected a name ending in .pkl or .safetensors"),
    ):  # fmt: skip
        result = run("ema", *words)
        assert result.code == code, result.err
        assert said in result.error_line()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2}, "format 2, this version of sg3 reads 1"),
        ({"nimg": 0}, "holds no averages of a network's weights"),
        ({"widths": [0.05, 7.0]}, "holds no averages of a network's weights"),
        ({"widths": [0.05]}, "holds no averages of a network's weights"),
        ({"averages": [{"weight": 1.0}] * 2}, "holds no averages of a network's weights"),
        ({"averages": [{"weight": torch.zeros(3)}] * 2}, "is of another network than"),
        (None, "holds no averages, or is damaged"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, run, changes: dict | None, said: str) -> None:
    averages = PowerAverages(nn.Linear(4, 2))
    for nimg in (1000, 2000):
        averages.write(tmp_path, nimg)
    (tmp_path / "training_options.json").write_text("{}")
    sg3.save(sg3.Snapshot(G_ema=generator3()), tmp_path / "network-snapshot-000002.pkl")
    path = tmp_path / "power-ema-0000002000.pt"
    if changes is None:
        path.write_bytes(path.read_bytes()[:-100])
    else:
        torch.save({**torch.load(path), **changes}, path)
    result = run("ema", tmp_path, "--width=0.1", f"--output={tmp_path / 'a.pkl'}")
    assert result.code == 65, result.err
    assert f"{path}: {said}" in result.error_line()


def test_averages_of_another_network_than_the_snapshots(tmp_path: Path, run) -> None:
    PowerAverages(nn.Linear(4, 2)).write(tmp_path, 1000)
    sg3.save(sg3.Snapshot(G_ema=generator3()), tmp_path / "network-snapshot-000001.pkl")
    result = run("ema", tmp_path, "--width=0.1", f"--output={tmp_path / 'a.pkl'}")
    assert result.code == 65
    assert "power-ema-0000001000.pt: is of another network than" in result.error_line()
