"""Style mixing: which layer takes which copy of w, the pictures, and `sg3 style-mix`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sg3
from sg3.errors import UsageError
from sg3.sampling import seed_latents, to_uint8
from sg3.tools.latents import band_limits, choose_layers, layer_names, sample_w
from sg3.tools.style_mix import style_mix
from tests.helpers.for_tools import pixels, saved, tiny2, tiny3


@pytest.mark.parametrize("G", [tiny3(), tiny2(), tiny2(architecture="resnet"), tiny2(architecture="orig")],
                         ids=["sg3", "skip", "resnet", "orig"])
def test_names_belong_to_the_copies(G) -> None:
    """The layer of name i is the one that sees copy i."""
    names, seen = layer_names(G), {}
    assert len(names) == G.num_ws

    def note(name: str, w: torch.Tensor) -> None:
        seen[name] = float(w[0, 0])

    for name in names:
        affine = G.synthesis.get_submodule(name).affine
        affine.register_forward_pre_hook(lambda _, args, name=name: note(name, args[0]))
    ws = torch.arange(G.num_ws, dtype=torch.float32)[None, :, None].expand(1, -1, G.w_dim)
    G.synthesis(ws, noise_mode="none")
    assert seen == {name: float(i) for i, name in enumerate(names)}


def test_choosing_layers() -> None:
    G = tiny2(64)  # 4 to 64 pixels: num_ws = 10
    assert choose_layers(G, "coarse") == [0, 1, 2]  # up to 8 pixels
    assert choose_layers(G, "middle") == [3, 4, 5, 6]  # 16 and 32
    assert choose_layers(G, "fine") == [7, 8, 9]
    assert choose_layers(G, "0-2, 5,1") == [0, 1, 2, 5]
    assert choose_layers(G, "b16.conv0,b64.torgb") == [3, 9]
    assert choose_layers(G, "all") == list(range(10))
    G3 = tiny3(64, num_layers=6)
    assert layer_names(G3)[0] == "input"
    assert sorted(i for group in ("coarse", "middle", "fine") for i in choose_layers(G3, group)) == list(range(8))
    assert band_limits(G3) == sorted(band_limits(G3))
    assert choose_layers(G3, "L2") == choose_layers(G3, layer_names(G3)[3]) == [3]
    assert choose_layers(G3, "input") == [0]


@pytest.mark.parametrize("text", ["0-6", "6", "3-2", "fine", "L2", "b8", "", "coarse,x", "-1", "b8.conv7"])
def test_layers_that_are_not_there(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose_layers(tiny2(16), text)  # num_ws = 6
    assert str(caught.value).startswith(f"--styles={text}: ")


def test_samples_of_w() -> None:
    G = tiny2(c_dim=2)
    c = torch.tensor([[0.0, 1.0]])
    w = sample_w(G, c, 1500)
    assert w.shape == (1500, 8)
    z = torch.from_numpy(np.random.RandomState(123).randn(1500, 8))
    assert torch.allclose(w[[0, 1499]], G.mapping(z[[0, 1499]], c.expand(2, -1))[:, 0], atol=1e-6)


@pytest.mark.parametrize("G", [tiny3(), tiny2()], ids=["sg3", "sg2"])
def test_mixing_replaces_copies_of_w(G) -> None:
    found = dict(style_mix(G, [1, 2], [3, 1], [0, 2], truncation_psi=0.7, batch=3))
    assert list(found) == [(1, 1), (2, 2), (3, 3), (1, 3), (2, 3), (2, 1)]
    row, col = G.mapping(seed_latents([2, 3], G.z_dim), None, truncation_psi=0.7)
    row[0], row[2] = col[0], col[2]
    expected = to_uint8(G.synthesis(row[None], noise_mode="const"))[0].astype(int)
    assert np.abs(found[2, 3] - expected).max() <= 1  # batching changes the last bits
    assert not np.array_equal(found[2, 3], found[2, 2])
    everything = dict(style_mix(G, [1], [3], list(range(G.num_ws))))
    assert np.abs(everything[1, 3].astype(int) - everything[3, 3]).max() <= 1


@pytest.mark.parametrize(
    ("name", "more"), [("sg3r-64", []), ("sg2-32-cond", ["--class=1"]), ("ada-sg2-32", ["--noise-mode=random"])]
)
def test_layout_of_the_grid(run, golden: Path, tmp_path: Path, name: str, more: list[str]) -> None:
    """ROW-COL.png for all pairs and sources; grid.png with the columns' sources above and the rows' to the left."""
    network = golden / f"{name}.pkl"
    G = sg3.load(network).G_ema
    if G.c_dim and not more:
        more = ["--class=0"]
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        result = run("style-mix", f"--network={network}", "--rows=0,1", "--cols=5-7", "--styles=0-3",
                     f"--outdir={folder}", *more)
        assert result.code == 0, result.err
    names = [Path(line).name for line in result.out.splitlines()]
    pairs = [f"{row}-{col}.png" for row in (0, 1) for col in (5, 6, 7)]
    assert names == [f"{seed}-{seed}.png" for seed in (0, 1, 5, 6, 7)] + pairs + ["grid.png"]
    grid, side = pixels(folders[0] / "grid.png"), G.img_resolution
    assert grid.shape[:2] == (3 * side, 4 * side)
    assert not grid[:side, :side].any()
    for y, row in enumerate([None, 0, 1]):
        for x, col in enumerate([None, 5, 6, 7]):
            if row is not None or col is not None:
                file = f"{col if row is None else row}-{row if col is None else col}.png"
                part = grid[y * side:(y + 1) * side, x * side:(x + 1) * side]
                assert np.array_equal(part, pixels(folders[0] / file)), file
    for file in names:
        assert np.array_equal(pixels(folders[0] / file), pixels(folders[1] / file))
    about = json.loads(Image.open(folders[0] / "1-6.png").text["sg3"])
    assert (about["row"], about["col"], about["styles"]) == (1, 6, [0, 1, 2, 3])


def test_sources_are_those_of_generate(run, golden: Path, tmp_path: Path) -> None:
    common = [f"--network={golden / 'sg3t-64.pkl'}", "--trunc=0.5", f"--outdir={tmp_path}", "--batch=1"]
    run("style-mix", *common, "--rows=3", "--cols=4", "--styles=fine")
    run("generate", *common, "--seeds=3,4")
    for seed in (3, 4):
        assert np.array_equal(pixels(tmp_path / f"{seed}-{seed}.png"), pixels(tmp_path / f"seed000{seed}.png"))


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--network=NET", "--styles=L77"], 2, "--styles=L77: 'L77' is no layer of this network; choose from 0-5"),
        (["--network=NET", "--styles=0-9"], 2, "0-9 is not within this network's layers, 0 to 5"),
        (["--network=NET", "--styles=fine"], 2, "this network of 16 pixels has no fine layers"),
        (["--network=NET", "--styles=0"], 2, "--class: needed"),
        (["--network=NET", "--styles=0", "--class=3"], 2, "--class=3: out of range"),
        (["--network=NET", "--styles=0", "--rows=0-999", "--class=0", "--cols=0-99"], 2, "more than 10000"),
        (["--network=NET", "--styles=0", "--trunc=inf"], 2, "'--trunc': 'inf' is not a finite number"),
        (["--network=NET", "--styles=0", "--rows=x"], 2, "'x' is neither a number nor a range"),
        (["--network=none.pkl"], 66, "none.pkl"),
    ],
)
def test_wrong_inputs(run, tmp_path: Path, args: list[str], code: int, words: str) -> None:
    network = saved(tiny2(c_dim=3), tmp_path / "net.pkl")
    args = [a.replace("NET", str(network)) for a in args]
    result = run("style-mix", "--rows=0", "--cols=1", *args, f"--outdir={tmp_path / 'out'}")
    assert result.code == code, result.err
    assert words in result.error_line()
    assert not (tmp_path / "out").exists()
