"""TorchScript archives (`torch.jit.save`): the tensors in them, without the program.

Such a file is a zip archive: the program as text under code/, the tree of modules as the pickle data.pkl, what the
program's constants refer to as constants.pkl, and the elements of each storage as an uncompressed entry data/N or
constants/N. `torch.jit.load` compiles the program. Here the two pickles are decoded into inert data (`safe_pickle`),
and the tensors they describe are made of the entries, each claim checked against the bytes that are there.
"""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import torch

from sg3 import limits
from sg3.errors import DataError
from sg3.formats.pickle_values import CALLS
from sg3.formats.safe_pickle import Call, Global, Name, SafeUnpickler, unpickle
from sg3.formats.storage_stream import DTYPES
from sg3.pickle_scan import Refused
from sg3.terminal import printable

ZIP_START = b"PK\x03\x04"
TENSOR: Name = ("torch._utils", "_rebuild_tensor_v2")
_LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")
_NAMES: frozenset[Name] = frozenset(
    {TENSOR, *(("torch", name) for name in DTYPES), *(("torch.jit._pickle", name) for name in _LISTS)}
)


def is_torchscript(file: BinaryIO) -> bool:
    """Whether the file is a TorchScript archive, and not another zip file such as torch.save writes."""
    try:
        with limits.open_zip(file, limits.WEIGHT_ENTRIES, "") as archive:
            return _folder(archive) is not None
    except (DataError, zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def read_torchscript(file: BinaryIO, where: str) -> dict[str, torch.Tensor]:
    """Every tensor of the archive by its place, such as `layer1.conv.weight`, in the order of the file.

    Parameters, buffers and plain attributes are treated alike. The program's constants follow as `constants.0` and
    so on: freezing a module moves its weights there. Nothing in the file is executed.

    Raises DataError, which begins with `where`, if the file is damaged or holds what such files never hold.
    """
    try:
        with limits.open_zip(file, limits.WEIGHT_ENTRIES, where) as archive:
            folder = _folder(archive)
            if folder is None:
                raise Refused("is a zip file, but not a TorchScript archive")
            return dict(_Archive(archive, folder, _size(file)).tensors())
    except DataError:
        raise
    except Refused as refusal:
        raise DataError(f"{where}: {refusal}; not loaded") from None
    except MemoryError:
        raise DataError(f"{where}: needs more memory than there is; not loaded") from None
    except Exception as error:  # zipfile, pickle and torch raise nearly anything on damaged data
        cause = f"{type(error).__name__}: {printable(error)}"
        raise DataError(f"{where}: is damaged or not a TorchScript archive ({cause}); not loaded") from error


def _folder(archive: zipfile.ZipFile) -> str | None:
    """The folder in the archive that everything lies in; only TorchScript has constants.pkl there."""
    names = set(archive.namelist())
    found = [name.split("/")[0] for name in names if name.count("/") == 1 and name.endswith("/constants.pkl")]
    return found[0] if len(found) == 1 and f"{found[0]}/data.pkl" in names else None


def _size(file: BinaryIO) -> int:
    return file.seek(0, io.SEEK_END)


class _Object:
    """An instance of one of the program's classes: its attributes, and nothing of the class."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Unpickler(SafeUnpickler):
    """Any name below `__torch__`, where the program's classes live, stands for one and the same inert class."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Object
        return super().find_class(module, name)


class _Archive:
    def __init__(self, archive: zipfile.ZipFile, folder: str, size: int) -> None:
        self._archive = archive
        self._folder = folder
        self._bytes_left = size  # entries may overlap, but what is read is never more than the file
        self._size = size
        self._storages: dict[str, torch.Tensor] = {}

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        names = set(self._archive.namelist())
        if f"{self._folder}/byteorder" in names and self._entry("byteorder").decode("ascii") != sys.byteorder:
            raise Refused(f"was written on a machine of another byte order than this {sys.byteorder}-endian one")
        yield from self._walk(self._unpickle("data.pkl"), (), "data")
        yield from self._walk(self._unpickle("constants.pkl"), ("constants",), "constants")

    def _entry(self, name: str) -> bytes:
        info = self._archive.getinfo(f"{self._folder}/{name}")
        self._bytes_left -= info.file_size
        if info.compress_type != zipfile.ZIP_STORED or self._bytes_left < 0:
            raise Refused(f"has an entry {printable(name)} larger than itself")
        return self._archive.read(info)

    def _unpickle(self, name: str) -> Any:
        data = self._entry(name)
        file = io.BytesIO(data)
        return unpickle(file, len(data), _NAMES, persistent_ids=True, outside=self._size, unpickler=_Unpickler)

    def _walk(self, item: Any, path: tuple[str, ...], storages: str) -> Iterator[tuple[str, torch.Tensor]]:
        match item:
            case Call(function=Global(module=module, name=name), args=args):
                if (module, name) == TENSOR:
                    yield ".".join(path), self._tensor(args, storages)
                elif args and isinstance(args[0], (list, dict)):  # a list or dictionary with its type beside it
                    yield from self._walk(args[0], path, storages)
            case _Object(state=attributes):
                yield from self._walk(attributes, path, storages)
            case dict():
                for name, entry in item.items():
                    yield from self._walk(entry, (*path, name), storages)
            case list() | tuple():
                for number, entry in enumerate(item):
                    yield from self._walk(entry, (*path, str(number)), storages)

    def _tensor(self, args: tuple[Any, ...], storages: str) -> torch.Tensor:
        match args:
            case (Call(args=("storage", Global(name=kind), str(key), str(), int(count))), *view) if kind in DTYPES:
                storage = self._storage(f"{storages}/{key}", DTYPES[kind], count)
                return CALLS[TENSOR]([storage, *view], None)
        raise Refused("holds a tensor that is described in an unknown way")

    def _storage(self, name: str, dtype: torch.dtype, count: int) -> torch.Tensor:
        if name not in self._storages:
            data = self._entry(name)
            if count < 0 or count * dtype.itemsize != len(data):
                raise Refused(f"holds a tensor of {printable(count)} elements, but {len(data)} bytes for it")
            # The copy makes the memory writable; frombuffer refuses an empty buffer.
            storage = torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)
            self._storages[name] = storage
        storage = self._storages[name]
        if storage.dtype != dtype:
            raise Refused("holds a storage of two types")
        return storage
