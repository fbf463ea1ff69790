"""The argument of `torch.storage._load_from_bytes`: one tensor storage, as torch.save wrote it before torch
1.6.

Plain pickle reduces every tensor to such a stream: five small pickles (magic number, format version,
description of the machine, the storage as a persistent id, the list of storage keys), then the number of
elements as int64 and the elements. torch reads it with another, unrestricted unpickler and allocates what
the header claims; the reader here accepts this layout only, and no claim that the bytes do not back.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
from typing import Any

import torch

from sg3.formats.safe_pickle import Call, Global, Name, unpickle
from sg3.pickle_scan import Refused
from sg3.terminal import printable

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
MAX_INSTRUCTIONS = 100  # in one of the five pickles; the longest has 25
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_TYPE_NAMES: frozenset[Name] = frozenset(("torch", name) for name in DTYPES)
_LITTLE_ENDIAN = sys.byteorder == "little"
_MACHINE = {
    "protocol_version": VERSION,
    "little_endian": _LITTLE_ENDIAN,
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}


def read_storage(data: bytes) -> torch.Tensor:
    """All elements of the storage, as a new 1-D tensor on the CPU. Raises Refused, and what pickle raises."""
    stream = io.BytesIO(data)
    magic, version, machine, storage, keys = (
        unpickle(stream, len(data), _TYPE_NAMES, MAX_INSTRUCTIONS, persistent_ids=True) for _ in range(5)
    )
    if magic != MAGIC or version != VERSION or not isinstance(machine, dict):
        raise Refused("holds a tensor in an unknown format")
    if machine.get("little_endian") is not _LITTLE_ENDIAN:
        raise Refused(f"was written on a machine of another byte order than this {sys.byteorder}-endian one")

    match storage, keys:
        case Call(args=("storage", Global(name=name), str(key), _, int(claimed), None)), [str(listed)]:
            dtype = DTYPES[name]
        case _:
            raise Refused("holds a tensor whose storage is described in an unknown way")
    (count,) = struct.unpack("<q" if _LITTLE_ENDIAN else ">q", stream.read(8))
    payload = memoryview(data)[stream.tell() :]
    if listed != key or count != claimed or count < 0 or count * dtype.itemsize != len(payload):
        raise Refused(f"holds a tensor of {printable(claimed)} elements, but {len(payload)} bytes for it")
    # The copy makes the memory writable; frombuffer refuses an empty buffer.
    return torch.frombuffer(bytearray(payload), dtype=dtype) if count else torch.empty(0, dtype=dtype)


def write_storage(tensor: torch.Tensor) -> bytes:
    """A contiguous CPU tensor's elements as such a stream. torch would use a memory address as the key."""
    type_name = next((name for name, dtype in DTYPES.items() if dtype == tensor.dtype), None)
    if type_name is None:
        raise TypeError(f"a tensor of {tensor.dtype} cannot be written")
    storage = _Storage(type_name, tensor.numel())
    stream = io.BytesIO()
    for part in (MAGIC, VERSION, _MACHINE, storage, [storage.key]):
        _StoragePickler(stream, protocol=2).dump(part)
    stream.write(struct.pack("=q", tensor.numel()))
    stream.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return stream.getvalue()


class _Storage:
    """What a persistent id in the stream refers to."""

    key = "0"

    def __init__(self, type_name: str, count: int) -> None:
        self.persistent_id = ("storage", getattr(torch, type_name), self.key, "cpu", count, None)


class _StoragePickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.persistent_id if isinstance(obj, _Storage) else None
