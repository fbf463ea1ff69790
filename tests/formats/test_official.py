"""Snapshots of the original and of sg3 in the original's format."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sg3
from sg3.errors import UsageError
from sg3.formats.pickle_values import read_pickle
from sg3.models.augment import SPECS, AugmentPipe
from sg3.models.layers import FullyConnectedLayer
from tests.helpers import tiny_networks as tiny
from tests.helpers.compare import assert_same_state
from tests.helpers.tiny_networks import GENERATORS

# ---- files of the original


@pytest.mark.parametrize("name", ["sg3t-64", "sg3r-64", "sg2-32-cond"])
def test_golden_snapshot(name: str, golden: Path, golden_networks: Any) -> None:
    settings, arrays = golden_networks
    expected = arrays.under(f"{name}/")
    loaded = sg3.load(golden / f"{name}.pkl")  # its source raises when executed
    for network, kind in ((loaded.G, "G"), (loaded.G_ema, "G"), (loaded.D, "D")):
        shapes = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
        assert shapes == settings[name][f"{kind}_state"]
        assert settings[name][f"{kind}_kwargs"].items() <= network.init_kwargs.items()
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())
    z, c = expected["z"], expected["c"]
    torch.testing.assert_close(loaded.G_ema.mapping(z, c), expected["ws"], rtol=0, atol=1e-5)
    image = loaded.G_ema(z[:1], c[:1], noise_mode="const")
    torch.testing.assert_close(image, expected["img"][:1], rtol=0, atol=1e-4)
    torch.testing.assert_close(loaded.D(expected["d_x"], expected["d_c"]), expected["d_logits"], rtol=0, atol=1e-4)
    pipe = loaded.augment_pipe
    assert isinstance(pipe, AugmentPipe)
    assert pipe.init_kwargs["rotate90"] == 1
    assert 0 < pipe.p < 1  # ADA had moved it
    assert loaded.training_set_kwargs["path"] == "dataset.zip"


def test_golden_ada_snapshot(golden: Path) -> None:
    expected = {key: torch.from_numpy(array) for key, array in np.load(golden / "ada-sg2-32.npz").items()}
    loaded = sg3.load(golden / "ada-sg2-32.pkl")
    generator = loaded.G_ema
    assert "synthesis_kwargs" not in generator.init_kwargs
    assert generator.mapping.w_avg_beta == 0.995
    assert generator.synthesis.b8.conv1.conv_clamp is None
    ws = generator.mapping(expected["z"], expected["c"], truncation_psi=0.6)
    torch.testing.assert_close(ws, expected["ws"], rtol=0, atol=1e-5)
    image = generator(expected["z"], expected["c"], noise_mode="const", force_fp32=True)
    torch.testing.assert_close(image, expected["img"], rtol=0, atol=1e-4)
    logits = loaded.D(expected["d_x"], expected["c"][: len(expected["d_x"])])
    torch.testing.assert_close(logits, expected["d_logits"], rtol=0, atol=1e-4)


def test_golden_source_is_kept_as_text(golden: Path) -> None:
    content = read_pickle(golden / "sg3t-64.pkl")
    assert content["G"].module_src.startswith("raise RuntimeError")


# ---- files of sg3


@pytest.mark.parametrize("kind", GENERATORS)
def test_round_trip(kind: str, tmp_path: Path) -> None:
    original = tiny.snapshot(GENERATORS[kind]())
    sg3.save(original, tmp_path / "a.pkl")
    loaded = sg3.load(tmp_path / "a.pkl")
    for name in ("G", "D", "G_ema"):
        before, after = getattr(original, name), getattr(loaded, name)
        assert type(after) is type(before)
        assert after.init_kwargs == before.init_kwargs
        assert after.init_args == before.init_args
        assert_same_state(after, before)
    assert torch.equal(tiny.image(loaded.G), tiny.image(original.G))
    img, c = torch.rand(4, 3, 8, 8), torch.eye(4)[:, :3]
    assert torch.equal(loaded.D(img, c), original.D(img, c))
    assert loaded.training_set_kwargs == original.training_set_kwargs


def test_same_snapshot_same_bytes(tmp_path: Path) -> None:
    original = tiny.snapshot(tiny.stylegan3_generator())
    sg3.save(original, tmp_path / "a.pkl")
    sg3.save(original, tmp_path / "b.pkl")
    sg3.save(sg3.load(tmp_path / "a.pkl"), tmp_path / "c.pkl")
    content = (tmp_path / "a.pkl").read_bytes()
    assert (tmp_path / "b.pkl").read_bytes() == content
    assert (tmp_path / "c.pkl").read_bytes() == content


ORIGINAL_LOADER = """
import pickle, sys, types, uuid

def reconstruct(meta):
    assert meta["type"] == "class" and meta["version"] == 6
    module = types.ModuleType("_imported_module_" + uuid.uuid4().hex)
    sys.modules[module.__name__] = module
    exec(meta["module_src"], module.__dict__)
    cls = module.__dict__[meta["class_name"]]
    obj = cls.__new__(cls)
    obj.__setstate__(meta["state"])
    return obj

sys.modules["torch_utils"] = types.ModuleType("torch_utils")
sys.modules["torch_utils.persistence"] = types.ModuleType("torch_utils.persistence")
sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj = reconstruct
"""
USE_IT = """
from pathlib import Path
import torch, sg3
from tests.helpers import tiny_networks as tiny

for path in map(Path, sys.argv[1:]):
    snapshot = pickle.loads(path.read_bytes())
    assert set(snapshot) == {"G", "D", "G_ema", "augment_pipe", "training_set_kwargs"}
    assert all(isinstance(snapshot[name], torch.nn.Module) for name in ("G", "D", "G_ema"))
    assert not any(p.requires_grad for p in snapshot["G"].parameters()) and not snapshot["G"].training
    G = snapshot["G"]
    assert G._init_kwargs == G.init_kwargs and list(G._init_args) == list(G.init_args)
    torch.save({"image": tiny.image(G), "repr": repr(G)}, path.with_suffix(".pt"))
    sg3.save(sg3.load(path), path.with_suffix(".again.pkl"))
"""


def test_the_originals_loader_reads_our_files(tmp_path: Path) -> None:
    snapshots = {kind: tiny.snapshot(make()) for kind, make in GENERATORS.items()}
    paths = {kind: tmp_path / f"{kind}.pkl" for kind in snapshots}
    for kind, snapshot in snapshots.items():
        sg3.save(snapshot, paths[kind])
    command = [sys.executable, "-c", ORIGINAL_LOADER + USE_IT, *map(str, paths.values())]
    # As many threads as here: sums in another order differ in the last bit.
    environment = {**os.environ, "PYTHONHASHSEED": "123", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], env=environment, timeout=120)
    for kind, snapshot in snapshots.items():
        result = torch.load(paths[kind].with_suffix(".pt"), weights_only=True)
        assert torch.equal(result["image"], tiny.image(snapshot.G)), kind
        assert result["repr"] == repr(snapshot.G)
        # Another process, another hash seed, the same bytes.
        assert paths[kind].with_suffix(".again.pkl").read_bytes() == paths[kind].read_bytes()


def test_saving_leaves_networks_and_process_alone(tmp_path: Path) -> None:
    original = tiny.snapshot(tiny.stylegan2_generator())
    original.G.train().requires_grad_(True)
    original.G.register_forward_hook(lambda *_: None)
    sg3.save(original, tmp_path / "a.pkl")
    assert original.G.training
    assert all(parameter.requires_grad for parameter in original.G.parameters())
    assert "torch_utils" not in sys.modules
    assert not sg3.load(tmp_path / "a.pkl").G._forward_hooks


def test_loading_leaves_the_random_generator_alone(tmp_path: Path) -> None:
    sg3.save(tiny.snapshot(tiny.stylegan3_generator()), tmp_path / "a.pkl")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    sg3.load(tmp_path / "a.pkl")
    assert torch.equal(torch.rand(3), expected)


def test_any_layout_and_precision(tmp_path: Path) -> None:
    """Tensors that are views, shared, not contiguous, or of another dtype than the constructor makes."""
    original = sg3.Snapshot(G_ema=tiny.stylegan2_generator(), D=tiny.discriminator())
    conv = original.G_ema.synthesis.b8.conv1
    conv.weight.data = conv.weight.data.to(memory_format=torch.channels_last)
    conv.noise_const = torch.rand(20, 20)[3:11:1, 2:18:2]
    conv.bias.data = original.G_ema.synthesis.b8.conv0.bias.data
    original.D.half()
    sg3.save(original, tmp_path / "a.pkl")
    loaded = sg3.load(tmp_path / "a.pkl")
    for key, tensor in original.G_ema.state_dict().items():
        assert torch.equal(loaded.G_ema.state_dict()[key], tensor), key
    for key, tensor in original.D.state_dict().items():
        assert torch.equal(loaded.D.state_dict()[key], tensor.float()), key
    loaded.G_ema.synthesis.b8.conv1.bias.data.fill_(3)
    assert not (loaded.G_ema.synthesis.b8.conv0.bias == 3).any()


# ---- the augmentation


def test_augmentation_there_and_back(tmp_path: Path) -> None:
    pipe = AugmentPipe(**SPECS["bgcf"], cutout=1, imgfilter_bands=[1, 0.5, 0.25, 0])
    pipe.p.fill_(0.3125)
    original = sg3.Snapshot(D=tiny.discriminator(), augment_pipe=pipe)
    sg3.save(original, tmp_path / "a.pkl")
    loaded = sg3.load(tmp_path / "a.pkl").augment_pipe
    assert loaded.init_kwargs == pipe.init_kwargs
    assert_same_state(loaded, pipe)
    images = torch.rand(4, 3, 16, 16)
    assert torch.equal(loaded(images, debug_percentile=0.7), pipe(images, debug_percentile=0.7))


# ---- what cannot be saved


class Plan:
    """Something that a layer might cache."""


class Caching(FullyConnectedLayer):
    __module__ = "sg3.models.caching"  # only modules of sg3 are written

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.plan = Plan()


class LeavingOut(Caching):
    __module__ = "sg3.models.caching"

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "plan"}


def test_attributes_that_cannot_be_written(tmp_path: Path) -> None:
    generator = tiny.stylegan2_generator()
    generator.mapping.fc1 = Caching()
    with pytest.raises(UsageError, match=r"G.mapping.fc1.plan: a Plan cannot be saved .*__getstate__"):
        sg3.save(sg3.Snapshot(G=generator), tmp_path / "a.pkl")
    assert not list(tmp_path.iterdir())
    generator.mapping.fc1 = LeavingOut()
    sg3.save(sg3.Snapshot(G=generator), tmp_path / "a.pkl")
    record = read_pickle(tmp_path / "a.pkl")["G"].state["_modules"]["mapping"].state["_modules"]["fc1"]
    assert record.class_name == "LeavingOut"
    assert "plan" not in record.state


def test_foreign_networks_cannot_be_written(tmp_path: Path) -> None:
    class Generator(nn.Module):
        pass

    with pytest.raises(UsageError, match=r"G: is a .*only networks of sg3's and torch's own modules"):
        sg3.save(sg3.Snapshot(G=Generator()), tmp_path / "a.pkl")
    with pytest.raises(UsageError, match=r"training_set_kwargs\.labels: a ndarray cannot be saved"):
        sg3.save(sg3.Snapshot(D=tiny.discriminator(), training_set_kwargs={"labels": np.zeros(3)}), tmp_path / "a.pkl")
    with pytest.raises(UsageError, match="keys other than text"):
        sg3.save(sg3.Snapshot(D=tiny.discriminator(), training_set_kwargs={1: 2}), tmp_path / "a.pkl")
