"""Snapshots of Projected GAN, FastGAN and R3GAN: those of their own code, and sg3's."""

from __future__ import annotations

import json
import lzma
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import sg3
import sg3.compat
from sg3.errors import DataError, UsageError
from sg3.formats import training_state
from sg3.models import Generator, fastgan, r3gan
from sg3.models.projected import ProjectedDiscriminator
from tests.helpers import gan_files
from tests.helpers.compare import assert_same_state
from tests.helpers.golden_gan import GoldenGan, diffaug_draws, makers, one_hot

QUICK = ("pg-fastgan256-cond-best", "pg-stylegan2-32", "r3gan-16", "r3gan-16-cond-bf16", "r3gan-16-oldnames")
LARGER = ("pg-fastgan_lite256", "nv-sg3t-32-projected", "nv-fastgan_lite256")
GROUPS = {"pg": "snapshots_pg", "nv": "snapshots_nv", "r3": "snapshots_r3"}


def decompressed(golden: Path, name: str, folder: Path) -> Path:
    path = folder / f"{name}.pkl"
    path.write_bytes(lzma.decompress((golden / "gan" / f"{name}.pkl.xz").read_bytes()))
    return path


def compare(golden: Path, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Constructor arguments, images and logits, in float32 and float64, and what stands beside the networks."""
    gan = GoldenGan(golden, GROUPS[name[:2]])
    case = gan.case(name)
    snapshot = sg3.load(decompressed(golden, name, folder))  # any source in it raises when executed
    for network, key in ((snapshot.G, "G_kwargs"), (snapshot.G_ema, "G_kwargs"), (snapshot.D, "D_kwargs")):
        given = case.get(key, {})
        made = {k: v for k, v in network.init_kwargs.items() if k in given}
        given = dict(given, FP16Stages=[i % 3 for i in given["FP16Stages"]]) if "FP16Stages" in given else given
        # A resolution that follows from the stages is not noted.
        assert made | {"img_resolution": network.img_resolution} == {"img_resolution": network.img_resolution} | given
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())
    assert snapshot.training_set_kwargs["path"] == "/data/x.zip"

    seed = case["seed"]
    for dtype in (torch.float32, torch.float64):
        make = makers(gan.recipe, dtype)
        G, D = snapshot.G_ema.to(dtype), snapshot.D.to(dtype)
        z = make["normal"]("z", (case["tensors"]["img"]["shape"][0], G.z_dim), seed)
        c = one_hot(case["classes"], case["c_width"]).to(dtype) if case["classes"] else torch.zeros(len(z), 0)
        if isinstance(G, fastgan.Generator):
            monkeypatch.setattr(G.synthesis, "_noise_map", numbered_noise(make["normal"], seed))
        if isinstance(G, fastgan.Generator | r3gan.Generator):
            gan.check(case, "img", G(z, c))
        elif dtype == torch.float32:  # StyleGAN's layers know float32 only
            image = G(z, c, noise_mode="const", force_fp32=True)
            stored, bound = gan.array(f"{name}/img"), case["tensors"]["img"]["tol_abs"]
            torch.testing.assert_close(image.flatten(), stored.flatten(), rtol=0, atol=bound)
        x = make["image"]("x", (len(z), 3, G.img_resolution, G.img_resolution), seed)
        draws = (diffaug_draws(case["D_draws"]),) if "D_draws" in case else ()
        gan.check(case, "logits", D(x, c, *draws))

    if "cur_nimg" in case:
        assert snapshot.progress == {"cur_nimg": case["cur_nimg"]}
        state = snapshot.optimizers["G"]
        assert set(state["state"][0]) == set(case["opt_state_keys"])
        settings = {**state["param_groups"][0], "params": len(state["param_groups"][0]["params"])}
        settings["betas"] = list(settings["betas"])
        assert settings == case["opt_param_group"]
        moments = gan.array(f"{name}/G_opt.exp_avg_sq[0]")
        torch.testing.assert_close(state["state"][0]["exp_avg_sq"], moments, rtol=1e-5, atol=0)
        assert [p.shape for p in snapshot.G.parameters()] == [v["exp_avg"].shape for v in state["state"].values()]
    elif name.startswith("pg"):
        assert snapshot.progress.keys() == {"cur_nimg", "cur_tick", "batch_idx", "best_fid"}
    if "augment_p" in case:
        assert float(snapshot.augment_pipe.p) == case["augment_p"]


def numbered_noise(normal: Callable[..., torch.Tensor], seed: int) -> Callable[..., torch.Tensor]:
    """A generator's noise maps as the case has them, numbered in the order of execution."""
    places: list[int] = []

    def draw(z: torch.Tensor, noise_mode: str, size: int, place: int) -> torch.Tensor:
        places.append(place)
        return normal(f"noise{len(places) - 1}", (len(z), 1, size, size), seed)

    return draw


@torch.no_grad()
@pytest.mark.parametrize("name", QUICK)
def test_golden(golden: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(golden, name, tmp_path, monkeypatch)


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("name", LARGER)
def test_golden_larger(golden: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(golden, name, tmp_path, monkeypatch)


# ---- writing


def small(system: str, c_dim: int = 0) -> sg3.Snapshot:
    """A snapshot of tiny networks, all tensors random."""
    torch.manual_seed(7)
    if system == "r3gan":
        G, D = gan_files.r3gan_pair(c_dim)
    else:
        G = gan_files.fastgan_generator(c_dim)
        heads = {"cout": 4, "ndf": 8, "num_discs": 2, "cond": c_dim > 0, "separable": True}
        D = ProjectedDiscriminator(backbone_kwargs=heads, pretrained=False, c_dim=c_dim, img_resolution=32)
    with torch.no_grad():
        for network in (G, D):
            for tensor in network.state_dict().values():
                tensor.copy_(torch.rand(tensor.shape) + 0.1 if tensor.is_floating_point() else torch.tensor(3))
    optimizers = {slot: gan_files.adam_state(network) for slot, network in (("G", G), ("D", D))}
    progress = {"cur_nimg": 64} if system == "r3gan" else {"cur_nimg": 64, "cur_tick": 2, "best_fid": 3.5}
    return sg3.Snapshot(G=G, D=D, G_ema=G, optimizers=optimizers, progress=progress, training_set_kwargs={"path": "x"})


def assert_same(a: sg3.Snapshot, b: sg3.Snapshot) -> None:
    """Bit for bit: networks, arguments, optimizers, counters."""
    for slot in ("G", "D", "G_ema"):
        first, second = getattr(a, slot), getattr(b, slot)
        assert type(first) is type(second)
        assert first.init_kwargs == second.init_kwargs
        assert_same_state(first, second)
    assert a.progress == b.progress
    assert (a.optimizers is None) == (b.optimizers is None)
    for slot in a.optimizers or {}:
        x, y = a.optimizers[slot], b.optimizers[slot]
        normal = json.loads(json.dumps([x["param_groups"], y["param_groups"]]))  # tuples may come back as lists
        assert normal[0] == normal[1]
        assert x["state"].keys() == y["state"].keys()
        for number, values in x["state"].items():
            assert values.keys() == y["state"][number].keys()
            assert all(torch.equal(value, y["state"][number][key]) for key, value in values.items())


@pytest.mark.parametrize(("system", "c_dim"), [("r3gan", 0), ("r3gan", 3), ("projected", 3)])
def test_there_and_back(system: str, c_dim: int, tmp_path: Path) -> None:
    snapshot = small(system, c_dim)
    sg3.save(snapshot, tmp_path / "a.pkl")
    first = sg3.load(tmp_path / "a.pkl")
    assert_same(snapshot, first)
    sg3.save(first, tmp_path / "b.safetensors")
    second = sg3.load(tmp_path / "b.safetensors")
    assert_same(snapshot, second)
    sg3.save(second, tmp_path / "c.pkl")
    assert_same(snapshot, sg3.load(tmp_path / "c.pkl"))
    # The optimizer takes its state back.
    trained = [p.requires_grad_() for p in (second.G if system == "r3gan" else second.D.discriminator).parameters()]
    optimizer = torch.optim.Adam(trained, lr=1.0)
    optimizer.load_state_dict(second.optimizers["G" if system == "r3gan" else "D"])
    assert optimizer.param_groups[0]["lr"] == 1e-3


BACK_QUICK = ("r3gan-16", "r3gan-16-cond-bf16", "r3gan-16-oldnames")
BACK_LARGER = ("pg-stylegan2-32", "pg-fastgan256-cond-best", *LARGER)


@pytest.mark.parametrize("name", [*BACK_QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in BACK_LARGER)])
def test_a_golden_file_there_and_back(golden: Path, name: str, run, tmp_path: Path) -> None:
    """Each of them, by the command."""
    path = decompressed(golden, name, tmp_path)
    for source, dest in ((path, tmp_path / "a.safetensors"), (tmp_path / "a.safetensors", tmp_path / "b.pkl")):
        result = run("convert", source, dest)
        assert (result.code, result.out) == (0, f"{dest}\n"), result.err
    original, back = sg3.load(path), sg3.load(tmp_path / "b.pkl")
    assert_same(original, back)
    assert (original.augment_pipe is None) == (back.augment_pipe is None)
    if original.augment_pipe is not None:
        assert_same_state(original.augment_pipe, back.augment_pipe)


@pytest.mark.parametrize("system", ["r3gan", "projected"])
def test_the_systems_own_tools_open_sg3s_files(system: str, tmp_path: Path) -> None:
    """They unpickle, with the persistence module that all of them have from StyleGAN3."""
    snapshot = small(system)
    sg3.save(snapshot, tmp_path / "a.pkl")
    with sg3.compat.install(modules="always", quiet=True), (tmp_path / "a.pkl").open("rb") as file:
        content = pickle.load(file)
    assert type(content["G_ema"]) is type(snapshot.G_ema)
    assert_same_state(content["D"], snapshot.D)
    z = torch.randn(2, content["G_ema"].z_dim)
    G = snapshot.G_ema.eval()
    assert torch.equal(content["G_ema"](z, None, noise_mode="const"), G(z, None, noise_mode="const"))
    if system == "r3gan":
        assert content["cur_nimg"] == 64
        assert content["G_opt_state"]["state"][0]["exp_avg"].shape == (8, 4, 4)
    else:
        assert content["progress"]["cur_nimg"].tolist() == [64]
        assert content["progress"]["best_fid"] == 3.5
        logits = content["D"](torch.zeros(1, 3, 32, 32), None)
        assert logits.shape == (1, 32)
        assert "Fast" in type(content["G_ema"].synthesis).__name__, "by which Maua's code recognises it"


def test_features_of_ones_own_are_not_saved(tmp_path: Path) -> None:
    features = nn.Conv2d(3, 4, 1)
    features.CHANNELS, features.RESOLUTIONS = [4], [16]
    D = ProjectedDiscriminator(feature_network=features, backbone_kwargs={"num_discs": 1})
    for name in ("a.pkl", "a.safetensors"):
        with pytest.raises(UsageError, match="D looks through a feature network of its own"):
            sg3.save(sg3.Snapshot(D=D), tmp_path / name)


def test_colours_the_other_way_round(tmp_path: Path) -> None:
    for system in ("r3gan", "projected"):
        snapshot = small(system)
        sg3.save(snapshot, tmp_path / "a.pkl")
        there, back = (sg3.load(tmp_path / "a.pkl", channel_order=order) for order in ("rgb", "bgr"))
        z = torch.randn(2, there.G.z_dim)
        torch.testing.assert_close(there.G(z, noise_mode="const"), back.G(z, noise_mode="const").flip(1))
        x = torch.rand(2, 3, there.G.img_resolution, there.G.img_resolution)
        logits = []
        for D, images in ((there.D, x), (back.D, x.flip(1))):
            torch.manual_seed(0)
            logits.append(D(images))
        torch.testing.assert_close(*logits)


@pytest.mark.parametrize(("c_dim", "lite"), [(0, False), (0, True), (3, False), (3, True)])
def test_arguments_from_tensors(c_dim: int, lite: bool, tmp_path: Path) -> None:
    """Files without constructor arguments, of kinds that the golden data has not."""
    G, D = gan_files.r3gan_pair(c_dim)
    small = gan_files.fastgan_generator(c_dim, lite)
    for network in (G, D, small):
        given = dict(network.init_kwargs)
        slot = "D" if network is D else "G"
        (tmp_path / "a.pkl").write_bytes(gan_files.pickled_by_their_code({slot: network}))
        loaded = getattr(sg3.load(tmp_path / "a.pkl"), slot)
        assert_same_state(loaded, network)
        if network is small:
            assert loaded.init_kwargs == given
        else:  # the types of stages are not in these files, and the width of an embedding is not where there is none
            unknown = {"FP16Stages", "img_resolution"} | (set() if c_dim else {"ConditionEmbeddingDimension"})
            assert {k: v for k, v in loaded.init_kwargs.items() if k not in unknown} == \
                {k: v for k, v in given.items() if k not in unknown}


# ---- what is not theirs


def pickled(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


def test_files_of_other_systems_are_named(tmp_path: Path) -> None:
    """By the ImageNet networks in their discriminators."""
    transformer = b"}(\x8c\x01Dctimm.models.vision_transformer\nVisionTransformer\n)\x81u"
    dino = b"}(\x8c\x04name\x8c\x1avit_small_patch16_224_dino\x8c\x01Dctimm.models.vision_transformer\nBlock\n)\x81u"
    for content, name in ((transformer, "StyleGAN-XL"), (dino, "StyleGAN-T")):
        (tmp_path / "a.pkl").write_bytes(pickled(content))
        with pytest.raises(DataError, match=f"looks like a {name} file, which sg3 does not read"):
            sg3.load(tmp_path / "a.pkl")


def test_nothing_runs(tmp_path: Path) -> None:
    """Classes of the listed modules become records; a function of such a name is not called either."""
    (tmp_path / "a.pkl").write_bytes(pickled(b"ctorch.nn.modules.module\nexec\n\x8c\x051 / 0\x85R"))
    with pytest.raises(DataError):
        sg3.load(tmp_path / "a.pkl")
    (tmp_path / "a.pkl").write_bytes(pickled(b"cpg_modules.blocks\n__import__('os')\n)\x81"))
    with pytest.raises(DataError, match="refers to"):
        sg3.load(tmp_path / "a.pkl")


def damaged(snapshot: sg3.Snapshot, path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = training_state.content(snapshot)
    change(content)
    with pytest.raises(DataError):
        training_state.optimizers(content, str(path))


def test_damaged_optimizer_states(tmp_path: Path) -> None:
    snapshot = small("r3gan")
    damaged(snapshot, tmp_path, lambda content: content.update(G_opt_state=[]))
    damaged(snapshot, tmp_path, lambda content: content["G_opt_state"].update(state={"a": {}}))
    damaged(snapshot, tmp_path, lambda content: content["D_opt_state"]["state"].entries[0].update(exp_avg="text"))
    damaged(small("r3gan"), tmp_path, lambda content: content["D_opt_state"].update(param_groups=[object()]))


def test_shapes_that_no_network_has(golden: Path, tmp_path: Path) -> None:
    """A tensor of another shape, in a file without constructor arguments, is found."""
    path = decompressed(golden, "r3gan-16", tmp_path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"LinearLayer2", b"LinearLayerX"))
    with pytest.raises(DataError, match="its tensors are not those of the R3GAN generator"):
        sg3.load(path)
    path.write_bytes(data.replace(b"AggregationLayer", b"AggregationLayeX"))
    with pytest.raises(DataError, match="expected a StyleGAN3 generator or"):
        sg3.load(path)


def test_every_generator_is_one(tmp_path: Path) -> None:
    assert all(isinstance(small(system).G, Generator) for system in ("r3gan", "projected"))
