"""Runs on images that are not square."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import sg3
from sg3.canvas import nominal, sampling_rate
from sg3.data.dataset import ImageFolderDataset
from sg3.errors import DataError, UsageError
from sg3.metrics import RealImages, compute, parse
from sg3.models.augment import SPECS, AugmentPipe
from sg3.models.augment_draws import Draws
from sg3.run_folder import newest_snapshot, snapshots
from sg3.train.dataset import open_dataset, probe_dataset
from sg3.train.recipes import RECIPES, options_of, resolve
from sg3.train.summary import summarize
from sg3.train.transfer import transfer_weights
from tests.helpers.compare import assert_same
from tests.helpers.pixel_detectors import pixel_detectors
from tests.helpers.runs import facts, tiny_config, tiny_options
from tests.helpers.trainers import comparable, new_trainer, train

WIDE = {"resolution": 24, "height": 16, "width": 24}


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    return folder_of_patches(tmp_path_factory.mktemp("wide"), 16)


def folder_of_patches(folder: Path, height: int, alpha: bool = False) -> Path:
    rng = np.random.default_rng(0)
    for i in range(12):
        pixels = np.full((height, 24, 3), rng.integers(256, size=3), np.uint8)
        pixels[4:9, i : i + 9] = rng.integers(256, size=3)
        if alpha:  # the patch is opaque, its border half so, and nothing is seen around it
            opacity = np.zeros((height, 24, 1), np.uint8)
            opacity[3:10, max(i - 1, 0) : i + 10], opacity[4:9, i : i + 9] = 128, 255
            pixels = np.concatenate([pixels, opacity], axis=2)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return folder


def test_what_follows_from_the_size() -> None:
    data = facts(resolution=512, height=384, width=512)
    for cfg in ("stylegan2", "stylegan3-t", "stylegan3-r"):
        config = resolve(options_of({"cfg": cfg, "data": "x.zip"}), data)
        assert config.gamma == pytest.approx(0.0002 * 384 * 512 / 32)
        for arguments in (config.generator_kwargs(), config.discriminator_kwargs()):
            assert (arguments["img_resolution"], arguments["img_size"]) == (512, [384, 512])
    tall = facts(resolution=256, height=256, width=144)
    config = resolve(options_of({"cfg": "stylegan3-t", "data": "x.zip"}), tall)
    assert config.generator_kwargs()["img_resolution"] == sampling_rate((256, 144)) == 256
    assert config.discriminator_kwargs()["img_resolution"] == nominal((256, 144)) == 64
    square = resolve(options_of({"cfg": "stylegan2", "data": "x.zip"}), facts(resolution=512))
    assert "img_size" not in {**square.generator_kwargs(), **square.discriminator_kwargs()}


@pytest.mark.parametrize("cfg", [cfg for recipe in RECIPES for cfg in recipe.cfgs])
def test_systems_for_squares_say_so(cfg: str) -> None:
    takes = cfg in ("stylegan2", "stylegan3-t", "stylegan3-r")
    if takes:
        resolve(options_of({"cfg": cfg, "data": "x.zip"}), facts(resolution=96, height=64, width=96))
    else:
        with pytest.raises(DataError, match=r"96 x 64 images, expected squares of a power of two; --cfg=stylegan2 and"):
            resolve(options_of({"cfg": cfg, "data": "x.zip"}), facts(resolution=96, height=64, width=96))
    others = r" or rectangles like 96 x 64;" if takes else "; --cfg"
    with pytest.raises(DataError, match=rf"100 x 70 images, expected squares of a power of two{others}"):
        resolve(options_of({"cfg": cfg, "data": "x.zip"}), facts(resolution=100, height=70, width=100))


@pytest.mark.parametrize("cfg", ["stylegan2", "stylegan3-t"])
def test_a_run_that_continues(wide: Path, tmp_path: Path, cfg: str) -> None:
    """Bit for bit, with all augmentations; its snapshots are files that sg3 reads, its images have the right shape."""
    said = {"cfg": cfg, "aug": "fixed", "p": 0.7, "augpipe": "bgcfnc", "mirror": True}
    data = probe_dataset(tiny_options(wide, **said))
    assert (data.image_size, data.resolution, data.is_square) == ((16, 24), 24, False)
    config = tiny_config(wide, data, **said)
    whole = train(config, tmp_path / "whole", 6)
    train(config, tmp_path / "parts", 3)
    parts = train(config, tmp_path / "parts", 6)
    assert_same(comparable(whole), comparable(parts))
    run = tmp_path / "whole"
    assert newest_snapshot(run).suffix == ".safetensors"
    assert [path.name for path in snapshots(run)] == ["network-snapshot-000000.safetensors"]
    G = sg3.load(run).G_ema
    assert G(torch.randn(2, 8)).shape == (2, 3, 16, 24)
    assert sg3.load(run).training_set_kwargs["resolution"] == [16, 24]
    assert ImageFolderDataset(wide, resolution=(16, 24)).image_shape == [3, 16, 24]
    with Image.open(run / "reals.png") as sheet:
        assert sheet.size == (2 * 24, 2 * 16)
    assert type(config).from_dict(config.to_dict()) == config


@pytest.mark.parametrize("cfg", ["stylegan2", "stylegan3-t"])
def test_with_alpha(tmp_path: Path, cfg: str, run) -> None:
    """Neither square nor opaque: exact resume with all augmentations, PNGs with alpha, metrics with a second number."""
    (tmp_path / "images").mkdir()
    images = folder_of_patches(tmp_path / "images", 16, alpha=True)
    said = {"cfg": cfg, "aug": "fixed", "p": 0.7, "augpipe": "bgcfnc", "mirror": True}
    data = probe_dataset(tiny_options(images, **said))
    assert (data.image_size, data.channels) == ((16, 24), 4)
    config = tiny_config(images, data, **said)
    whole = train(config, tmp_path / "whole", 4)
    train(config, tmp_path / "parts", 2)
    assert_same(comparable(whole), comparable(train(config, tmp_path / "parts", 4)))
    result = run("generate", f"--network={tmp_path / 'whole'}", "--seeds=0", f"--outdir={tmp_path}", "--device=cpu")
    assert result.code == 0, result.err
    with Image.open(tmp_path / "seed0000.png") as picture:
        assert (picture.size, picture.mode) == ((24, 16), "RGBA")
    (found,) = compute([parse("fid8_full")], sg3.load(tmp_path / "whole").G_ema, RealImages(images), device="cpu",
                       detectors=pixel_detectors())  # fmt: skip
    assert list(found.results) == ["fid8_full", "fid8_full_alpha"]
    assert all(np.isfinite(value) for value in found.results.values())
    assert found.recipe["resize"].endswith("stretched from 24 x 16")


@pytest.mark.parametrize("cfg", ["stylegan2", "stylegan3-t"])
def test_squares_of_no_power_of_two(tmp_path: Path, cfg: str) -> None:
    """As rectangles: exact resume, files that know the size, a start from a square of a power of two."""
    (tmp_path / "images").mkdir()
    images = folder_of_patches(tmp_path / "images", 24)
    said = {"cfg": cfg, "aug": "fixed", "p": 0.7, "augpipe": "bgcfnc"}
    data = probe_dataset(tiny_options(images, **said))
    assert (data.image_size, data.is_square, data.is_plain) == ((24, 24), True, False)
    config = tiny_config(images, data, **said)
    whole = train(config, tmp_path / "whole", 4)
    train(config, tmp_path / "parts", 2)
    assert_same(comparable(whole), comparable(train(config, tmp_path / "parts", 4)))
    run = tmp_path / "whole"
    assert [path.name for path in snapshots(run)] == ["network-snapshot-000000.safetensors"]
    snapshot = sg3.load(run)
    assert snapshot.training_set_kwargs["resolution"] == 24
    assert snapshot.G_ema.img_size == (24, 24)
    assert snapshot.G_ema.img_resolution == 32
    assert snapshot.G_ema(torch.randn(2, 8)).shape == (2, 3, 24, 24)
    with pytest.raises(UsageError, match=r"images of 24 x 24, and \.pkl files have a place for a side only"):
        sg3.save(snapshot, tmp_path / "net.pkl")


def test_moved_images_are_found_out(wide: Path, tmp_path: Path) -> None:
    config = tiny_config(wide, facts(path=str(wide), **{**WIDE, "height": 24, "width": 16}))
    with pytest.raises(DataError, match="24x16 instead of 12 images of 3 channels, 16x24"):
        open_dataset(config)


def test_a_dry_run(wide: Path) -> None:
    for cfg in ("stylegan2", "stylegan3-t"):
        summary = summarize(tiny_config(wide, facts(**WIDE), cfg=cfg))
        assert summary.G[-1].output == [4, 3, 16, 24]
        assert summary.D[-1].output == [4, 1]


@pytest.mark.parametrize("cfg", ["stylegan2", "stylegan3-t"])
def test_starting_from_a_square(wide: Path, discs: Path, tmp_path: Path, cfg: str) -> None:
    """StyleGAN3's generator is copied; StyleGAN2's constant is stretched, its noise and one matrix of D are new."""
    square = new_trainer(tiny_config(discs, cfg=cfg))
    square.G.synthesis.load_state_dict({k: torch.randn_like(v) for k, v in square.G.synthesis.state_dict().items()})
    path = tmp_path / "square.safetensors"
    sg3.save(sg3.Snapshot(G=square.G, D=square.D, G_ema=square.G_ema), path)
    ours = new_trainer(tiny_config(wide, facts(path=str(wide), **WIDE), cfg=cfg))
    lines = transfer_weights(str(path), {"G": ours.G, "D": ours.D}, least=0.5)
    theirs, got = square.G.state_dict(), ours.G.state_dict()
    fresh = {name for name in got if name.endswith(("noise_const", "b4.const"))}
    got = {name: tensor for name, tensor in got.items() if not name.endswith("_filter")}  # designed, not learnt
    assert bool(fresh) == (cfg == "stylegan2")
    for name in got.keys() - fresh:
        assert torch.equal(got[name], theirs[name]), name
    assert "b4.fc.weight" in lines[1]
    if cfg == "stylegan2":
        assert "1 of these stretched (synthesis.b4.const)" in lines[0]
        const = theirs["synthesis.b4.const"]
        assert got["synthesis.b4.const"].shape[1:] == (4, 6)
        assert torch.allclose(got["synthesis.b4.const"].mean(2), const.mean(2), atol=0.2)
    else:
        assert "of another shape" not in lines[0]
        images = ours.G(torch.zeros(1, 8)), square.G(torch.zeros(1, 8))
        assert images[0].shape == (1, 3, 16, 24)
        assert images[1].shape == (1, 3, 16, 16)


def test_augmentation_turns_rectangles_by_half() -> None:
    """Of quarter turns, 0 and 180 degrees, equally often; what is square still takes all four."""
    rngs = [np.random.default_rng(i) for i in range(400)]
    pipe = AugmentPipe(rotate90=1)
    for height, width, wanted in ((24, 40, {0, 2}), (32, 32, {0, 1, 2, 3})):
        inverse = pipe.inverse_geometry(Draws.random(rngs, 1.0), height, width)
        quarters = np.round(np.arctan2(inverse[:, 1, 0], inverse[:, 0, 0]) / (np.pi / 2)).astype(int) % 4
        counts = np.bincount(quarters, minlength=4)
        assert set(np.flatnonzero(counts)) == wanted
        assert counts[counts > 0].min() > 0.7 * len(rngs) / len(wanted)
    # Turned by 180 degrees, a smooth image is, but for interpolation, what stood at the other end.
    images = F.interpolate(torch.randn(1, 3, 5, 7), size=(24, 40), mode="bicubic")
    for percentile in (0.2, 0.8):
        turned = pipe(images, debug_percentile=percentile)
        expected = images if percentile < 0.5 else images.flip([2, 3])
        torch.testing.assert_close(turned, expected, atol=0.1, rtol=0)


def test_augmentation_is_isotropic_in_pixels() -> None:
    """Turning and scaling are the same in pixels on every canvas; shifts and boxes are parts of a side."""
    n = 50

    def drawn(pipe: AugmentPipe, height: int, width: int) -> np.ndarray:
        return pipe.inverse_geometry(Draws.random([np.random.default_rng(i) for i in range(n)], 1.0), height, width)

    turning = AugmentPipe(rotate=1, scale=1, aniso=1)
    np.testing.assert_array_equal(drawn(turning, 48, 64), drawn(turning, 64, 64))
    shifting = AugmentPipe(xfrac=1)
    wide, square = drawn(shifting, 48, 64), drawn(shifting, 64, 64)
    np.testing.assert_allclose(wide[:, :2, 2], square[:, :2, 2] * [1, 0.75])
    draws = Draws.random([np.random.default_rng(i) for i in range(n)], 1.0)
    boxes = AugmentPipe(cutout=1).cutout_boxes(draws, 48, 64)
    assert ((boxes[:, 2:] - boxes[:, :2]).max(axis=0) <= [32, 24]).all()
    images = torch.rand(4, 3, 36, 52) * 2 - 1
    assert AugmentPipe(**SPECS["bgcfnc"])(images).shape == images.shape
