"""torch.save files read without torch.load: what comes out, and what hostile ones get."""

from __future__ import annotations

import collections
import datetime
import io
import pickle
import struct
import sys
import types
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sg3
from sg3.errors import DataError
from sg3.formats.storage_stream import DTYPES
from sg3.formats.torch_file import read_torch_file
from tests.helpers import hostile
from tests.helpers.hostile import call, named, text


def saved(value: Any, is_zip: bool, path: Path) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=is_zip)
    return path


@pytest.mark.parametrize("is_zip", [True, False])
def test_tensors_are_torchs(is_zip: bool, tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    values = {f"{dtype}": torch.arange(5).to(dtype) for dtype in DTYPES.values()}
    values |= {"view": base[1:3, ::2], "transposed": base.t(), "empty": torch.empty(0, 3), "scalar": torch.tensor(2.5)}
    values |= {"parameter": torch.nn.Parameter(base)}
    result = read_torch_file(saved({"state_dict": values}, is_zip, tmp_path / "a"), ["state_dict"])["state_dict"]
    assert set(result) == set(values)
    for name, tensor in values.items():
        assert result[name].dtype == tensor.dtype, name
        assert torch.equal(result[name], tensor), name
    assert result["view"].untyped_storage().data_ptr() == result["transposed"].untyped_storage().data_ptr()


@pytest.mark.parametrize("is_zip", [True, False])
def test_what_training_programs_save_beside_the_weights(is_zip: bool, tmp_path: Path) -> None:
    """Objects of their classes, numpy values, integer keys: passed over. The program's package is not there."""
    module = types.ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __init__(self) -> None:
            self.history = np.arange(3.0)
            self.method = getattr

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    module.HistoryBuffer = HistoryBuffer
    names = ["mmengine", "mmengine.logging", module.__name__]
    log = collections.OrderedDict(loss=HistoryBuffer())
    value = {
        "state_dict": {"a": torch.ones(2)},
        "message_hub": {"log_scalars": log, "runtime": collections.defaultdict(dict, {3: {1: np.float64(2)}})},
        "meta": {"time": datetime.datetime(2024, 1, 1), "path": Path("a"), "classes": frozenset({"x"}), "n": 2**40},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}},
        "recent": [collections.deque([1.5]), collections.deque([1, 2], maxlen=3), collections.Counter("ab"), range(3)],
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setitem(sys.modules, name, module if name == names[-1] else types.ModuleType(name))
        path = saved(value, is_zip, tmp_path / "a")
    result = read_torch_file(path, ["state_dict"])
    assert list(result) == ["state_dict"]
    assert torch.equal(result["state_dict"]["a"], torch.ones(2))
    assert "mmengine" not in sys.modules


def test_objects_among_the_weights_are_refused(tmp_path: Path) -> None:
    torch.save({"g_ema": {"a": np.float64(2)}}, tmp_path / "a")
    with pytest.raises(DataError, match="holds a value of type Inert"):
        sg3.load(tmp_path / "a")


# ---- attacks

SYSTEM = call(named("os", "system"), text("true"))
ONES = b"\x00\x00\x80\x3f"


def storage(count: int, key: str = "0", kind: str = "FloatStorage") -> bytes:
    parts = text("storage") + named("torch", kind) + text(key) + text("cpu") + b"\x8a\x08" + struct.pack("<q", count)
    return b"(" + parts + b"tQ"


def tensor(count: int, size: bytes = b"K\x04\x85", stride: bytes = b"K\x01\x85", **options: Any) -> bytes:
    more = b"\x89" + call(named("collections", "OrderedDict"))
    return call(named(*hostile.TENSOR), storage(count, **options), b"K\x00", size, stride, more)


def dictionary(value: bytes) -> bytes:
    return b"\x80\x02}" + text("g_ema") + b"}" + text("a") + value + b"ss."


def archive(files: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as target, warnings.catch_warnings(action="ignore"):
        for name, content in files:
            target.writestr(name, content)
    return stream.getvalue()


GOOD = [("a/data.pkl", dictionary(tensor(4))), ("a/data/0", ONES * 4)]
LONG = b"\x8a\x05\x00\x00\x00\x00\x40\x85"  # a shape of 2^38
DEEP = b"\x80\x02}" + text("g_ema") + b"}" + text("a") + b")" + b"\x85" * 150 + b"ss."
HOSTILE = {
    "refers to os.system": archive([("a/data.pkl", b"\x80\x02}" + text("meta") + SYSTEM + b"s."), GOOD[1]]),
    "refers to builtins.eval": archive([("a/data.pkl", dictionary(call(named("builtins", "eval"), text("1"))))]),
    "refers to __builtin__.exec": archive([("a/data.pkl", dictionary(named("__builtin__", "exec")))]),
    "holds a value of type Inert": archive([("a/data.pkl", dictionary(call(named("torch.hub", "load"), text("x"))))]),
    "two of the same name": archive([*GOOD, GOOD[1]]),
    "is a compressed zip archive": archive(GOOD, zipfile.ZIP_DEFLATED),
    "not of torch.save .a dataset": archive([("img/0.png", b"x"), ("dataset.json", b"{}")]),
    "not of torch.save": archive([*GOOD, ("b/data.pkl", dictionary(tensor(4)))]),
    "is a TorchScript program": archive([*GOOD, ("a/constants.pkl", b"\x80\x02).")]),
    "byte order": archive([*GOOD, ("a/byteorder", b"big" if sys.byteorder == "little" else b"little")]),
    "has no storage ../0": archive([("a/data.pkl", dictionary(tensor(4, key="../0"))), GOOD[1]]),
    "holds a storage of 1152921504606846976 elements": archive([("a/data.pkl", dictionary(tensor(2**60))), GOOD[1]]),
    "storage is described in an unknown way": archive([("a/data.pkl", dictionary(tensor(-4))), GOOD[1]]),
    "describes more data than it holds": archive([("a/data.pkl", dictionary(tensor(4, LONG, b"K\x00\x85"))), GOOD[1]]),
    "of impossible shape": archive([("a/data.pkl", dictionary(tensor(4, b"K\x02\x85", b"K\x01K\x01\x86"))), GOOD[1]]),
    "nested more than 100 levels": archive([("a/data.pkl", DEEP)]),
    "dictionary key or set member": archive([("a/data.pkl", b"\x80\x02})K\x01s.")]),
    "that is not text": archive([("a/data.pkl", b"\x80\x02}\x8a\x08" + struct.pack("<q", 2**61 - 1) + b"Ns.")]),
    "more than 250000 pickle instructions": archive([("a/data.pkl", b"\x80\x02" + b"N0" * 300_000 + b"N.")]),
    "memo slot": archive([("a/data.pkl", b"\x80\x02Nr\xff\xff\xff\xff.")]),
    "one list instead of a dictionary": archive([("a/data.pkl", b"\x80\x02].")]),
    "it holds nothing": archive([("a/data.pkl", b"\x80\x02}.")]),
    "not a torch.save file .BadZipFile": b"PK\x03\x04" + bytes(200),
    "bad|Bad CRC|CRC-32": archive(GOOD).replace(ONES * 4, ONES * 3 + b"\0\0\0\0", 1),
}  # fmt: skip


@pytest.mark.parametrize("message", HOSTILE)
def test_hostile_zips(message: str, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(HOSTILE[message])
    with pytest.raises(DataError, match=message) as caught:
        sg3.load(tmp_path / "a.pth")
    assert str(caught.value).startswith(f"{tmp_path / 'a.pth'}: ")
    assert str(caught.value).isprintable()


def test_one_storage_in_two_ways(tmp_path: Path) -> None:
    both = b"](" + tensor(4) + tensor(4, kind="IntStorage") + b"e"
    (tmp_path / "a.pth").write_bytes(archive([("a/data.pkl", dictionary(both)), GOOD[1]]))
    with pytest.raises(DataError, match="describes one storage in two ways"):
        sg3.load(tmp_path / "a.pth")


def test_a_directory_that_claims_more_than_there_is(tmp_path: Path) -> None:
    """Entries that overlap, so that a small file would give large tensors many times over."""
    files = [("a/data.pkl", dictionary(tensor(4))), *((f"a/data/{i}", bytes(100)) for i in range(9))]
    content = bytearray(archive(files))
    first = content.index(b"a/data/0") - 30
    at = content.index(b"PK\x01\x02")
    while (at := content.find(b"PK\x01\x02", at + 1)) >= 0:
        content[at + 42 : at + 46] = struct.pack("<I", first)  # all entries at the first one's place
        content[at + 20 : at + 28] = struct.pack("<II", 1000, 1000)
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(DataError, match="claims more than it holds"):
        sg3.load(tmp_path / "a.pth")


def legacy(body: bytes, keys: bytes, payload: bytes) -> bytes:
    parts = [pickle.dumps(p, 2) for p in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": sys.byteorder == "little"})]
    return b"".join(parts) + body + keys + payload


KEYS = b"\x80\x02]" + text("0") + b"a."
OLD = {
    "refers to os.system": legacy(dictionary(SYSTEM), KEYS, b""),
    "has a storage of 1099511627776 elements": legacy(dictionary(tensor(2**40)), KEYS, struct.pack("<q", 2**40) + ONES),
    "has a storage of -1 elements": legacy(dictionary(tensor(4)), KEYS, struct.pack("<q", -1) + ONES * 4),
    "has a storage 7 that no tensor uses": legacy(dictionary(tensor(4)), KEYS.replace(b"0", b"7"), bytes(24)),
    "no usable list of storages": legacy(dictionary(tensor(4)), b"\x80\x02}.", b""),
    "has no storage 0 of 5 elements": legacy(dictionary(tensor(5)), KEYS, struct.pack("<q", 4) + ONES * 4),
    "damaged or not a torch.save file": legacy(dictionary(tensor(4)), KEYS, b"\x04"),
}


@pytest.mark.parametrize("message", OLD)
def test_hostile_files_of_the_old_form(message: str, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(OLD[message])
    with pytest.raises(DataError, match=message):
        sg3.load(tmp_path / "a.pt")


def test_the_good_ones_are_good(tmp_path: Path) -> None:
    """The hostile files differ from these in one thing each."""
    (tmp_path / "a").write_bytes(archive(GOOD))
    assert torch.equal(read_torch_file(tmp_path / "a", ["g_ema"])["g_ema"]["a"], torch.ones(4))
    (tmp_path / "a").write_bytes(legacy(dictionary(tensor(4)), KEYS, struct.pack("<q", 4) + ONES * 4))
    assert torch.equal(read_torch_file(tmp_path / "a", ["g_ema"])["g_ema"]["a"], torch.ones(4))


def python_2(*pairs: tuple[str, bytes]) -> bytes:
    """A file that holds an OrderedDict of an OrderedDict, with strings and pairs as Python 2 writes them."""

    def ordered(items: Any) -> bytes:
        written = (b"](U" + bytes([len(name)]) + name.encode() + value + b"e" for name, value in items)
        return call(named("collections", "OrderedDict"), b"](" + b"".join(written) + b"e")

    body = ordered([("g_ema", ordered(pairs))]).replace(text("storage"), b"U\x07storage").replace(text("0"), b"U\x010")
    return legacy(b"\x80\x02" + body + b".", KEYS.replace(text("0"), b"U\x010"), struct.pack("<q", 4) + ONES * 4)


def test_files_of_python_2(tmp_path: Path) -> None:
    """As the package lpips has its linear layers."""
    (tmp_path / "a").write_bytes(python_2(("a", tensor(4)), ("b", tensor(4))))
    found = read_torch_file(tmp_path / "a", ["g_ema"])["g_ema"]
    assert list(found) == ["a", "b"]
    assert torch.equal(found["b"], torch.ones(4))


@pytest.mark.parametrize("pair", [b"](h\x00h\x00e", b"K\x01", b"](K\x01K\x01e", text("ab"), b"](e"])
def test_dictionaries_of_other_pairs_are_refused(pair: bytes, tmp_path: Path) -> None:
    """Nothing but names may be hashed."""
    body = b"\x80\x02)q\x000" + call(named("collections", "OrderedDict"), b"](" + pair + b"e") + b"."
    (tmp_path / "a").write_bytes(legacy(body, KEYS, struct.pack("<q", 4) + ONES * 4))
    with pytest.raises(DataError, match="made of something else than names and values"):
        read_torch_file(tmp_path / "a", ["g_ema"])


@pytest.mark.parametrize("is_zip", [True, False])
def test_truncated_files(is_zip: bool, tmp_path: Path) -> None:
    content = saved({"g_ema": {"a": torch.ones(50)}}, is_zip, tmp_path / "a").read_bytes()
    for length in range(0, len(content), 7):
        (tmp_path / "b").write_bytes(content[:length])
        with pytest.raises(DataError):
            sg3.load(tmp_path / "b")
