"""sg3's .safetensors files: every bit comes back, and damaged or foreign ones are refused."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save, save_file
from torch import nn

import sg3
from sg3.errors import DataError, UsageError
from sg3.models.augment import AugmentPipe
from tests.helpers import tiny_networks as tiny

GOLDEN = ["sg3t-64", "sg3r-64", "sg2-32-cond", "ada-sg2-32", "tf-sg2-16"]
SLOTS = ("G", "D", "G_ema", "augment_pipe")


def assert_same(actual: sg3.Snapshot, expected: sg3.Snapshot) -> None:
    for slot in SLOTS:
        a, b = getattr(actual, slot), getattr(expected, slot)
        assert type(a) is type(b), slot
        if b is not None:
            assert list(a.state_dict()) == list(b.state_dict())
            for name, tensor in b.state_dict().items():
                assert a.state_dict()[name].dtype == tensor.dtype
                assert torch.equal(a.state_dict()[name], tensor), name
            assert a.init_kwargs == json.loads(json.dumps(b.init_kwargs))  # tuples come back as lists
    assert actual.training_set_kwargs == expected.training_set_kwargs


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_files_there_and_back(name: str, golden: Path, tmp_path: Path) -> None:
    """.pkl -> .safetensors -> .pkl -> .safetensors."""
    original = sg3.load(golden / f"{name}.pkl")
    sg3.save(original, tmp_path / "a.safetensors")
    first = sg3.load(tmp_path / "a.safetensors")
    assert_same(first, original)
    sg3.save(first, tmp_path / "a.pkl")
    second = sg3.load(tmp_path / "a.pkl")
    assert_same(second, original)
    sg3.save(second, tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()
    assert torch.equal(tiny.image(second.G_ema), tiny.image(original.G_ema))
    if name != "tf-sg2-16":
        assert isinstance(first.augment_pipe, AugmentPipe)


def test_everything_beside_the_weights(tmp_path: Path) -> None:
    original = tiny.snapshot(tiny.stylegan3_generator())
    original.training_set_kwargs = {"path": Path("a") / "b.zip", "resolution": np.int64(8), "x": [1.5, None, True]}
    original.licence = "CC-BY-NC 4.0, A. U. Thor"
    original.G.train().requires_grad_(True)
    sg3.save(original, tmp_path / "a.safetensors")
    assert original.G.training
    loaded = sg3.load(tmp_path / "a.safetensors")
    assert loaded.training_set_kwargs == {"path": "a/b.zip", "resolution": 8, "x": [1.5, None, True]}
    assert loaded.licence == original.licence
    assert loaded.origin == "sg3 safetensors"
    assert not loaded.G.training
    assert not any(parameter.requires_grad for parameter in loaded.G.parameters())
    assert loaded.G_ema.init_kwargs["resample_filter"] == [1, 2, 1]  # a tuple before
    assert torch.equal(tiny.image(loaded.G), tiny.image(original.G))


def test_names_are_those_of_the_state_dicts(tmp_path: Path) -> None:
    """Other programs need nothing of sg3 to get at the weights."""
    original = tiny.snapshot(tiny.stylegan2_generator())
    sg3.save(original, tmp_path / "a.safetensors")
    tensors = load_file(tmp_path / "a.safetensors")
    expected = {f"{slot}.{name}" for slot in SLOTS[:3] for name in getattr(original, slot).state_dict()}
    assert set(tensors) == expected
    assert torch.equal(tensors["G_ema.mapping.w_avg"], original.G_ema.mapping.w_avg)


def test_views_and_shared_tensors(tmp_path: Path) -> None:
    original = sg3.Snapshot(G=tiny.stylegan2_generator())
    conv = original.G.synthesis.b8.conv1
    conv.weight.data = conv.weight.data.to(memory_format=torch.channels_last)
    conv.bias.data = original.G.synthesis.b8.conv0.bias.data
    sg3.save(original, tmp_path / "a.safetensors")
    assert_same(sg3.load(tmp_path / "a.safetensors"), original)


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    class Generator(nn.Module):
        pass

    with pytest.raises(UsageError, match="G_ema is a Generator, not a network that sg3 can write there"):
        sg3.save(sg3.Snapshot(G_ema=Generator()), tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match="G is a Discriminator"):
        sg3.save(sg3.Snapshot(G=tiny.discriminator()), tmp_path / "a.safetensors")
    for value in (np.zeros(2), float("nan")):
        with pytest.raises(UsageError, match="cannot be written as JSON"):
            sg3.save(sg3.Snapshot(D=tiny.discriminator(), training_set_kwargs={"x": value}), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


# ---- files that are not as they should be


@pytest.fixture
def valid(tmp_path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and configuration of a valid file."""
    sg3.save(sg3.Snapshot(G_ema=tiny.stylegan2_generator()), tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return load_file(tmp_path / "a.safetensors"), json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["sg3"])


def refused(content: bytes, path: Path) -> str:
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        sg3.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return message


def arguments(**entries: Any) -> Any:
    return lambda tensors, config: config["networks"]["G_ema"]["arguments"].update(entries)


WRONG = {
    "configuration of version 2, this sg3 reads 1": lambda t, c: c.update(version=2),
    "describes no networks": lambda t, c: c.update(networks={}),
    "describes G_ema in an unknown way": lambda t, c: c["networks"]["G_ema"].update(family="stylegan4"),
    "describes E in an unknown way": lambda t, c: c["networks"].update(E=c["networks"]["G_ema"]),
    "describes D in an unknown way": lambda t, c: c["networks"].update(D=c["networks"]["G_ema"]),
    "has no argument depth": arguments(depth=3),
    "G_ema: has unusable constructor arguments": arguments(z=[0] * 2000),
    "larger network than its tensors": arguments(mapping_kwargs={"layer_features": 2**14, "num_layers": 4}),
    "z_dim = 16777216 is out of range": arguments(z_dim=2**24),
    "channel_base = nan is out of range": arguments(channel_base=float("nan")),
    "mapping.w_avg missing": lambda t, c: t.pop("G_ema.mapping.w_avg"),
    "extra unexpected": lambda t, c: t.update({"G_ema.extra": torch.ones(1)}),
    r"w_avg has shape \[3\] instead of \[7\]": lambda t, c: t.update({"G_ema.mapping.w_avg": torch.ones(3)}),
    "w_avg holds torch.int32": lambda t, c: t.update({"G_ema.mapping.w_avg": torch.ones(7, dtype=torch.int32)}),
    "its tensor G.x belongs to no network of its configuration": lambda t, c: t.update({"G.x": torch.ones(3)}),
    "a StyleGAN3 generator .* has no argument resample_filter": lambda t, c: c["networks"]["G_ema"].update(
        family="stylegan3-generator"
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_files_that_do_not_fit(message: str, valid: Any, tmp_path: Path) -> None:
    tensors, config = valid
    WRONG[message](tensors, config)
    text = refused(save(tensors, metadata={"sg3": json.dumps(config)}), tmp_path / "b.safetensors")
    assert re.search(message, text), text


def test_settings_too_deep_to_follow_are_left_out(valid: Any, tmp_path: Path) -> None:
    tensors, config = valid
    config["training_set_kwargs"] = {"path": "a.zip", "deep": json.loads("[" * 700 + "]" * 700)}
    (tmp_path / "b.safetensors").write_bytes(save(tensors, metadata={"sg3": json.dumps(config)}))
    assert sg3.load(tmp_path / "b.safetensors").training_set_kwargs == {"path": "a.zip"}


def test_foreign_files(tmp_path: Path) -> None:
    save_file({"unet.conv.weight\n": torch.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match=r"a safetensors file without sg3's configuration .it holds unet.conv.weight, "):
        sg3.load(tmp_path / "a.safetensors")
    for text, message in (("{", "unreadable configuration"), ("[" * 100_000, "unreadable"), ("3", "of version None")):
        assert message in refused(save({"a": torch.ones(2)}, metadata={"sg3": text}), tmp_path / "b.safetensors")


def header(text: bytes, payload: bytes = bytes(8), length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text + payload


def entry(dtype: str = "F32", shape: str = "[2]", offsets: str = "[0,8]") -> bytes:
    return f'{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}'.encode()


HOSTILE = {
    "longer than the file": header(b"{}", length=2**30),
    "length of 2^39": header(b"{}", length=2**39),
    "length 0 and a brace": header(b"{}", length=0),
    "no JSON": header(b"{nonsense}"),
    "not closed": header(b'{"a":'),
    "deep": header(b'{"a":' * 100_000),
    "not text": header(b'{"\xff":1}'),
    "list of tensors": header(b'{"a":[]}'),
    "offsets beyond the file": header(b'{"a":' + entry(shape="[4]", offsets="[0,16]") + b"}"),
    "negative offset": header(b'{"a":' + entry(offsets="[-8,0]") + b"}"),
    "offsets the wrong way round": header(b'{"a":' + entry(offsets="[8,0]") + b"}"),
    "overlapping tensors": header(b'{"a":' + entry() + b',"b":' + entry() + b"}"),
    "hole": header(b'{"a":' + entry(offsets="[8,16]") + b"}", bytes(16)),
    "bytes that nothing uses": header(b'{"a":' + entry() + b"}", bytes(16)),
    "shape of another size": header(b'{"a":' + entry(shape="[3]") + b"}"),
    "shape of overflowing size": header(b'{"a":' + entry(shape="[9223372036854775807,4]") + b"}"),
    "unknown dtype": header(b'{"a":' + entry(dtype="Q99") + b"}"),
    "same name twice": header(b'{"a":' + entry() + b',"a":' + entry() + b"}"),
    "metadata that is no text": header(b'{"__metadata__":{"sg3":3},"a":' + entry() + b"}"),
    "metadata only": header(b'{"__metadata__":{"sg3":"{}"}}', b""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers(name: str, tmp_path: Path) -> None:
    refused(HOSTILE[name], tmp_path / "a.safetensors")


def test_truncated_and_flipped(valid: Any, tmp_path: Path) -> None:
    """Whatever is cut off is missed; a changed header is refused or describes the same networks."""
    content = (tmp_path / "a.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    for size in {*range(0, len(content), len(content) // 60), len(content) - 1}:
        refused(content[:size], tmp_path / "b.safetensors")
    rng = np.random.default_rng(0)
    refusals = 0
    for _ in range(100):
        changed = bytearray(content)
        changed[int(rng.integers(8 + length))] ^= 1 << int(rng.integers(8))
        (tmp_path / "b.safetensors").write_bytes(changed)
        message = ""
        try:
            sg3.load(tmp_path / "b.safetensors")
        except DataError as error:
            message = str(error)
        assert message.isprintable()
        refusals += bool(message)
    assert refusals > 50
