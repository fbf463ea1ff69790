"""What the restricted reader accepts, what it refuses, and that damage never gives anything but a DataError."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sg3
from sg3.errors import DataError
from sg3.formats.pickle_values import read_pickle
from sg3.formats.storage_stream import DTYPES, read_storage, write_storage
from sg3.pickle_scan import Refused
from tests.helpers import hostile
from tests.helpers import tiny_networks as tiny

ROOT = Path(__file__).parents[2]


def read(content: bytes, folder: Path) -> Any:
    (folder / "a.pkl").write_bytes(content)
    return read_pickle(folder / "a.pkl")


# ---- storages


@pytest.mark.parametrize("dtype", DTYPES.values())
@pytest.mark.parametrize("count", [0, 1, 7])
def test_storage_streams_are_torchs(dtype: torch.dtype, count: int) -> None:
    tensor = torch.arange(count).to(dtype)
    storage = torch.storage.TypedStorage(wrap_storage=tensor.untyped_storage(), dtype=dtype, _internal=True)
    stream = io.BytesIO()
    torch.save(storage, stream, _use_new_zipfile_serialization=False)
    assert torch.equal(read_storage(stream.getvalue()), tensor)

    ours = write_storage(tensor)
    again = torch.load(io.BytesIO(ours), weights_only=True)
    assert again.dtype == dtype
    assert torch.equal(torch.tensor([], dtype=dtype).set_(again), tensor)
    assert torch.equal(read_storage(ours), tensor)


def test_storage_without_its_end() -> None:
    content = write_storage(torch.rand(5))
    for length in range(len(content)):
        with pytest.raises((Refused, Exception)):
            read_storage(content[:length])


# ---- values


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_values_that_networks_hold(protocol: int, tmp_path: Path) -> None:
    weight = torch.rand(4, 6)
    values = {
        "plain": [None, True, -3, 10**30, 2.5, "ä", b"bytes", (1, (2,)), {"a": {"b": []}}],
        "ordered": OrderedDict(a=1),
        "set": {"x", "y"},
        "view": weight[1:3, ::2],
        "scalar": torch.tensor(2.0),
        "parameter": torch.nn.Parameter(weight),
        "numpy": [np.float32(1.5), np.int64(-2), np.bool_(True), np.float64("nan")],
        "array": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big-endian": np.array([1, 2], dtype=">i2"),
    }
    result = read(pickle.dumps(values, protocol=protocol), tmp_path)
    assert result["plain"] == values["plain"]
    assert result["ordered"] == {"a": 1}
    assert type(result["ordered"]) is dict
    assert result["set"] == {"x", "y"}
    assert torch.equal(result["view"], values["view"])
    assert torch.equal(result["scalar"], values["scalar"])
    assert torch.equal(result["parameter"], weight)
    assert not result["parameter"].requires_grad
    assert result["numpy"][:3] == [1.5, -2, True]
    assert [type(number) for number in result["numpy"]] == [float, int, bool, float]
    np.testing.assert_array_equal(result["array"], values["array"])
    assert result["big-endian"].tolist() == [1, 2]


def test_numpy_1_and_2_names(tmp_path: Path) -> None:
    values = [np.float32(1.5), np.arange(3)]
    new = pickle.dumps(values, protocol=3)
    old = new.replace(b"numpy._core", b"numpy.core")
    assert (b"numpy._core" in new) != (b"numpy._core" in old)
    for content in (new, old):
        number, array = read(content, tmp_path)
        assert number == 1.5
        assert array.tolist() == [0, 1, 2]


def test_shared_objects_stay_shared(tmp_path: Path) -> None:
    tensor = torch.rand(3)
    names = ["a"]
    first, second = read(pickle.dumps([[names, tensor], [names, tensor]]), tmp_path)
    assert first[0] is second[0]
    assert first[1] is second[1]


def test_easy_dict(tmp_path: Path) -> None:
    body = hostile.named("dnnlib.util", "EasyDict") + b")\x81}b" + hostile.text("a") + b"K\x01s"
    assert read(hostile.pickled(body), tmp_path) == {"a": 1}


def test_messages_are_one_line(tmp_path: Path) -> None:
    body = hostile.stack_named("evil\n\x1b[2Jmodule", "n" * 1000)
    with pytest.raises(DataError) as caught:
        read(hostile.pickled(body), tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'a.pkl'}: refers to evil ?[2Jmodule.nnn")
    assert message.endswith("..., which network files never need; not loaded")
    assert message.isprintable()


def test_nothing_but_snapshots(tmp_path: Path) -> None:
    for value, kind in (([1], "list"), ({"state_dict": {}}, "dict"), (7, "int")):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(value))
        with pytest.raises(DataError, match=f"not of G, D and G_ema .it holds one {kind}"):
            sg3.load(tmp_path / "a.pkl")


# ---- attacks and damage


def test_hostile_pickles(tmp_path: Path) -> None:
    """No code runs, and no file takes more than 2 seconds or 512 MB. All in one process, under a memory limit."""
    command = [sys.executable, "-m", "tests.helpers.hostile", str(tmp_path)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr[-2000:]
    results = [json.loads(line) for line in process.stdout.splitlines()]
    assert [result["name"] for result in results] == list(hostile.cases(tmp_path / "sentinel"))
    assert len(results) > 200
    for result in results:
        assert result["outcome"] == "DataError", result
        assert not result["executed"], result
        assert result["seconds"] < 2, result
        assert "more memory" not in result["message"], result
        assert "\n" not in result["message"], result
    messages = {result["name"]: result["message"] for result in results}
    assert messages["os.system"] == "refers to os.system, which network files never need; not loaded"
    assert messages["nested storage"] == messages["os.system"]


def test_names_are_refused_without_the_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second gate alone lets no code run either."""
    monkeypatch.setattr("sg3.formats.safe_pickle.scan", lambda *_: None)
    cases = hostile.cases(tmp_path / "sentinel")
    names = list(cases)
    for name in names[: names.index("4 GB of bytes")]:
        with contextlib.suppress(DataError):  # some, such as DUP, are plain data
            read(cases[name], tmp_path)
        assert not (tmp_path / "sentinel").exists(), name
    assert not {"antigravity", "this"} & sys.modules.keys()


def valid_file(folder: Path) -> bytes:
    """A small snapshot of all kinds of values: tensors, arguments, sets, references."""
    snapshot = sg3.Snapshot(G_ema=tiny.stylegan2_generator(), training_set_kwargs={"path": "a"})
    sg3.save(snapshot, folder / "a.pkl")
    return (folder / "a.pkl").read_bytes()


def loads_or_says_why(content: bytes, path: Path) -> bool:
    path.write_bytes(content)
    message = ""
    try:
        sg3.load(path)
    except DataError as error:
        message = str(error)
    assert not message or (message.startswith(f"{path}: ") and message.isprintable())
    return not message


def test_truncated_files(tmp_path: Path) -> None:
    content = valid_file(tmp_path)
    for length in {*range(0, len(content), max(len(content) // 150, 1)), len(content) - 1}:
        assert not loads_or_says_why(content[:length], tmp_path / "short.pkl")
