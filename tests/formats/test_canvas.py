"""Files of networks for images that are not square: safetensors hold them, other formats are refused."""

from __future__ import annotations

import json
import struct

import pytest
import torch

import sg3
from sg3.errors import DataError, UsageError
from sg3.formats import Snapshot
from sg3.models import stylegan2, stylegan3

NETWORKS = {
    "stylegan3": lambda: stylegan3.Generator(
        6, 0, 7, 32, 3, channel_base=64, channel_max=6, num_layers=5, img_size=(24, 40)
    ),
    "stylegan2": lambda: stylegan2.Generator(6, 0, 7, 32, 3, channel_base=64, channel_max=6, img_size=(24, 40)),
}


@pytest.fixture(params=NETWORKS)
def snapshot(request) -> Snapshot:
    G = NETWORKS[request.param]().eval().requires_grad_(False)
    D = stylegan2.Discriminator(0, 32, 3, channel_base=64, channel_max=6, img_size=(24, 40))
    return Snapshot(G_ema=G, D=D.eval().requires_grad_(False))


def test_safetensors_keep_the_canvas(snapshot, tmp_path) -> None:
    path = tmp_path / "wide.safetensors"
    sg3.save(snapshot, path)
    with path.open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    arguments = json.loads(header["__metadata__"]["sg3"])["networks"]["G_ema"]["arguments"]
    assert (arguments["img_size"], arguments["img_resolution"]) == ([24, 40], 32)
    back = sg3.load(path)
    z = torch.randn(2, 6)
    images = snapshot.G_ema(z, noise_mode="const")
    assert torch.equal(back.G_ema(z, noise_mode="const"), images)
    assert torch.equal(back.D(images), snapshot.D(images))
    assert back.G_ema.img_size == back.D.img_size == (24, 40)


@pytest.mark.parametrize("suffix", [".pkl", ".pt"])
def test_other_formats_say_why_not(suffix, snapshot, tmp_path) -> None:
    path = tmp_path / f"wide{suffix}"
    with pytest.raises(UsageError, match=r"G_ema is for images of 40 x 24, and \S+ files have a place for one side"):
        sg3.save(snapshot, path)
    assert not path.exists()


@pytest.mark.parametrize("size", [[24], [24, 40, 3], [0, 40], [24, 99999], [24.5, 40], "24x40", [25, 41], [240, 400]])
def test_damaged_sizes_are_refused(size, snapshot, tmp_path) -> None:
    path = tmp_path / "wide.safetensors"
    sg3.save(Snapshot(G_ema=snapshot.G_ema), path)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    config = json.loads(header["__metadata__"]["sg3"])
    config["networks"]["G_ema"]["arguments"]["img_size"] = size
    header["__metadata__"]["sg3"] = json.dumps(config)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    if size == [240, 400] and isinstance(snapshot.G_ema, stylegan3.Generator):
        assert sg3.load(path).G_ema.img_size == (240, 400)  # StyleGAN3's weights fit any canvas
        return
    with pytest.raises(DataError):
        sg3.load(path)
