"""Directions in w: what makes them the strongest, what a strip changes, and `sg3 directions`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sg3
from sg3.errors import UsageError
from sg3.sampling import to_uint8
from sg3.tools.directions import principal_components, sefa, strip
from sg3.tools.latents import choose_layers, sample_w
from tests.helpers.for_tools import pixels, saved, tiny2, tiny3


@pytest.mark.parametrize("G", [tiny3(), tiny2()], ids=["sg3", "sg2"])
def test_sefa_finds_what_changes_styles_most(G) -> None:
    layers = choose_layers(G, "all")
    found = sefa(G, 8, layers)
    styles = [m.affine for name, m in G.synthesis.named_modules()
              if hasattr(m, "affine") and name != "input" and "torgb" not in name and not name.endswith("_3")]
    a = torch.cat([affine.weight * affine.weight_gain for affine in styles]).double()
    change = (found.directions @ a.T).norm(dim=1)
    assert torch.allclose(change, found.values)  # a step of length 1 moves all styles together by this much
    assert torch.all(change[:-1] >= change[1:])
    anywhere = torch.nn.functional.normalize(torch.randn(1000, 8, dtype=torch.float64))
    assert (anywhere @ a.T).norm(dim=1).max() <= change[0]
    assert torch.allclose(found.directions @ found.directions.T, torch.eye(8, dtype=torch.float64), atol=1e-12)
    assert torch.all(found.directions.gather(1, found.directions.abs().argmax(1, keepdim=True)) > 0)
    assert torch.equal(found.scale, torch.ones(8, dtype=torch.float64))


@pytest.mark.parametrize("G", [tiny3(), tiny2()], ids=["sg3", "sg2"])
def test_sefa_looks_at_the_layers_named(G) -> None:
    """Other layers, ToRGB and the input transform have no say."""
    before = sefa(G, 3, [0, 1, 2]).directions
    torgb = f"L3_16_{G.img_channels}" if hasattr(G.synthesis, "input") else f"b{G.img_resolution}.torgb"
    G.synthesis.get_submodule(torgb).affine.weight.data.normal_(0, 100)
    if hasattr(G.synthesis, "input"):
        G.synthesis.input.affine.weight.data.normal_(0, 100)
    assert torch.equal(sefa(G, 3, [0, 1, 2]).directions, before)
    assert torch.equal(sefa(G, 3, choose_layers(G, f"{torgb},0-2")).directions, before)
    assert not torch.allclose(sefa(G, 3, [1, 2, 3]).directions, before, atol=0.01)
    with pytest.raises(UsageError, match=f"--layers: {torgb} have no styles to factorise"):
        sefa(G, 1, choose_layers(G, torgb))


def test_pca_finds_the_axes_of_a_cloud() -> None:
    torch.manual_seed(0)
    axes = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    deviations = torch.tensor([8.0, 4, 2, 1, 0.5, 0.25], dtype=torch.float64)
    w = torch.randn(20_000, 6, dtype=torch.float64) * deviations @ axes + 5
    found = principal_components(w, 4)
    assert torch.allclose((found.directions @ axes.T).abs(), torch.eye(4, 6, dtype=torch.float64), atol=0.03)
    assert torch.allclose(found.values, deviations[:4], rtol=0.03)
    assert torch.equal(found.scale, found.values)
    for num in (0, 7):
        with pytest.raises(UsageError, match=f"--num={num}: expected 1 to 6 directions"):
            principal_components(w, num)


def test_strips() -> None:
    ws = torch.randn(5, 4)
    direction = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
    moved = strip(ws, direction, 2.0, 5, [1, 3])
    assert torch.equal(moved[2], ws)
    assert torch.allclose(moved[:, 1, 0] - ws[1, 0], torch.tensor([-2.0, -1, 0, 1, 2]))
    changed = (moved - ws).abs().amax(dim=0) > 0
    assert changed.nonzero().tolist() == [[1, 0], [3, 0]]


@pytest.mark.parametrize(
    ("name", "method"), [("sg3t-64", "sefa"), ("sg2-32-cond", "sefa"), ("sg2-32-cond", "pca"), ("ada-sg2-32", "pca")]
)
def test_layout(run, golden: Path, tmp_path: Path, name: str, method: str) -> None:
    """directionNN.png with a line for each seed, and directions.npz, whose w are the ends of the strips."""
    network = golden / f"{name}.pkl"
    G = sg3.load(network).G_ema
    args = [f"--network={network}", f"--method={method}", "--num=2", "--seeds=4,5", "--steps=3", "--samples=500"]
    args += ["--class=1"] if G.c_dim else []
    result = run("directions", *args, f"--outdir={tmp_path / 'a'}")
    assert result.code == 0, result.err
    assert [Path(p).name for p in result.out.split()] == ["direction00.png", "direction01.png", "directions.npz"]
    side = G.img_resolution
    sheets = [pixels(tmp_path / "a" / f"direction0{k}.png").astype(int) for k in (0, 1)]
    assert sheets[0].shape == (2 * side, 3 * side, 3)
    assert np.abs(sheets[0][:, side : 2 * side] - sheets[1][:, side : 2 * side]).max() <= 1  # both start from the same
    with np.load(tmp_path / "a" / "directions.npz") as file:
        arrays = dict(file)
    assert {key: value.shape for key, value in arrays.items()} == {
        "directions": (2, G.w_dim), "values": (2,), "scale": (2,), "w_mean": (G.w_dim,), "layers": (G.num_ws,),
        "w": (8, G.num_ws, G.w_dim),
    }  # fmt: skip
    label = torch.eye(G.c_dim)[1:2] if G.c_dim else torch.zeros(1, 0)
    assert np.allclose(arrays["w_mean"], sample_w(G, label, 500).mean(dim=0), atol=1e-6)
    with torch.no_grad():  # [direction, seed, end]
        ends = to_uint8(G.synthesis(torch.from_numpy(arrays["w"]), noise_mode="const")).astype(int)
    for i, image in enumerate(ends):
        k, seed, end = i // 4, i // 2 % 2, i % 2
        part = sheets[k][seed * side : (seed + 1) * side, 2 * end * side :][:, :side]
        assert np.abs(part - image).max() <= 1
    about = json.loads(Image.open(tmp_path / "a" / "direction01.png").text["sg3"])
    assert (about["direction"], about["degrees"], about["seeds"]) == (1, [-2.0, 0.0, 2.0], [4, 5])

    run("directions", *args, f"--outdir={tmp_path / 'b'}")
    assert np.array_equal(pixels(tmp_path / "b" / "direction01.png"), sheets[1])


def test_strips_with_captions(run, tmp_path: Path) -> None:
    network = saved(tiny3(), tmp_path / "net.pkl")
    args = [f"--network={network}", "--num=1", "--seeds=4,5", "--steps=3", "--samples=2", f"--outdir={tmp_path}"]
    assert run("directions", *args, "--captions").code == 0
    assert pixels(tmp_path / "direction00.png").shape == (2 * (96 + 14), 3 * 96, 3)


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--network=NET", "--num=9"], 2, "--num=9: expected 1 to 8 directions"),
        (["--network=NET", "--num=9", "--method=pca"], 2, "--num=9: expected 1 to 8 directions"),
        (["--network=NET", "--layers=L99"], 2, "--layers=L99: 'L99' is no layer of this network"),
        (["--network=NET", "--layers=input"], 2, "--layers: input have no styles to factorise"),
        (["--network=NET", "--degree=nan"], 2, "'--degree': 'nan' is not a finite number"),
        (["--network=NET", "--method=tsne"], 2, "tsne"),
        (["--network=COND"], 2, "--class: needed"),
        (["--network=none.pkl"], 66, "none.pkl"),
    ],
)
def test_wrong_inputs(run, tmp_path: Path, args: list[str], code: int, words: str) -> None:
    networks = {"NET": saved(tiny3(), tmp_path / "net.pkl"), "COND": saved(tiny2(c_dim=2), tmp_path / "cond.pkl")}
    args = [a.replace("NET", str(networks["NET"])).replace("COND", str(networks["COND"])) for a in args]
    result = run("directions", *args, f"--outdir={tmp_path / 'out'}")
    assert result.code == code, result.err
    assert words in result.error_line()
    assert not (tmp_path / "out").exists()


def test_a_class_without_effect_is_noted(run, tmp_path: Path) -> None:
    network = saved(tiny3(), tmp_path / "net.pkl")
    result = run("directions", f"--network={network}", "--num=1", "--class=2", f"--outdir={tmp_path}", "--samples=2")
    assert result.code == 0
    assert "--class=2 has no effect" in result.err
