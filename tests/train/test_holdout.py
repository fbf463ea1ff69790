"""--holdout: which images training leaves out, and that metrics find them again."""

from __future__ import annotations

from pathlib import Path

import pytest

from sg3.errors import UsageError
from sg3.metrics import RealImages
from sg3.train.dataset import open_dataset
from sg3.train.launch import configure
from tests.helpers.image_files import write_dataset
from tests.helpers.runs import tiny_options


@pytest.mark.parametrize("mirror", [False, True])
def test_images_left_out_are_those_that_metrics_find(tmp_path: Path, mirror: bool) -> None:
    data = write_dataset(tmp_path / "discs.zip", count=20)
    config = configure(tiny_options(data, holdout=0.26, mirror=mirror, seed=3), tmp_path)
    assert (config.subset, config.holdout) == (15, 0.26)
    used = open_dataset(config)
    seen = {used.get_details(index).raw_idx for index in range(len(used))}
    assert (len(used), len(seen)) == (15 * (1 + mirror), 15)
    kwargs = {"path": str(data), "max_size": config.subset, "random_seed": config.seed, "xflip": mirror}
    trained_on, left_out = RealImages.from_kwargs(kwargs).split(20)
    assert set(trained_on) == seen
    assert set(left_out) == set(range(20)) - seen


def test_without_a_holdout_nothing_is_left_out(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "discs.zip", count=6)
    assert configure(tiny_options(data), tmp_path).subset is None
    for odd in ({}, {"max_size": None}, {"max_size": 12}, {"max_size": "x", "random_seed": -1}):
        assert len(RealImages.from_kwargs({"path": str(data), **odd}).split(6)[1]) == 0


def test_at_least_one_image_is_left_out_and_one_stays(tmp_path: Path) -> None:
    assert configure(tiny_options(write_dataset(tmp_path / "6.zip", count=6), holdout=0.01), tmp_path).subset == 5
    with pytest.raises(UsageError, match=r"--holdout=0\.5: leaves none of 1 images"):
        configure(tiny_options(write_dataset(tmp_path / "1.zip", count=1), holdout=0.5), tmp_path)


def test_contradictions(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "discs.zip", count=6)
    with pytest.raises(UsageError, match="--holdout and --subset: both say how many"):
        configure(tiny_options(data, holdout=0.5, subset=3), tmp_path)
    with pytest.raises(UsageError, match="--holdout"):
        tiny_options(data, holdout=0.95)
