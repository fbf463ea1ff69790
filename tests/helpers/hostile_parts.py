"""Building blocks of hostile files: pickle instructions by hand, and files that are nearly right."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from typing import Any

import torch

from sg3.formats.official_write import _Pickler
from sg3.formats.safe_pickle import Call, Global
from sg3.formats.storage_stream import write_storage

HEAD = b"\x80\x04"
RECORD = ("torch_utils.persistence", "_reconstruct_persistent_obj")
TENSOR = ("torch._utils", "_rebuild_tensor_v2")
STORAGE = ("torch.storage", "_load_from_bytes")


# ---- instructions by hand


def text(s: str) -> bytes:
    return b"X" + struct.pack("<I", len(s.encode())) + s.encode()


def data(b: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(b)) + b


def named(module: str, name: str) -> bytes:
    return b"c" + f"{module}\n{name}\n".encode()


def stack_named(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def call(function: bytes, *args: bytes) -> bytes:
    return function + b"(" + b"".join(args) + b"tR"


def pickled(body: bytes) -> bytes:
    return HEAD + body + b"."


# ---- whole files


def tree(value: Any) -> bytes:
    """A tree of plain data and calls, as sg3 writes it, but of any calls."""
    stream = io.BytesIO()
    _Pickler(stream).dump(value)
    return stream.getvalue()


def record(name: str, state: dict[str, Any], source: str = "", **other: Any) -> Call:
    meta = {"type": "class", "version": 6, "module_src": source, "class_name": name, "state": state, **other}
    return Call(Global(*RECORD), (meta,))


def generator(kwargs: dict[str, Any], tensors: dict[str, Any] | None = None, **more: Any) -> bytes:
    """A snapshot whose G_ema looks like StyleGAN2's generator."""
    b4 = record("SynthesisBlock", {"_modules": {}, "_parameters": tensors or {}, "_buffers": {}})
    synthesis = record("SynthesisNetwork", {"_modules": {"b4": b4}, "_parameters": {}, "_buffers": {}})
    state = {"_modules": {"synthesis": synthesis}, "_init_args": (), "_init_kwargs": kwargs, **more}
    return tree({"G_ema": record("Generator", state)})


def tensor(count: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> Call:
    storage = Call(Global(*STORAGE), (write_storage(torch.zeros(count)),))
    return Call(Global(*TENSOR), (storage, offset, size, stride, False, None))


def storage_claiming(count: int) -> bytes:
    """The stream of a 3-element storage whose header and length field claim `count` elements."""
    real = write_storage(torch.zeros(3))
    real = real.replace(b"K\x03N", b"\x8a\x08" + struct.pack("<q", count) + b"N")
    return real[:-20] + struct.pack("<q", count) + real[-12:]


def evil_zip(body: bytes, storage: bytes = b"", compression: int = zipfile.ZIP_STORED) -> bytes:
    """A torch.save file with one storage, "0"."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + body + b".")
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data/0", storage)
    return stream.getvalue()


def hidden(body: bytes) -> bytes:
    """A pickle that is another one for C's decoder: it loses the rest of a frame that an instruction goes beyond.

    The frame ends in the middle of the length of a bytes object. The decoder takes its second half and two more bytes
    for the length, which is 0 then, and what seemed to be the content for instructions.
    """
    content = bytes(2) + body + b"."
    return b"\x95" + struct.pack("<Q", 3) + b"B" + struct.pack("<I", len(content)) + content


def zipped_tensor(count: int, size: bytes, stride: bytes, key: str = "0") -> bytes:
    """Instructions for {"g_ema": {"a": tensor}}, the tensor's storage being outside the pickle."""
    storage = b"(" + text("storage") + named("torch", "FloatStorage") + text(key) + text("cpu")
    storage += b"\x8a\x08" + struct.pack("<q", count) + b"tQ"
    tensor = call(named(*TENSOR), storage, b"K\x00", size, stride, b"\x89", call(named("collections", "OrderedDict")))
    return b"}" + text("g_ema") + b"}" + text("a") + tensor + b"ss"


def safetensors(header: bytes, payload: bytes = bytes(8), length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + payload


def evil_storage(command: bytes) -> bytes:
    """A storage stream whose fourth pickle, the storage's description, runs a command."""
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    return b"".join(parts) + pickled(command) + pickle.dumps(["0"], 2) + struct.pack("<q", 0)


def pairs(levels: int) -> bytes:
    """A tuple of two references to a tuple of two references to ..., levels deep."""
    steps = (b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86\x940" for i in range(levels))
    return b")\x940" + b"".join(steps) + b"h" + bytes([levels])


def record_by_hand(state: bytes) -> bytes:
    meta = (text("type") + text("class") + text("version") + b"K\x06"
            + text("class_name") + text("Generator") + text("state") + state)  # fmt: skip
    return call(named(*RECORD), b"}(" + meta + b"u")


def shared_modules(levels: int) -> bytes:
    """A generator whose modules each have the next one three times: 3^levels modules by path."""
    body = record_by_hand(b"}" + text("_modules") + b"}s") + b"q\x000"
    for level in range(levels):
        child = b"h" + bytes([level])
        children = b"}(" + text("a") + child + text("b4") + child + text("synthesis") + child + b"u"
        body += record_by_hand(b"}" + text("_modules") + children + b"s") + b"q" + bytes([level + 1]) + b"0"
    return pickled(body + b"}" + text("G_ema") + b"h" + bytes([levels]) + b"s")


def shared_arguments(levels: int) -> bytes:
    """A generator with 2^levels constructor arguments."""
    b4 = b"}" + text("b4") + record_by_hand(b"}") + b"s"
    synthesis = record_by_hand(b"}" + text("_modules") + b4 + b"s")
    state = b"}(" + text("_modules") + b"}" + text("synthesis") + synthesis + b"s"
    state += text("_init_kwargs") + b"}" + text("z_dim") + b"h" + bytes([levels]) + b"su"
    return pickled(pairs(levels) + b"0}" + text("G_ema") + record_by_hand(state) + b"s")


def sizes(**kwargs: Any) -> dict[str, Any]:
    return {"z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": 8, "img_channels": 3, **kwargs}
