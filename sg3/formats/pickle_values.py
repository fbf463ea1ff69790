"""What the calls in a network file mean: tensors, numpy values and the records of the original's modules.

`safe_pickle` leaves calls as notes. The ones listed here are interpreted from their arguments, each checked
against the bytes that are really there; any other name has been refused before.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sg3 import limits
from sg3.errors import DataError, Sg3Error, StorageError
from sg3.formats.safe_pickle import Call, Global, Name, Overlooked, PlainModule, TensorflowNetwork, unpickle
from sg3.formats.storage_stream import read_storage
from sg3.pickle_scan import Refused
from sg3.terminal import printable

PERSISTENCE_VERSION = 6
RECONSTRUCT: Name = ("torch_utils.persistence", "_reconstruct_persistent_obj")
ELSEWHERE = {  # part of a name or of a class's source -> whose files have it; the first that is found
    b"vit_small_patch16_224_dino": "a StyleGAN-T file",
    b"dino_vits16": "a StyleGAN-T file",
    b"deit_base_distilled_patch16_224": "a StyleGAN-XL file",
    b"timm.models.vision_transformer": "a StyleGAN-XL file",
    b"rand_embedding": "a StyleGAN-XL file",
    b"pg_modules": "a Projected GAN, FastGAN or StyleGAN-XL file of a version unknown here",
    b"timm.models": "a Projected GAN, FastGAN or StyleGAN-XL file of a version unknown here",
    b"dill._dill": "a file saved with dill, but of no system that sg3 knows",
}
DTYPES = {name: getattr(torch, name) for name in ("float16", "float32", "float64", "bfloat16")}

Meaning = Callable[[list[Any], Any], Any]  # of a call: its arguments and state -> value


@dataclass
class Record:
    """A module as the original pickles it, or as Python does, without the source.

    The source is never executed, and the class name tells little: StyleGAN2 and StyleGAN3 share most of them.
    """

    class_name: str
    module_src: str
    state: dict[str, Any]  # the module's __dict__


@dataclass
class Numbered:
    """A dictionary whose keys are numbers: an optimizer's state by parameter, or a module's hooks.

    A type of its own, so that everything else that is a dictionary has names.
    """

    entries: dict[int, Any]


@dataclass
class NetworkState:
    """A network as StyleGAN2 in TensorFlow pickles it: static_kwargs, variables, components, ..."""

    state: dict[str, Any]


def read_pickle(path: Path) -> Any:
    """The content of a network pickle: containers, text, numbers, bytes, arrays, tensors and `Record`s.

    Raises DataError if the file is damaged or holds anything else, StorageError if it cannot be read.
    """
    with failures(path, "network pickle"), path.open("rb") as file:
        size = path.stat().st_size
        return Interpreter(size, CALLS).value(unpickle(file, size, NAMES, integer_keys=True, layers=True))


@contextmanager
def failures(path: Path, kind: str) -> Iterator[None]:
    """Anything that goes wrong inside, as a DataError or StorageError that begins with the file's name."""
    try:
        yield
    except Sg3Error:
        raise
    except Refused as refusal:
        if theirs := _elsewhere(path):
            raise DataError(f"{path}: looks like {theirs}, which sg3 does not read ({refusal})") from None
        raise DataError(f"{path}: {refusal}; not loaded") from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error
    except MemoryError:
        raise DataError(f"{path}: needs more memory than there is; not loaded") from None
    except Exception as error:  # pickle, numpy, zipfile and torch raise nearly anything on damaged data
        cause = f"{type(error).__name__}: {printable(error)}"
        raise DataError(f"{path}: is damaged or not a {kind} ({cause}); not loaded") from error


def _elsewhere(path: Path) -> str | None:
    """Which other project's file this is, by the modules it names anywhere."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return next((theirs for part, theirs in ELSEWHERE.items() if content.find(part) >= 0), None)
    except (OSError, ValueError):  # ValueError: an empty file
        return None


class Interpreter:
    """Turns inert data into values; what the pickle shares stays shared, so shared structure costs nothing.

    Bytes are the exception: each tensor made of them is a copy. So they may be used once, `size` in all. `calls` says
    what each function means, `stored` what a persistent id does, from the parts of the id as they are in the pickle.
    """

    def __init__(
        self, size: int, calls: Mapping[Name, Meaning], stored: Callable[[tuple[Any, ...]], torch.Tensor] | None = None
    ) -> None:
        self._calls = calls
        self._stored = stored
        self._bytes_left = size
        self._done: dict[int, Any] = {}

    def value(self, item: Any) -> Any:
        """Raises Refused for anything but the listed types and calls."""
        if item is None or isinstance(item, (bool, int, float, str)):
            return item
        if isinstance(item, (bytes, bytearray)):
            return self._once(bytes(item))
        key = id(item)  # stays valid: the root keeps every item alive
        if key not in self._done:
            self._done[key] = self._convert(item)
        return self._done[key]

    def _once(self, data: bytes) -> bytes:
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            raise Refused("uses the same bytes for several tensors")
        return data

    def _convert(self, item: Any) -> Any:
        match item:
            case Call(function=Global(module="", name="persistent_id"), args=args) if self._stored:
                return self._stored(args)
            case Call(function=function, args=args):
                meaning = self._calls[function.module, function.name]
                result = meaning([self.value(arg) for arg in args], self.value(item.state))
                return self._once(result) if isinstance(result, bytes) else result
            case TensorflowNetwork(state=state):
                attributes = self.value(state)
                if not isinstance(attributes, dict):
                    raise Refused("has a network without attributes")
                return NetworkState(attributes)
            case PlainModule(state=state, class_name=name):
                attributes = self.value(state)
                return Record(name, "", attributes if isinstance(attributes, dict) else {})
            case Global(module="torch", name=name) if name in DTYPES:
                return DTYPES[name]
            case type() if issubclass(item, PlainModule):
                return None
            case Overlooked():
                return None
            case Global():
                return None  # a name used as a value, such as numpy.ndarray where an array's type is given
            case dict() if item and all(isinstance(key, int) for key in item):
                return Numbered({number: self.value(entry) for number, entry in item.items()})
            case dict():  # also a Mapping
                if not all(isinstance(key, str) for key in item):
                    raise Refused("has a dictionary with keys of several kinds")
                return {name: self.value(entry) for name, entry in item.items()}
            case list():
                return [self.value(entry) for entry in item]
            case tuple():
                return tuple([self.value(entry) for entry in item])
            case set():
                return set(item)  # the scan lets only text in
        raise Refused(f"holds a value of type {type(item).__name__}")


def _record(args: list[Any], state: Any) -> Record:
    match args:
        case [{"type": "class", "version": int(version), "class_name": str(name), "state": dict(attributes)}]:
            if version != PERSISTENCE_VERSION:
                raise Refused(f"has persistence version {printable(version)}, expected {PERSISTENCE_VERSION}")
            source = args[0].get("module_src")
            return Record(name, source if isinstance(source, str) else "", attributes)
    raise Refused("has an object that is not described as the original's classes are")


def _tensor(args: list[Any], state: Any) -> torch.Tensor:
    """`_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`: a view of the storage."""
    match args:
        case [torch.Tensor() as storage, int(offset), tuple(size), tuple(stride), *_]:
            pass
        case _:
            raise Refused("holds a tensor that is described in an unknown way")
    natural = all(isinstance(n, int) and n >= 0 for n in (offset, *size, *stride))
    if not natural or len(size) != len(stride) or len(size) > limits.DIMENSIONS:
        raise Refused("holds a tensor of impossible shape")
    count = prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    # The second condition keeps a view from showing few elements very many times over, with stride 0.
    if count and (last >= storage.numel() or count > max(storage.numel(), limits.REPEATED)):
        raise Refused(f"holds a tensor of shape {printable(list(size))} on {storage.numel()} elements")
    return storage.as_strided(size, stride, offset) if count else storage.new_empty(size)


def _storage(args: list[Any], state: Any) -> torch.Tensor:
    match args:
        case [bytes(data)]:
            return read_storage(data)
    raise Refused("holds a tensor whose storage is described in an unknown way")


def _parameter(args: list[Any], state: Any) -> torch.Tensor:
    match args:
        case [torch.Tensor() as data, *_]:
            return data
    raise Refused("holds a parameter that is described in an unknown way")


def _dtype(args: list[Any], state: Any) -> np.dtype[Any]:
    """`dtype('f8', False, True)` and its state (3, '<', None, None, None, -1, -1, 0): plain numbers only."""
    order: Any = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
    match args:
        case [str(code), *_] if re.fullmatch("b1|[iu][1248]|f[248]", code) and order in ("<", ">", "|", "="):
            return np.dtype(code).newbyteorder(order)
    raise Refused("holds a numpy value that is not a plain number")


def _scalar(args: list[Any], state: Any) -> bool | int | float:
    match args:
        case [np.dtype() as dtype, bytes(data)] if len(data) == dtype.itemsize:
            number: bool | int | float = np.frombuffer(data, dtype)[0].item()
            return number
    raise Refused("holds a numpy value that is not a plain number")


def _array(args: list[Any], state: Any) -> np.ndarray:
    """`_reconstruct(ndarray, (0,), b'b')` and its state (version, shape, dtype, fortran order, bytes)."""
    match state:
        case [int(), tuple(shape), np.dtype() as dtype, bool(fortran), bytes(data)]:
            return _shaped(data, dtype, shape, "F" if fortran else "C")
    raise Refused("holds a numpy array that is described in an unknown way")


def _array_by_dill(args: list[Any], state: Any) -> np.ndarray:
    """`_create_array(reconstruct, its arguments, its state, attributes)`."""
    return _array([], args[2] if len(args) > 2 else None)


def _array_from_buffer(args: list[Any], state: Any) -> np.ndarray:
    """`_frombuffer(bytes, dtype, shape, order)`, which pickle protocol 5 uses."""
    match args:
        case [bytes(data), np.dtype() as dtype, tuple(shape), "C" | "F" as order]:
            return _shaped(data, dtype, shape, order)
    raise Refused("holds a numpy array that is described in an unknown way")


def _shaped(data: bytes, dtype: np.dtype[Any], shape: tuple[Any, ...], order: Any) -> np.ndarray:
    if len(shape) > limits.DIMENSIONS or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise Refused("holds a numpy array of impossible shape")
    return np.frombuffer(data, dtype).reshape(shape, order=order).copy(order=order)


def _set(args: list[Any], state: Any) -> set[str]:
    match args:
        case []:
            return set()
        case [list(items)] if all(isinstance(item, str) for item in items):
            return set(items)
    raise Refused("has a dictionary key or set member that is not text")


def _encode(args: list[Any], state: Any) -> bytes:
    """`encode(text, 'latin1')`: how protocol 2 writes bytes."""
    match args:
        case [str(text), "latin1"]:
            return text.encode("latin-1")
        case []:
            return b""
    raise Refused("holds bytes that are described in an unknown way")


def _ignored(args: list[Any], state: Any) -> None:
    """A value that a module may carry as an attribute and that is never read."""


def _not_called(args: list[Any], state: Any) -> Any:
    raise Refused("calls something that is not a function")


CALLS: dict[Name, Meaning] = {
    RECONSTRUCT: _record,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch", "Size"): _ignored,
    ("torch", "device"): _ignored,
    **{("torch", name): _not_called for name in DTYPES},
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): _not_called,
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _array for core in ("core", "_core")},
    ("dill._dill", "_create_array"): _array_by_dill,
    **{(f"numpy.{core}.numeric", "_frombuffer"): _array_from_buffer for core in ("core", "_core")},
    **{(module, "set"): _set for module in ("builtins", "__builtin__")},  # no instruction before protocol 4
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _encode,
}
NAMES = frozenset(CALLS)

# The ones for the tensors of a torch.save file, which keeps storages outside the pickle.
TENSOR_CALLS: dict[Name, Meaning] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,  # before torch 0.4: without requires_grad
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}
