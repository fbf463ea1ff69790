"""Latents that other programs have saved, and pictures of them."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sg3.errors import DataError
from sg3.models import Generator, fastgan
from sg3.sampling import generate, to_uint8
from sg3.tools.latent_files import load_latents
from tests.helpers.for_tools import pixels, saved, tiny2, tiny3

W, Z = torch.randn(3, 8), torch.randn(2, 8)
LAYERS = torch.randn(2, 6, 8)  # of a StyleGAN2 of 16 pixels


def loaded(path: Path, G: Generator | None = None, **options: Any) -> tuple[str, torch.Tensor, list[str]]:
    notes: list[str] = []
    space, points = load_latents([path], G or tiny2(), note=notes.append, **options)
    return space, points.float(), notes


@pytest.mark.parametrize("value", [
    LAYERS, {"latents": LAYERS}, {"latent": LAYERS, "noise": [W]}, {"projected_w": LAYERS}, {"wp": LAYERS},
    {"w_plus": LAYERS, "path": "a.png"}, {"a.png": {"latent": LAYERS[0]}, "b.png": {"latent": LAYERS[1]}},
    {"a.png": {"w": LAYERS[0]}, "b.png": {"w": LAYERS[1]}}, LAYERS[:, None], LAYERS[None],
])  # fmt: skip
def test_pt_files_of_projectors_and_encoders(value: Any, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "a.pt")
    space, points, notes = loaded(tmp_path / "a.pt")
    assert (space, notes) == ("w", [])
    assert torch.equal(points, LAYERS)


@pytest.mark.parametrize("name", ["w", "projected_w", "latents", "dlatents", "wp", "arr_0"])
def test_npz_files_under_their_names(name: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{name: LAYERS.numpy()})
    space, points, _ = loaded(tmp_path / "a.npz")
    assert space == "w"
    assert torch.equal(points, LAYERS)


@pytest.mark.parametrize("form", ["npy", "npz", "pt", "picture"])
def test_a_w_for_each_layer_is_one_latent(form: str, tmp_path: Path) -> None:
    """Not six keyframes of one w each."""
    path = tmp_path / ("a." + form.replace("picture", "pt"))
    if form == "npy":
        np.save(path, LAYERS[0].numpy())
    elif form == "npz":
        np.savez(path, w=LAYERS[0].numpy())
    else:
        torch.save(LAYERS[0] if form == "pt" else {"a.png": {"latent": LAYERS[0]}}, path)
    space, points, notes = loaded(path)
    assert torch.equal(points, LAYERS[:1])
    said = [f"{path}: w has shape [6, 8], one latent with a w for each of the 6 layers"]
    assert (space, notes) == ("w", [] if form == "picture" else said)
    np.savez(tmp_path / "z.npz", z=LAYERS[0].numpy())
    assert loaded(tmp_path / "z.npz")[1].shape == (6, 8)  # of z there is one for all layers


def test_other_machines_order_of_bytes(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", LAYERS.numpy().astype(">f4"))
    assert torch.equal(loaded(tmp_path / "a.npy")[1], LAYERS)


@pytest.mark.parametrize("header", [
    "{'descr': ('<f4', 'fortran_order': False, 'shape': (1, 8)}", "{'descr': '<f4', 'shape': (1, 8",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 8)}", "-" * 9000 + "1", "(" * 9000,
])  # fmt: skip
def test_headers_that_numpy_chokes_on(header: str, tmp_path: Path) -> None:
    """It parses them as Python, and tidies up what Python cannot parse."""
    text = header.encode() + b"\n"
    content = b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + bytes(32)
    (tmp_path / "a.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("w.npy", content)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(DataError, match="is damaged or no "):
            loaded(tmp_path / name)


@pytest.mark.parametrize("name", ["a.npz", "a.pt"])
def test_a_zip_file_whose_table_has_moved(name: str, tmp_path: Path) -> None:
    """Its first entry would begin before the file does, where reading fails as it does on a broken disk."""
    np.savez(tmp_path / "a.npz", w=LAYERS.numpy())
    torch.save(LAYERS, tmp_path / "a.pt")
    content = bytearray((tmp_path / name).read_bytes())
    for mark, place, form in ((b"PK\x05\x06", 16, "<I"), (b"PK\x06\x06", 48, "<Q")):
        if (found := content.rfind(mark)) >= 0:
            struct.pack_into(form, content, found + place, struct.unpack_from(form, content, found + place)[0] + 10)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"damaged|entry lies outside"):
        loaded(tmp_path / name)


def test_pickled_objects_are_named_and_refused(tmp_path: Path) -> None:
    value = np.array({"w": LAYERS.numpy()}, dtype=object)
    np.save(tmp_path / "a.npy", value, allow_pickle=True)
    np.savez(tmp_path / "a.npz", latents=value)
    (tmp_path / "a.pkl").write_bytes(b"x")
    fix = r"save the array in it: numpy\.save\(NEW, numpy\.load\(OLD, allow_pickle=True\)\.item\(\)\[NAME\]\)"
    for name, words in {"a.npy": fix, "a.npz": f"a.npz: latents: holds pickled Python objects.*{fix}",
                        "a.pkl": "a pickle would be executed, save its array"}.items():  # fmt: skip
        with pytest.raises(DataError, match=words):
            loaded(tmp_path / name)


# ---- sg3 generate --latents


@pytest.mark.parametrize("make", [tiny2, tiny3], ids=["sg2", "sg3"])
def test_pictures_of_any_latent(make: Any, run: Any, tmp_path: Path) -> None:
    G = make()
    saved(G, tmp_path / "net.pkl")
    layers = torch.randn(2, G.num_ws, 8)
    np.savez(tmp_path / "w.npz", w=W.numpy())
    torch.save({"latent": layers}, tmp_path / "layers.pt")
    np.savez(tmp_path / "z.npz", z=Z.numpy())
    words = [f"--network={tmp_path / 'net.pkl'}", f"--outdir={tmp_path / 'out'}"]
    result = run("generate", *words, f"--latents={tmp_path / 'w.npz'}", f"--projected-w={tmp_path / 'layers.pt'}",
                 f"--latents={tmp_path / 'z.npz'}", "--grid=4x2")  # fmt: skip
    assert result.code == 0, result.err
    assert [Path(line).name for line in result.out.split()] == [f"latent{i:04d}.png" for i in range(7)] + ["grid.png"]
    with torch.no_grad():
        ws = torch.cat([W[:, None].expand(-1, G.num_ws, -1), layers])
        expected = [*to_uint8(G.synthesis(ws, noise_mode="const")), *generate(G, Z, torch.zeros(2, 0))]
    for i, picture in enumerate(expected):
        assert np.abs(pixels(tmp_path / "out" / f"latent{i:04d}.png").astype(int) - picture).max() <= 1
    facts = json.loads(Image.open(tmp_path / "out" / "latent0004.png").text["sg3"])
    assert (facts["latents"], facts["index"]) == ("layers.pt", 1)
    assert run("generate", *words, f"--latents={tmp_path / 'w.npz'}", "--trunc=0").code == 0
    mean = to_uint8(G.synthesis(G.mapping.w_avg.expand(1, G.num_ws, -1), noise_mode="const"))[0]
    assert np.abs(pixels(tmp_path / "out" / "latent0002.png").astype(int) - mean).max() <= 1


def test_latents_of_networks_without_w(run: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    G = fastgan.Generator(z_dim=8, img_resolution=256, ngf=4)
    saved(G.eval().requires_grad_(False), tmp_path / "net.pkl")
    np.save(tmp_path / "z.npy", Z.numpy())
    words = [f"--network={tmp_path / 'net.pkl'}", f"--outdir={tmp_path}", f"--latents={tmp_path / 'z.npy'}"]
    result = run("generate", *words)
    assert result.code == 0, result.err
    for i, picture in enumerate(generate(G, Z, torch.zeros(2, 0))):
        assert np.abs(pixels(tmp_path / f"latent{i:04d}.png").astype(int) - picture).max() <= 1


@pytest.mark.parametrize("make", [tiny2, tiny3], ids=["sg2", "sg3"])
def test_a_projection_is_drawn_as_it_was_found(make: Any, run: Any, tmp_path: Path) -> None:
    """With its noise maps or its transform; not with those of another network."""
    from sg3.tools.project import Projection, picture

    G = make()
    saved(G, tmp_path / "net.pkl")
    noise = {name: torch.randn_like(b) for name, b in G.synthesis.named_buffers() if name.endswith("noise_const")}
    pose = None if noise else torch.tensor([0.5, 0.1, 0.2])
    found = Projection(torch.randn(1, G.num_ws, 8), noise, pose, [0.0], torch.zeros(0), None)
    np.savez(tmp_path / "projected_w.npz", **found.arrays())
    words = [f"--network={tmp_path / 'net.pkl'}", f"--outdir={tmp_path}", f"--latents={tmp_path / 'projected_w.npz'}"]
    assert run("generate", *words).code == 0
    assert np.array_equal(pixels(tmp_path / "latent0000.png"), picture(G, found))
    plain = to_uint8(G.synthesis(found.w, noise_mode="const"))[0]
    assert np.abs(pixels(tmp_path / "latent0000.png").astype(int) - plain).max() > 1
    if pose is not None:
        moved = run("generate", *words, "--rotate=0.001")
        assert "its transform is left out" in moved.err
        assert np.abs(pixels(tmp_path / "latent0000.png").astype(int) - plain).max() <= 1
    arrays = {**found.arrays(), "noise/b4.conv9.noise_const": np.zeros((4, 4), np.float32)}
    np.savez(tmp_path / "projected_w.npz", **arrays)
    wrong = run("generate", *words)
    assert wrong.code == 65
    assert "holds b4.conv9.noise_const of shape [4, 4], which is not this network's" in wrong.error_line()


def test_generate_wants_seeds_or_latents(run: Any, tmp_path: Path) -> None:
    for more in ([], ["--seeds=0", "--latents=a.npz"]):
        result = run("generate", "--network=net.pkl", f"--outdir={tmp_path}", *more)
        assert (result.code, "--seeds, --latents: give one of them" in result.error_line()) == (2, True)


# ---- sg3 style-mix


@pytest.mark.parametrize("resolution", [4, 8, 16, 64])
def test_style_mix_without_styles_fits_every_network(resolution: int, run: Any, tmp_path: Path) -> None:
    G = tiny2(resolution)
    saved(G, tmp_path / "net.pkl")
    words = [f"--network={tmp_path / 'net.pkl'}", f"--outdir={tmp_path}", "--rows=0", "--cols=1"]
    assert run("style-mix", *words).code == 0
    facts = json.loads(Image.open(tmp_path / "0-1.png").text["sg3"])
    assert facts["styles"] == list(range(G.num_ws // 2))
    assert run("style-mix", *words, "--captions", "--scale=32").code == 0
    side = 32 * resolution
    assert pixels(tmp_path / "grid.png").shape == (2 * (side + 14), 2 * side, 3)
