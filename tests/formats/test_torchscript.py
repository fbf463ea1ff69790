"""TorchScript archives: all tensors of them, none of the program; hostile and damaged ones."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sg3.errors import DataError
from sg3.formats.torchscript import is_torchscript, read_torchscript
from tests.helpers import hostile

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

class Small(nn.Module):
    """Parameters, buffers, plain attributes, lists of several types, nothing, a shared storage, half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.register_buffer("scale", torch.rand(4, 6)[:, ::2])
        self.attribute = torch.rand(2, dtype=torch.float64)
        self.short = nn.Parameter(torch.rand(3).half())
        self.tensors = [torch.rand(2), torch.zeros(0)]
        self.names, self.sizes, self.ratio, self.nothing = ["a"], [1, 2], 1.5, None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv(x)) * self.ratio + self.scale.sum() + self.attribute.sum() + self.short.sum()


def archive(module: torch.jit.ScriptModule) -> bytes:
    stream = io.BytesIO()
    torch.jit.save(module, stream)
    return stream.getvalue()


@pytest.fixture(scope="module")
def scripted() -> bytes:
    torch.manual_seed(3)
    return archive(torch.jit.script(Small().eval()))


def read(content: bytes) -> dict[str, torch.Tensor]:
    return read_torchscript(io.BytesIO(content), "file")


@pytest.mark.parametrize("traced", [False, True])
def test_archives_hold_the_modules_tensors(traced: bool) -> None:
    module = Small().eval()
    script = torch.jit.trace(module, torch.rand(1, 3, 4, 4)) if traced else torch.jit.script(module)
    content = archive(script)
    assert is_torchscript(io.BytesIO(content))
    tensors = read(content)
    expected = dict(torch.jit.load(io.BytesIO(content)).state_dict())
    assert set(expected) <= set(tensors)
    for name, tensor in expected.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor), name
        assert not tensors[name].requires_grad
    if not traced:
        assert torch.equal(tensors["attribute"], module.attribute)
        assert torch.equal(tensors["tensors.0"], module.tensors[0])
        assert tensors["tensors.1"].shape == (0,)


def test_frozen_archives_hold_constants() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1)).eval()
    tensors = read(archive(torch.jit.freeze(torch.jit.script(module))))
    assert list(tensors) == [f"constants.{n}" for n in range(len(tensors))]
    for weight in module.state_dict().values():
        assert any(torch.equal(weight, tensor) for tensor in tensors.values())


def test_other_zip_files_are_not_torchscript() -> None:
    stream = io.BytesIO()
    torch.save(Small().state_dict(), stream)
    assert not is_torchscript(stream)
    assert not is_torchscript(io.BytesIO(b"PK\x03\x04 and no more"))
    with pytest.raises(DataError, match="file: is a zip file, but not a TorchScript archive; not loaded"):
        read(stream.getvalue())


def rewritten(content: bytes, entries: dict[str, bytes], compress: str = "", without: str = "") -> bytes:
    """The archive with entries (by the ends of their names) replaced or added, compressed or left out."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w") as new:
        folder = old.namelist()[0].split("/")[0]
        parts = {name: old.read(name) for name in old.namelist()}
        for name, data in {**parts, **{f"{folder}/{end}": data for end, data in entries.items()}}.items():
            if not without or not name.endswith(without):
                kind = zipfile.ZIP_DEFLATED if compress and name.endswith(compress) else zipfile.ZIP_STORED
                new.writestr(name, data, kind)
    return stream.getvalue()


def script_object(state: bytes) -> bytes:
    return hostile.named("__torch__.evil", "Module") + b")\x81" + state + b"b"


def test_hostile_archives(scripted: bytes, tmp_path: Path) -> None:
    """No code of a file runs, whichever part it is in, and every refusal says why in one line."""
    sentinel = tmp_path / "sentinel"
    h = hostile
    system = h.call(h.named("os", "system"), h.text(f"touch {sentinel}"))
    claim = h.text("storage") + h.named("torch", "FloatStorage") + h.text("0") + h.text("cpu")
    tensor = h.named(*h.TENSOR) + b"((" + claim + b"J\xff\xff\xff\x7ftQK\x00K\x01\x85K\x01\x85\x89NtR"
    child = b"".join(
        script_object(b"}(" + h.text("a") + b"h" + bytes([n]) + h.text("b") + b"h" + bytes([n]) + b"u")
        + b"q" + bytes([n + 1]) + b"0" for n in range(40)
    )  # fmt: skip
    cases = {
        "os.system": system,
        "in a module's state": script_object(b"}" + h.text("a") + system + b"s"),
        "a real class": h.named("subprocess", "Popen") + b"(" + h.text("true") + b"t\x81",
        "a name that begins like the program's": h.call(h.named("__torch__x", "system"), h.text("a")),
        "the storage loader": h.call(h.named(*h.STORAGE), h.data(h.pickled(system))),
        "a persistent id of another kind": h.text("os.system") + b"Q",
        "a storage that is not there": tensor.replace(h.text("0"), h.text("77")),
        "a storage outside": tensor.replace(h.text("0"), h.text("../data.pkl")),
        "a tensor larger than its storage": tensor,
        "2^40 modules": script_object(b"}") + b"q\x000" + child + b"h\x28",
        "endless lists": b"]" * 5000 + b"a" * 4999,
        "no pickle": b"\xff" * 20,
    }
    reasons: dict[str, str] = {}
    for name, body in cases.items():
        for entry in ("data.pkl", "constants.pkl"):  # reasons are those of the first
            with pytest.raises(DataError) as caught:
                read(rewritten(scripted, {entry: b"\x80\x02" + body + b"."}))
            assert str(caught.value).isprintable(), name
            assert not sentinel.exists(), name
            reasons.setdefault(name, str(caught.value))
    assert reasons["os.system"] == "file: refers to os.system, which network files never need; not loaded"
    assert reasons["in a module's state"] == reasons["os.system"]
    assert "refers to __torch__x.system," in reasons["a name that begins like the program's"]
    assert "describes more than 250000 values" in reasons["2^40 modules"]
    assert "elements, but" in reasons["a tensor larger than its storage"]

    source = f"import os\nos.system('touch {sentinel}')\n".encode()
    names = zipfile.ZipFile(io.BytesIO(scripted)).namelist()
    program = {name.split("/", 1)[1]: source for name in names if "/code/" in name}
    assert program
    assert read(rewritten(scripted, program)).keys() == read(scripted).keys()  # the program is not even looked at
    assert not sentinel.exists()


def test_archives_are_no_bombs(scripted: bytes) -> None:
    for end in ("data.pkl", "data/0"):
        with pytest.raises(DataError, match="larger than itself"):
            read(rewritten(scripted, {end: b"\0" * 10**6}, compress=end))
    with pytest.raises(DataError, match="another byte order"):
        read(rewritten(scripted, {"byteorder": b"big"}))
    with pytest.raises(DataError, match="is a zip file, but not"):
        read(rewritten(scripted, {}, without="constants.pkl"))
    with pytest.raises(DataError, match="data/0"):
        read(rewritten(scripted, {}, without="/data/0"))


def test_damaged_archives(scripted: bytes) -> None:
    """Cut short they never load. A changed bit in what is read is noticed; elsewhere it may not matter."""
    whole = read(scripted)
    for length in range(0, len(scripted), len(scripted) // 60):
        with pytest.raises(DataError):
            read(scripted[:length])
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        content = bytearray(scripted)
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        try:
            tensors = read(bytes(content))
        except DataError:
            refused += 1
            continue
        assert tensors.keys() == whole.keys()
        assert all(torch.equal(tensors[name], whole[name]) for name in whole)
    assert 0 < refused < 300
