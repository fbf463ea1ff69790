"""Official network pickles through sg3's own `legacy` and `torch_utils.persistence`."""

from __future__ import annotations

import copy
import importlib
import io
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import sg3
import sg3.compat
from sg3.errors import DataError, MissingInputError
from tests.conftest import ROOT
from tests.helpers import tiny_networks as tiny

KEYS = {"G", "D", "G_ema", "augment_pipe", "training_set_kwargs"}
SNAPSHOTS = ("sg3t-64", "sg3r-64", "sg2-32-cond")


@pytest.fixture
def always() -> Iterator[None]:
    with sg3.compat.install(modules="always", quiet=True):
        yield


def imported(name: str) -> ModuleType:
    return importlib.import_module(name)


def check_golden(networks: dict[str, Any], name: str, arrays: Any) -> None:
    """The networks give the original's images, latents and logits."""
    assert set(networks) == KEYS
    G, D = networks["G_ema"], networks["D"]
    assert type(G).__module__.startswith("sg3.models.")
    expected = arrays.under(f"{name}/")
    z, c = expected["z"][:1], expected["c"][:1]
    torch.testing.assert_close(G.mapping(z, c), expected["ws"][:1], rtol=0, atol=1e-5)
    torch.testing.assert_close(G(z, c, noise_mode="const"), expected["img"][:1], rtol=0, atol=1e-4)
    torch.testing.assert_close(D(expected["d_x"], expected["d_c"]), expected["d_logits"], rtol=0, atol=1e-4)
    assert not G.training
    assert not any(parameter.requires_grad for parameter in G.parameters())
    assert networks["training_set_kwargs"]["path"] == "dataset.zip"


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_golden_through_legacy(name: str, golden: Path, golden_networks: Any, always: None) -> None:
    """As the official tools open it: open_url, then load_network_pkl."""
    with imported("dnnlib").util.open_url(str(golden / f"{name}.pkl")) as f:
        networks = imported("legacy").load_network_pkl(f)
    check_golden(networks, name, golden_networks[1])


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_golden_through_plain_pickle(name: str, golden: Path, golden_networks: Any, always: None) -> None:
    with (golden / f"{name}.pkl").open("rb") as f:
        networks = pickle.load(f)
    check_golden(networks, name, golden_networks[1])
    assert not any(module.startswith("_imported_module_") for module in sys.modules)


@pytest.mark.parametrize(("name", "through"), [
    ("ada-sg2-32", "legacy"), ("ada-sg2-32", "pickle"), ("tf-sg2-16", "legacy"),
])  # fmt: skip
def test_golden_older_files(name: str, through: str, golden: Path, always: None) -> None:
    with (golden / f"{name}.pkl").open("rb") as f:
        networks = imported("legacy").load_network_pkl(f) if through == "legacy" else pickle.load(f)
    expected = {key: torch.from_numpy(array) for key, array in np.load(golden / f"{name}.npz").items()}
    image = networks["G_ema"](expected["z"], expected["c"], noise_mode="const", force_fp32=True)
    torch.testing.assert_close(image, expected["img"], rtol=0, atol=1e-4)


def test_golden_source_runs_only_when_asked_for(golden: Path) -> None:
    """The source inside raises when executed: here that is what shows that it is."""
    with sg3.compat.install(modules="always", execute_source=True, quiet=True):
        imported("torch_utils.persistence")
        with (golden / "sg3t-64.pkl").open("rb") as f, pytest.raises(RuntimeError):
            pickle.load(f)
        assert not any(module.startswith("_imported_module_") for module in sys.modules)


@pytest.mark.parametrize("given", ["file", "bytes", "path", "half-read"])
def test_what_load_network_pkl_takes(given: str, tmp_path: Path, always: None) -> None:
    path = tmp_path / "a.pkl"
    snapshot = tiny.snapshot(tiny.stylegan3_generator())
    sg3.save(snapshot, path)
    content = path.read_bytes()
    if given == "half-read":  # something else lies before the pickle
        path.write_bytes(b"0123" + content)
    with path.open("rb") as file:
        file.seek(4 if given == "half-read" else 0)
        f = {"bytes": io.BytesIO(content), "path": path}.get(given, file)
        networks = imported("legacy").load_network_pkl(f)
    assert set(networks) == KEYS
    assert torch.equal(tiny.image(networks["G"]), tiny.image(snapshot.G))
    assert networks["training_set_kwargs"] == snapshot.training_set_kwargs


def test_missing_parts_are_none_and_errors_are_sg3s(tmp_path: Path, always: None) -> None:
    sg3.save(sg3.Snapshot(G_ema=tiny.stylegan2_generator()), tmp_path / "a.pkl")
    networks = imported("legacy").load_network_pkl(tmp_path / "a.pkl")
    assert set(networks) == KEYS
    assert [key for key in sorted(KEYS) if networks[key] is not None] == ["G_ema"]
    with pytest.raises(DataError, match=r"posix\.system"):
        imported("legacy").load_network_pkl(io.BytesIO(b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R."))
    with pytest.raises(MissingInputError):
        imported("dnnlib").util.open_url(str(tmp_path / "absent.pkl"))


@pytest.mark.parametrize("make", [tiny.stylegan2_generator, tiny.stylegan3_generator])
def test_force_fp16(make: Any, tmp_path: Path, always: None) -> None:
    sg3.save(sg3.Snapshot(G_ema=make(), D=tiny.discriminator()), tmp_path / "a.pkl")
    plain = imported("legacy").load_network_pkl(tmp_path / "a.pkl")
    forced = imported("legacy").load_network_pkl(tmp_path / "a.pkl", force_fp16=True)
    for name in ("G_ema", "D"):
        assert forced[name].init_kwargs["num_fp16_res"] == 4
        assert forced[name].init_kwargs["conv_clamp"] == 256
        assert not any(parameter.requires_grad for parameter in forced[name].parameters())
        for key, tensor in plain[name].state_dict().items():
            assert torch.equal(forced[name].state_dict()[key], tensor), key
    assert forced["G"] is None


@pytest.mark.parametrize("make", [tiny.stylegan2_generator, tiny.stylegan3_generator])
def test_files_of_sg3_through_plain_pickle(make: Any, tmp_path: Path, always: None) -> None:
    """No source is executed for these either, although it would only import sg3."""
    snapshot = tiny.snapshot(make())
    sg3.save(snapshot, tmp_path / "a.pkl")
    loaded = pickle.loads((tmp_path / "a.pkl").read_bytes())
    for name in ("G", "D", "G_ema"):
        assert type(loaded[name]) is type(getattr(snapshot, name))
    assert torch.equal(tiny.image(loaded["G"]), tiny.image(snapshot.G))


# ---- classes of a script's own

OWN_MODULE = """
import torch
from torch_utils import persistence
import marker
marker.executed()

@persistence.persistent_class
class Blob(torch.nn.Module):
    def __init__(self, size, names=()):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(float(size)))
        self.names = list(names)

    def forward(self, x):
        return (x * self.weight).sum()

class Unmarked(Blob):
    pass

@persistence.persistent_class
class Bigger(Blob):
    def __init__(self, size):
        super().__init__(size * 2, names=["big"])
"""
MARKER = "count = 0\ndef executed():\n    global count\n    count += 1\n"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, always: None) -> Iterator[ModuleType]:
    (tmp_path / "own_module.py").write_text(OWN_MODULE)
    (tmp_path / "marker.py").write_text(MARKER)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield imported("own_module")
    for name in ("own_module", "marker"):
        del sys.modules[name]


def test_persistent_class(own: ModuleType) -> None:
    persistence = imported("torch_utils.persistence")
    names = ["a"]
    blob = own.Blob(3, names=names)
    names.append("b")
    assert tuple(blob.init_args) == (3,)
    assert blob.init_kwargs == {"names": ["a"]}
    blob.init_kwargs.names.append("c")
    assert blob.init_kwargs.names == ["a"], "init_kwargs hands out copies"
    assert own.Bigger(2).init_args == (2,)
    assert own.Bigger(2).weight.shape == (4,)
    assert persistence.is_persistent(blob)
    assert persistence.is_persistent(own.Blob)
    assert not persistence.is_persistent(own.Unmarked)
    assert not persistence.is_persistent(3)
    for original in (blob, own.Bigger(2), own.Unmarked(2)):
        for again in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
            assert type(again) is type(original)
            assert again is not original
            assert torch.equal(again.weight, original.weight)
            assert again.names == original.names
    assert imported("marker").count == 1, "a class that is already here needs no second execution of its source"


LOAD_ELSEWHERE = """
import pickle, sys, sg3.compat
from sg3.errors import DataError
sys.path.insert(0, sys.argv[2])
with sg3.compat.install(modules="always", quiet=True):
    blobs = pickle.load(open(sys.argv[1], "rb"))
    assert [type(blob).__name__ for blob in blobs] == ["NotBuilt", "NotBuilt"] and "marker" not in sys.modules
    try:
        blobs[0].forward
    except DataError as error:
        print(error)
with sg3.compat.install(modules="always", execute_source=True, quiet=True):
    blobs = pickle.load(open(sys.argv[1], "rb"))
    assert [type(blob).__name__ for blob in blobs] == ["Blob", "Bigger"] and "own_module" not in sys.modules
    import marker, torch
    assert marker.count == 1, "once for both: they have the same source"
    assert blobs[0](torch.ones(3)) == 3
    assert pickle.loads(pickle.dumps(blobs[0])).names == ["n"] and marker.count == 1
"""


def test_own_classes_in_another_process(own: ModuleType, tmp_path: Path) -> None:
    """Their source is executed on request only."""
    (tmp_path / "blobs.pkl").write_bytes(pickle.dumps([own.Blob(3, names=["n"]), own.Bigger(1)]))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "marker.py").write_text(MARKER)
    command = [sys.executable, "-c", LOAD_ELSEWHERE, tmp_path / "blobs.pkl", elsewhere]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "Blob: comes from a pickle as source text, which sg3 did not execute; if you trust the file, "
        "sg3.compat.install(execute_source=True) does\n"
    )


def meta(**changes: Any) -> dict[str, Any]:
    return {"type": "class", "version": 6, "module_src": "raise SystemExit", "class_name": "X", "state": {}, **changes}


def test_import_hooks_see_and_change_descriptions(own: ModuleType, always: None) -> None:
    persistence = imported("torch_utils.persistence")
    seen = []

    @persistence.import_hook
    def look(meta: dict[str, Any]) -> None:
        seen.append(meta["class_name"])

    @persistence.import_hook
    def rename(meta: dict[str, Any]) -> dict[str, Any]:
        return {**meta, "class_name": meta["class_name"] + "2"}

    assert persistence._reconstruct_persistent_obj(meta()).class_name == "X2"
    assert seen == ["X"]


@pytest.mark.parametrize("changes", [{"version": 5}, {"type": "function"}])
def test_descriptions_of_another_kind(changes: dict[str, Any], always: None) -> None:
    with pytest.raises(DataError, match="persistent object: got"):
        imported("torch_utils.persistence")._reconstruct_persistent_obj(meta(**changes))


def test_what_is_not_built_says_so_when_used(always: None) -> None:
    thing = imported("torch_utils.persistence")._reconstruct_persistent_obj(meta(state={"n": np.float64(2)}))
    assert thing.state == {"n": 2.0}
    assert type(thing.state["n"]) is float
    for use in (lambda: thing.to("cpu"), lambda: thing(1), lambda: thing.eval):
        with pytest.raises(DataError, match="X: comes from a pickle as source text"):
            use()
    copy.deepcopy(thing)  # Python's own questions are not uses
