"""Snapshots of the original and of sg3 in the original's format."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sg3
from sg3.errors import DataError, UsageError
from sg3.formats.pickle_values import read_pickle
from sg3.models.augment import SPECS, AugmentPipe
from sg3.models.layers import FullyConnectedLayer
from tests.helpers import hostile
from tests.helpers import tiny_networks as tiny
from tests.helpers.compare import assert_same_state

GENERATORS = {
    "t": tiny.stylegan3_generator,
    "r": lambda: tiny.stylegan3_generator(radial=True),
    "sg2": tiny.stylegan2_generator,
}


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


# ---- files that torch and numpy write, in the original's structure


class Persistent:
    """Pickled like the original's classes."""

    def __init__(self, class_name: str, state: dict[str, Any]) -> None:
        self.meta = {"type": "class", "version": 6, "module_src": "raise SystemExit", "class_name": class_name}
        self.meta["state"] = state

    def __reduce__(self) -> Any:
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


def persistent(module: nn.Module, **state: Any) -> Persistent:
    """The module as the original would hold it, with the kind of attributes its layers have."""
    children = {key: persistent(child) for key, child in module._modules.items() if child is not None}
    plain = {key: value for key, value in vars(module).items() if type(value) in (bool, int, float, str)}
    extras = {"act_gain": np.sqrt(2), "size": np.array([36, 36]), "use_fp16": np.bool_(True), "dtype": torch.float16}
    extras |= {"shape": torch.Size([1, 2]), "device": torch.device("cpu"), "names": {"a"}}
    tensors = {"_parameters": module._parameters, "_buffers": module._buffers}
    internals = {"_modules": children, "_non_persistent_buffers_set": set(), "_forward_hooks": module._forward_hooks}
    return Persistent(type(module).__name__, {**tensors, **internals, **plain, **extras, **state})


def write_like_the_original(
    monkeypatch: pytest.MonkeyPatch, path: Path, protocol: int = 4, **networks: Persistent
) -> None:
    write_in_another_container(monkeypatch, lambda: path.write_bytes(pickle.dumps(networks, protocol=protocol)))


def write_in_another_container(monkeypatch: pytest.MonkeyPatch, write: Callable[[], object]) -> None:
    """Call `write` where the original's module can be pickled."""

    def _reconstruct_persistent_obj(meta: Any) -> Any:
        raise AssertionError("never called")

    module = types.ModuleType("torch_utils.persistence")
    _reconstruct_persistent_obj.__module__ = module.__name__
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
        patch.setitem(sys.modules, module.__name__, module)
        write()


CONTAINERS: dict[str, tuple[Callable[[Any, Any], Any], set[str]]] = {
    "a generator": (lambda G, D: G, {"G_ema"}),
    "a discriminator": (lambda G, D: D, {"D"}),
    "G and D": (lambda G, D: {"G": G, "D": D}, {"G", "D"}),
    "G_ema and more": (lambda G, D: {"G_ema": G, "step": 3, "optimizer": {"state": {0: torch.ones(3)}}}, {"G_ema"}),
    "all three": (lambda G, D: (G, D, G), {"G", "D", "G_ema"}),
}


@pytest.mark.parametrize("form", ["pickle", "torch.save", "torch.save before 1.6"])
@pytest.mark.parametrize("name", CONTAINERS)
def test_whole_networks_in_other_containers(
    name: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same records, whoever packed them; nothing in them is run."""
    make, slots = CONTAINERS[name]
    G, D = tiny.stylegan2_generator(), tiny.discriminator()
    records = [persistent(net, _init_args=(), _init_kwargs=net.init_kwargs) for net in (G, D)]
    value, path = make(*records), tmp_path / "a.pt"

    def write() -> None:
        if form == "pickle":
            path.write_bytes(pickle.dumps(value))
        else:
            torch.save(value, path, _use_new_zipfile_serialization=form == "torch.save")

    write_in_another_container(monkeypatch, write)
    loaded = sg3.load(path)
    assert {slot for slot in ("G", "D", "G_ema") if getattr(loaded, slot) is not None} == slots
    for slot in slots:
        assert_same_state(getattr(loaded, slot), D if slot == "D" else G)


@pytest.mark.parametrize("form", ["pickle", "torch.save"])
@pytest.mark.parametrize("kind", GENERATORS)
def test_own_networks_pickled_as_they_are(kind: str, form: str, tmp_path: Path) -> None:
    """As Python and torch.save do it, rather than sg3.save."""
    G, D = GENERATORS[kind](), tiny.discriminator()
    tiny.image(G.eval())  # which keeps what follows from the weights
    value = {"G_ema": G, "D": D}
    if form == "pickle":
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(value))
    else:
        torch.save(value, tmp_path / "a.pkl")
    loaded = sg3.load(tmp_path / "a.pkl")
    assert_same_state(loaded.G_ema, G)
    assert_same_state(loaded.D, D)
    assert torch.equal(tiny.image(loaded.G_ema), tiny.image(G))


def test_whole_networks_run_nothing(tmp_path: Path) -> None:
    """Of anything else than the original's classes, the name is said."""

    class Runs:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    for value in (Runs(), {"G": Runs()}):
        torch.save(value, tmp_path / "a.pt")
        with pytest.raises(DataError, match=r"refers to (posix|nt)\.system"):
            sg3.load(tmp_path / "a.pt")
    assert not (tmp_path / "ran").exists()


def test_arguments_of_forks_that_change_nothing_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen layers of a mapping network are buffers there, and remain weights here."""
    G = tiny.stylegan2_generator()
    kwargs = {**G.init_kwargs, "fork_option": None, "other": 0}
    kwargs["mapping_kwargs"] = {**G.init_kwargs.get("mapping_kwargs", {}), "freeze_layers": 1, "freeze_embed": True}
    record = persistent(G, _init_args=(), _init_kwargs=kwargs)
    layer = record.meta["state"]["_modules"]["mapping"].meta["state"]["_modules"]["fc0"].meta["state"]
    layer["_buffers"], layer["_parameters"] = {**layer["_buffers"], **layer["_parameters"]}, {}
    write_like_the_original(monkeypatch, tmp_path / "a.pkl", G=record, G_ema=record)
    loaded = sg3.load(tmp_path / "a.pkl")
    assert_same_state(loaded.G_ema, G)
    assert loaded.notes == ["constructor arguments that change nothing are left out: fork_option = None, other = 0, "
                            "mapping_kwargs.freeze_layers = 1, mapping_kwargs.freeze_embed = True"]
    kwargs["fork_option"] = 2
    write_like_the_original(monkeypatch, tmp_path / "a.pkl", G_ema=record)
    with pytest.raises(DataError, match="has no argument fork_option"):
        sg3.load(tmp_path / "a.pkl")


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("kind", GENERATORS)
def test_torchs_own_pickles(kind: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = GENERATORS[kind]()
    record = persistent(generator, _init_args=(), _init_kwargs=generator.init_kwargs)
    write_like_the_original(monkeypatch, tmp_path / "a.pkl", protocol, G_ema=record)
    loaded = sg3.load(tmp_path / "a.pkl")
    assert_same_state(loaded.G_ema, generator)
    assert loaded.G is None
    assert loaded.training_set_kwargs is None


def test_positional_and_nested_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """StyleGAN2-ADA nests synthesis_kwargs, and had other defaults, which its modules remember."""
    generator = tiny.stylegan2_generator()
    kwargs = dict(generator.init_kwargs)
    positional = tuple(kwargs.pop(name) for name in ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels"))
    mapping = kwargs.pop("mapping_kwargs")
    kwargs.pop("conv_clamp")
    record = persistent(
        generator, _init_args=positional, _init_kwargs={"mapping_kwargs": mapping, "synthesis_kwargs": kwargs}
    )
    children = record.meta["state"]["_modules"]
    children["mapping"].meta["state"]["w_avg_beta"] = 0.995
    children["synthesis"].meta["state"]["_modules"]["b8"].meta["state"]["use_fp16"] = False
    children["synthesis"].meta["state"]["_modules"]["b8"].meta["state"]["_modules"]["conv1"].meta["state"][
        "conv_clamp"
    ] = None
    write_like_the_original(monkeypatch, tmp_path / "a.pkl", G_ema=record)
    loaded = sg3.load(tmp_path / "a.pkl").G_ema
    assert loaded.mapping.w_avg_beta == 0.995
    assert loaded.synthesis.b8.conv1.conv_clamp is None
    assert not loaded.synthesis.b8.use_fp16
    assert_same_state(loaded, generator)


def test_buffers_that_are_not_part_of_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = tiny.stylegan2_generator()
    record = persistent(generator, _init_kwargs=generator.init_kwargs)
    state = record.meta["state"]
    state["_buffers"] = {"cache": torch.zeros(3), "nothing": None}
    state["_non_persistent_buffers_set"] = {"cache"}
    write_like_the_original(monkeypatch, tmp_path / "a.pkl", G=record)
    assert_same_state(sg3.load(tmp_path / "a.pkl").G, generator)


def _without_bias(state: dict[str, Any], kwargs: dict[str, Any]) -> None:
    del state["_modules"]["mapping"].meta["state"]["_modules"]["fc1"].meta["state"]["_parameters"]["bias"]


def _with_extra(state: dict[str, Any], kwargs: dict[str, Any]) -> None:
    state["_buffers"] = {"extra\n": torch.zeros(1)}


def _with_integers(state: dict[str, Any], kwargs: dict[str, Any]) -> None:
    state["_modules"]["mapping"].meta["state"]["_buffers"]["w_avg"] = torch.zeros(7, dtype=torch.int32)


def _with_number_as_tensor(state: dict[str, Any], kwargs: dict[str, Any]) -> None:
    state["_buffers"] = {"w": 1.0}


def _without_arguments(state: dict[str, Any], kwargs: dict[str, Any]) -> None:
    state["_init_kwargs"] = None


WRONG = {
    "mapping.fc1.bias missing": _without_bias,
    "extra unexpected": _with_extra,
    "mapping.w_avg holds torch.int32": _with_integers,
    "w is not a tensor": _with_number_as_tensor,
    "has no constructor arguments": _without_arguments,
    r"mapping.fc0.weight has shape \[7, 13\] instead of \[7, 14\]": lambda _, kwargs: kwargs.update(z_dim=7),
    "has no argument head_layer_names, mapping_kwargs.rand_embedding; this looks like StyleGAN-XL": (
        lambda _, kwargs: kwargs.update(head_layer_names=[], mapping_kwargs={"rand_embedding": True})
    ),
    "cannot be made from its arguments": lambda _, kwargs: kwargs.update(img_resolution=9),
    r"cannot be made.*missing 1 required": lambda _, kwargs: kwargs.pop("z_dim"),
    "unusable constructor arguments .a Tensor": lambda _, kwargs: kwargs.update(z_dim=torch.zeros(2)),
    "unknown structure, expected a StyleGAN3 generator or": lambda state, _: state["_modules"].pop("synthesis"),
}


@pytest.mark.parametrize("message", WRONG)
def test_networks_that_do_not_fit(message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = tiny.stylegan2_generator()
    kwargs = dict(generator.init_kwargs)
    record = persistent(generator, _init_args=(), _init_kwargs=kwargs)
    WRONG[message](record.meta["state"], kwargs)
    write_like_the_original(monkeypatch, tmp_path / "a.pkl", G_ema=record)
    with pytest.raises(DataError, match=message) as caught:
        sg3.load(tmp_path / "a.pkl")
    assert str(caught.value).startswith(f"{tmp_path / 'a.pkl'}: G_ema: ")
    assert "\n" not in str(caught.value)


def test_network_in_the_wrong_place(tmp_path: Path) -> None:
    sg3.save(sg3.Snapshot(G=tiny.discriminator()), tmp_path / "a.pkl")
    with pytest.raises(DataError, match="G: is StyleGAN2 discriminator, expected a StyleGAN3 generator or"):
        sg3.load(tmp_path / "a.pkl")


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


def test_an_augmentation_of_another_kind_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forks have their own; the networks can be used without."""
    pipe = Persistent("OtherPipe", {"_buffers": {"strength": torch.ones(1)}, "_parameters": {}, "_modules": {}})
    generator = tiny.stylegan2_generator()
    record = persistent(generator, _init_args=(), _init_kwargs=generator.init_kwargs)
    write_like_the_original(monkeypatch, tmp_path / "a.pkl", G_ema=record, augment_pipe=pipe)
    loaded = sg3.load(tmp_path / "a.pkl")
    assert loaded.G_ema is not None
    assert loaded.augment_pipe is None


# ---- what StyleGAN2-ADA and relatives write otherwise


def test_missing_and_empty_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = tiny.stylegan2_generator()
    record = persistent(generator, _init_args=(), _init_kwargs=generator.init_kwargs)
    write_like_the_original(monkeypatch, tmp_path / "a.pkl", G_ema=record, D=None, training_set_kwargs=None)
    loaded = sg3.load(tmp_path / "a.pkl")
    assert_same_state(loaded.G_ema, generator)
    assert (loaded.G, loaded.D, loaded.augment_pipe, loaded.training_set_kwargs) == (None, None, None, None)


OUTER = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "mapping_kwargs")


def test_nested_arguments_mean_the_older_decay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = tiny.stylegan2_generator()
    kwargs = {key: value for key, value in generator.init_kwargs.items() if key in OUTER}
    nested = {key: value for key, value in generator.init_kwargs.items() if key not in OUTER}
    record = persistent(generator, _init_args=(), _init_kwargs={**kwargs, "synthesis_kwargs": nested})
    del record.meta["state"]["_modules"]["mapping"].meta["state"]["w_avg_beta"]
    write_like_the_original(monkeypatch, tmp_path / "a.pkl", G_ema=record)
    assert sg3.load(tmp_path / "a.pkl").G_ema.mapping.w_avg_beta == 0.995


@pytest.mark.parametrize(
    ("module", "name", "theirs"),
    [
        ("pg_modules.generator", "Generator", "Projected GAN, FastGAN or StyleGAN-XL"),
        ("timm.models.efficientnet", "EfficientNet", "Projected GAN, FastGAN or StyleGAN-XL"),
        ("dill._dill", "_create_type", "a file saved with dill"),
    ],
)
def test_files_of_relatives_are_named(module: str, name: str, theirs: str, tmp_path: Path) -> None:
    """Wherever in the file they name their modules, and whatever it is refused for."""
    evil = hostile.named(module, name)
    for body in (b"}" + hostile.text("G") + evil + b"s", b"}K\x01Ns0" + evil):
        (tmp_path / "a.pkl").write_bytes(hostile.pickled(body))
        with pytest.raises(DataError, match=f"a.pkl: looks like .*{theirs}.*, which sg3 does not read .") as caught:
            sg3.load(tmp_path / "a.pkl")
        assert str(caught.value).isprintable()


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
