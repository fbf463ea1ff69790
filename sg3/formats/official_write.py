"""Snapshots in the original's format: writing. (`official` reads them.)

Each module becomes a call of `torch_utils.persistence._reconstruct_persistent_obj`, as in the original's
files: class name, source text and attributes. The source is one import of the class from sg3, so the
original's tools read these files where sg3 is installed. The same snapshot gives the same bytes: nothing in
them depends on memory addresses, hash seeds or the time.
"""

from __future__ import annotations

import pickle
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import nn

from sg3.atomic import write_atomic
from sg3.errors import UsageError
from sg3.formats import training_state
from sg3.formats.pickle_values import PERSISTENCE_VERSION, RECONSTRUCT, Numbered
from sg3.formats.safe_pickle import Call, Global
from sg3.formats.snapshot import Snapshot
from sg3.formats.storage_stream import write_storage
from sg3.kernels.kept import Kept

_RECONSTRUCT = Global(*RECONSTRUCT)
_REBUILD_TENSOR = Global("torch._utils", "_rebuild_tensor_v2")
_REBUILD_PARAMETER = Global("torch._utils", "_rebuild_parameter")
_LOAD_STORAGE = Global("torch.storage", "_load_from_bytes")
_ORDERED_DICT = Global("collections", "OrderedDict")
_SET = Global("builtins", "set")
_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))  # what every module has: tensors, children, hooks


def write(snapshot: Snapshot, path: Path) -> None:
    """Write a snapshot pickle, whole or not at all.

    Networks are written as the original does: on the CPU, in eval mode, without gradients; the ones given
    stay as they are. Raises UsageError for a module or value that such a file cannot hold, StorageError if
    writing fails.
    """
    content: dict[str, Any] = {}
    for slot in ("G", "D", "G_ema", "augment_pipe"):
        module: nn.Module | None = getattr(snapshot, slot)
        content[slot] = None if module is None else _module(module, slot)
    content["training_set_kwargs"] = _value(snapshot.training_set_kwargs, "training_set_kwargs")
    content |= _value(training_state.content(snapshot), "training state")
    write_atomic(path, lambda file: _Pickler(file).dump(content))


class _Pickler(pickle._Pickler):
    """Writes trees of plain data, `Call`s, `Global`s and tensors.

    The C pickler imports every name it writes and compares; `torch_utils` does not exist here, and a fake
    module in sys.modules would mislead the rest of the process. Python's own pickler lets us write a name
    as a name.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, protocol=4)

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Call):
            return obj.function, obj.args
        if isinstance(obj, Global):
            return obj.name  # pickle's way to say "write it by name": save_global
        if isinstance(obj, torch.Tensor):
            return _LOAD_STORAGE, (write_storage(obj.cpu().contiguous()),)
        return NotImplemented

    def save_global(self, obj: Any, name: str | None = None) -> None:
        self.save(sys.intern(obj.module))  # type: ignore[attr-defined]
        self.save(sys.intern(obj.name))  # type: ignore[attr-defined]
        self.write(pickle.STACK_GLOBAL)  # type: ignore[attr-defined]
        self.memoize(obj)

    def memoize(self, obj: Any) -> None:
        # Nothing else occurs twice. Remembering tensors' bytes would keep all of them in memory to the end.
        if isinstance(obj, (str, Global)):
            super().memoize(obj)  # type: ignore[misc]


def _module(module: nn.Module, where: str) -> Call:
    """The call of `_reconstruct_persistent_obj` for a module and everything in it."""
    cls = type(module)
    if cls.__module__.split(".")[0] not in ("sg3", "torch") or "." in cls.__qualname__:
        name = f"{cls.__module__}.{cls.__qualname__}"
        raise UsageError(f"{where}: is a {name}; only networks of sg3's and torch's own modules can be saved")
    # A class that keeps what cannot be written leaves it out itself, with __getstate__.
    attributes: dict[str, Any] = {k: v for k, v in module.__getstate__().items() if not isinstance(v, Kept)}
    state = {_text(name): _attribute(name, value, where) for name, value in attributes.items()}
    if "init_kwargs" in attributes:
        state[_text("_init_args")] = _value(tuple(attributes.get("init_args", ())), f"{where}._init_args")
        state[_text("_init_kwargs")] = _value(attributes["init_kwargs"], f"{where}._init_kwargs")
    source = (
        "# Written by sg3; the class is imported from the sg3 package, which must be installed.\n"
        f"from {cls.__module__} import {cls.__name__}\n"
    )
    meta = {
        "type": "class",
        "version": PERSISTENCE_VERSION,
        "module_src": _text(source),
        "class_name": _text(cls.__name__),
        "state": state,
    }
    return Call(_RECONSTRUCT, (meta,))


def _attribute(name: str, value: Any, where: str) -> Any:
    """One entry of a module's __dict__."""
    match name:
        case "training":
            return False
        case "_parameters":
            return {_text(key): None if t is None else _parameter(t) for key, t in value.items()}
        case "_buffers":
            return {_text(key): None if t is None else _tensor(t) for key, t in value.items()}
        case "_modules":
            children = value.items()
            return {_text(key): None if m is None else _module(m, f"{where}.{key}") for key, m in children}
        case _ if name in _MODULE_ATTRIBUTES and isinstance(value, dict):
            return _empty_dict()  # hooks are code: they stay with the process that registered them
    return _value(value, f"{where}.{name}")


def _empty_dict() -> Call:
    return Call(_ORDERED_DICT, ())


def _parameter(parameter: torch.Tensor) -> Call:
    """Arguments as in torch's pickles: data, requires_grad, hooks."""
    return Call(_REBUILD_PARAMETER, (_tensor(parameter), False, _empty_dict()))


def _tensor(tensor: torch.Tensor) -> Call:
    """A tensor with storage of its own, contiguous, whatever it shares and however it lies in memory.

    Arguments as in torch's pickles: storage, offset, size, stride, requires_grad, hooks. The pickler turns
    the tensor itself into the storage when it gets there, so that only one at a time is copied to the CPU.
    """
    stride = torch.empty(tensor.shape, device="meta").stride()
    return Call(_REBUILD_TENSOR, (tensor.detach(), 0, tuple(tensor.shape), stride, False, _empty_dict()))


def _value(value: Any, where: str) -> Any:
    """Plain data as the pickler takes it: fresh containers, and one object for all equal text."""
    match value:
        case None | bool() | int() | float() if type(value) in (type(None), bool, int, float):
            return value
        case np.generic():
            return _value(value.item(), where)
        case str() | PurePath():
            return _text(str(value))
        case dict():
            return {_text(key): _value(entry, f"{where}.{key}") for key, entry in value.items()}
        case Numbered(entries=entries):
            return {number: _value(entry, f"{where}.{number}") for number, entry in entries.items()}
        case list():
            return [_value(entry, where) for entry in value]
        case tuple():
            return tuple(_value(entry, where) for entry in value)
        case set() if all(isinstance(entry, str) for entry in value):
            return Call(_SET, ([_text(entry) for entry in sorted(value)],))
        case torch.Tensor():
            return _tensor(value)
    if is_dataclass(value) and type(value).__module__.startswith("sg3.models."):
        # On reading, it is called with its fields. (sg3's reader has no use for it.)
        arguments = tuple(_value(getattr(value, f.name), f"{where}.{f.name}") for f in fields(value))
        return Call(Global(type(value).__module__, type(value).__name__), arguments)
    raise UsageError(
        f"{where}: a {type(value).__name__} cannot be saved in a .pkl file, only plain data and tensors; "
        "a layer leaves an attribute out with __getstate__ and makes it again in __setstate__"
    )


def _text(text: str) -> str:
    """The same object for equal text: the pickler writes an object that it has seen as a reference."""
    if not isinstance(text, str):
        raise UsageError(f"{text!r}: a dictionary with keys other than text cannot be saved in a .pkl file")
    return sys.intern(str(text))
