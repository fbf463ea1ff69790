"""Files of torch.save, read without torch.load: the new zip form and the one before torch 1.6.

Both hold a pickle whose tensors refer to storages outside it, by key. The pickle is decoded into inert data by
`safe_pickle`; then only the wanted entries are interpreted. What else a training run saved, optimizers, logs, the
configuration, is passed over: its objects become `Inert`, whatever they are, and its tensors are never read.

    zip      NAME/data.pkl; NAME/data/KEY, a storage's bytes; NAME/byteorder
    before   five pickles (magic number, version, machine, content, list of keys), then for each key the number of
             elements as int64 and the elements
"""

from __future__ import annotations

import io
import struct
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from sg3 import limits
from sg3.errors import DataError
from sg3.formats.pickle_values import CALLS, TENSOR_CALLS, Interpreter, Meaning, failures
from sg3.formats.safe_pickle import Call, Global, Name, unpickle
from sg3.formats.storage_stream import DTYPES, MAGIC, VERSION
from sg3.pickle_scan import Refused
from sg3.terminal import printable

LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number of torch.save before 1.6, pickled
STORAGES: frozenset[Name] = frozenset(("torch", name) for name in DTYPES)
NETWORK_CALLS: Mapping[Name, Meaning] = {**CALLS, **TENSOR_CALLS}
# What training programs keep beside the weights. Nothing of it is imported; other names than these are refused.
INERT_PACKAGES = frozenset({"mmengine", "mmcv", "mmagic", "mmgen", "mmedit", "numpy", "torch", "addict"})
INERT_NAMES: frozenset[Name] = frozenset({
    ("argparse", "Namespace"), ("pathlib", "PosixPath"), ("pathlib", "WindowsPath"), ("datetime", "datetime"),
    ("collections", "defaultdict"), ("collections", "deque"), ("collections", "Counter"), ("_codecs", "encode"),
    *((module, name) for module in ("builtins", "__builtin__")
      for name in ("getattr", "set", "frozenset", "dict", "list", "tuple", "int", "float", "str", "slice", "range",
                   "xrange")),
})  # fmt: skip

Storages = Callable[[str, torch.dtype, int], torch.Tensor]  # key, dtype and number of elements -> 1-D tensor


def read_torch_file(path: Path, wanted: Iterable[str]) -> dict[str, Any]:
    """The wanted entries of the dictionary in a torch.save file; everything, if all entries are tensors.

    Tensors are on the CPU; those that share storage in the file share it here. Raises DataError for a damaged file,
    for one that is no dictionary or has none of these entries, StorageError if it cannot be read.
    """

    def choose(content: Any) -> dict[str, Any]:
        if not isinstance(content, dict):
            raise Refused(f"holds one {type(content).__name__} instead of a dictionary of tensors")
        if kept := {name: content[name] for name in wanted if name in content}:
            return kept
        if not content or not all(isinstance(value, Call) for value in content.values()):
            names = printable(", ".join(map(str, content)) or "nothing")
            raise DataError(f"{path}: is a torch.save file, but of no network that sg3 knows (it holds {names})")
        return content

    return read_chosen(path, choose)


def read_torch_networks(path: Path, wanted: Iterable[str]) -> Any:
    """Of a torch.save file of whole networks: the network, or the wanted entries of a dictionary of networks, as
    `pickle_values.read_pickle` gives them. Raises as `read_torch_file` does."""

    def choose(content: Any) -> dict[str, Any]:
        if not isinstance(content, dict):
            return {"": content}
        return {name: content[name] for name in wanted if name in content}

    found = read_chosen(path, choose, NETWORK_CALLS)
    return found.get("", found)


def read_chosen(
    path: Path, choose: Callable[[Any], dict[Any, Any]], calls: Mapping[Name, Meaning] = TENSOR_CALLS
) -> dict[str, Any]:
    """What `choose` takes out of the content of a torch.save file, in which every tensor is a `Call` still.

    Only what is chosen is read. `calls`: what may be called; with those of networks, layers are read as well. Raises as
    `read_torch_file` does.
    """
    with failures(path, "torch.save file"):
        size = path.stat().st_size
        with path.open("rb") as file:
            is_zip = file.read(2) == b"PK"
            file.seek(0)
            if not is_zip:
                content = _unpickle_parts(file, size, calls)
                return _interpreted(choose(content), size, _LegacyStorages(file, size, content).get, calls)
            with limits.open_zip(file, limits.WEIGHT_ENTRIES, str(path)) as archive:
                folder = _checked(archive, size)
                description = archive.read(f"{folder}data.pkl")
                content = _unpickle(io.BytesIO(description), len(description), size, calls)
                return _interpreted(choose(content), size, _ZipStorages(archive, folder).get, calls)


def state_dict(value: Any, where: str) -> dict[str, torch.Tensor]:
    """The value, if it is a dictionary of tensors; data-parallel training puts "module." before the names."""
    if not isinstance(value, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in value.values()):
        raise DataError(f"{where}: is not a dictionary of tensors")
    return {str(name).removeprefix("module."): tensor for name, tensor in value.items()}


def _interpreted(
    entries: dict[Any, Any], size: int, storages: Storages, calls: Mapping[Name, Meaning]
) -> dict[str, Any]:
    def stored(parts: tuple[Any, ...]) -> torch.Tensor:
        match parts:
            case ("storage", Global(module="torch", name=name), str(key), str(), int(count), *view):
                if name in DTYPES and count >= 0 and view in ([], [None]):
                    return storages(key, DTYPES[name], count)
        raise Refused("holds a tensor whose storage is described in an unknown way")

    interpreter = Interpreter(size, calls, stored)
    return {printable(name): interpreter.value(value) for name, value in entries.items()}


def _unpickle(file: BinaryIO, size: int, outside: int = 0, calls: Mapping[Name, Meaning] = TENSOR_CALLS) -> Any:
    return unpickle(
        file, size, frozenset(calls) | STORAGES, persistent_ids=True, integer_keys=True, is_inert=_is_inert,
        layers=calls is NETWORK_CALLS, outside=outside,
    )  # fmt: skip


def _is_inert(module: str, name: str) -> bool:
    return module.partition(".")[0] in INERT_PACKAGES or (module, name) in INERT_NAMES


# ---- the zip form


def _checked(archive: zipfile.ZipFile, size: int) -> str:
    """The folder that the file's entries are in. Refuses archives that claim more than they can hold: torch.save does
    not compress, so all entries together are smaller than the file."""
    entries = archive.infolist()
    names = {entry.filename for entry in entries}
    if len(names) < len(entries):
        raise Refused("is a zip archive with two of the same name among its entries")
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size for entry in entries):
        raise Refused("is a compressed zip archive, which torch.save does not write")
    if sum(entry.file_size for entry in entries) > size:
        raise Refused("is a zip archive that claims more than it holds")
    folders = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(folders) != 1:
        raise Refused("is a zip archive, but not of torch.save (a dataset?)")
    (folder,) = folders
    if f"{folder}constants.pkl" in names:
        raise Refused("is a TorchScript program, not a file of weights")
    if archive.getinfo(f"{folder}data.pkl").file_size > limits.PICKLE_ENTRY:
        raise Refused("has a description of more than 64 MB")
    if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder").decode("latin-1") != sys.byteorder:
        raise Refused(f"was written on a machine of another byte order than this {sys.byteorder}-endian one")
    return folder


class _ZipStorages:
    """Storages of the zip form, each read when it is asked for, once."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        self._archive = archive
        self._folder = folder
        self._read: dict[str, torch.Tensor] = {}

    def get(self, key: str, dtype: torch.dtype, count: int) -> torch.Tensor:
        if key not in self._read:
            name = f"{self._folder}data/{key}"
            if name not in self._archive.NameToInfo:
                raise Refused(f"has no storage {printable(key)}")
            if self._archive.getinfo(name).file_size != count * dtype.itemsize:
                raise Refused(f"holds a storage of {count} elements, but other bytes for it")
            self._read[key] = _elements(self._archive.read(name), dtype)
        return _same(self._read[key], dtype, count)


# ---- the form before torch 1.6


def _unpickle_parts(file: BinaryIO, size: int, calls: Mapping[Name, Meaning]) -> Any:
    """The content; leaves the file's position after it."""
    magic, version, machine = (_unpickle(file, size) for _ in range(3))
    if magic != MAGIC or version != VERSION or not isinstance(machine, dict):
        raise Refused("is not a torch.save file")
    if machine.get("little_endian") is not (sys.byteorder == "little"):
        raise Refused(f"was written on a machine of another byte order than this {sys.byteorder}-endian one")
    return _unpickle(file, size, calls=calls)


class _LegacyStorages:
    """Storages of the old form. They follow each other without an index; the pickle knows their dtypes."""

    def __init__(self, file: BinaryIO, size: int, content: Any) -> None:
        keys = _unpickle(file, size)
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise Refused("has no usable list of storages")
        if len(set(keys)) < len(keys) or len(keys) > limits.WEIGHT_ENTRIES:
            raise Refused("has too many storages, or two of the same name")
        dtypes = _dtypes(content)
        self._file = file
        self._places: dict[str, tuple[int, int]] = {}  # key -> position of the elements, their number
        for key in keys:
            if key not in dtypes:
                raise Refused(f"has a storage {printable(key)} that no tensor uses")
            (count,) = struct.unpack("=q", file.read(8))
            end = file.tell() + count * dtypes[key].itemsize
            if count < 0 or end > size:
                raise Refused(f"has a storage of {count} elements, more than the file holds")
            self._places[key] = file.tell(), count
            file.seek(end)
        self._read: dict[str, torch.Tensor] = {}

    def get(self, key: str, dtype: torch.dtype, count: int) -> torch.Tensor:
        if key not in self._read:
            if key not in self._places or self._places[key][1] != count:
                raise Refused(f"has no storage {printable(key)} of {count} elements")
            self._file.seek(self._places[key][0])
            self._read[key] = _elements(self._file.read(count * dtype.itemsize), dtype)
        return _same(self._read[key], dtype, count)


def _dtypes(content: Any) -> dict[str, torch.dtype]:
    """The dtype of each storage that anything in the content refers to, optimizers' included."""
    found: dict[str, torch.dtype] = {}
    seen: set[int] = set()
    pending = [content]
    while pending:
        item = pending.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        match item:
            case Call(function=Global(module=""), args=("storage", Global(name=name), str(key), *_)) if name in DTYPES:
                found[key] = DTYPES[name]
            case Call(args=args, state=state):
                pending += [*args, state]
            case dict():
                pending += item.values()
            case list() | tuple():
                pending += item
    return found


# ---- both


def _elements(data: bytes, dtype: torch.dtype) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)


def _same(storage: torch.Tensor, dtype: torch.dtype, count: int) -> torch.Tensor:
    if storage.dtype != dtype or storage.numel() != count:
        raise Refused("describes one storage in two ways")
    return storage


