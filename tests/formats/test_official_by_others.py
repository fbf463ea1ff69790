"""Files in the original's structure that other programs write: torch's pickles, other containers, relatives' words."""

from __future__ import annotations

import os
import pickle
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
from sg3.errors import DataError
from tests.helpers import hostile
from tests.helpers import tiny_networks as tiny
from tests.helpers.compare import assert_same_state
from tests.helpers.tiny_networks import GENERATORS

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
