"""`torch_utils.persistence`: classes whose pickles carry their own source text.

An object of a class decorated with `persistent_class` pickles as a call of `_reconstruct_persistent_obj` with the text
of the module that defines the class, the class's name and the object's attributes. The original executes that text
when the pickle is loaded. Here, in this order:

    a class decorated in this process with the same text      is used
    a network of a family that sg3 knows                      is built as sg3's own class, the text unread
    anything else                                             stays a `NotBuilt`, or with `execute_source` is executed

so that pickles of the official tools load without running what they carry. (`pickle.load` obeys a file in everything
else, whoever wrote it. `sg3.load` is the reader that obeys in nothing.)
"""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np
from torch import nn

from sg3.compat.modules.dnnlib.util import EasyDict
from sg3.errors import DataError
from sg3.formats import networks, official
from sg3.formats.pickle_values import PERSISTENCE_VERSION, Record

execute_source = False  # set by sg3.compat.install(execute_source=True)

Meta = dict[str, Any]
Object = TypeVar("Object")

# The interface is one for the whole process: classes are declared, and found again by what a pickle says of them.
_classes: WeakValueDictionary[tuple[str, str], type] = WeakValueDictionary()  # (source text, name) -> class
_import_hooks: list[Callable[[Meta], Meta | None]] = []
_SOURCE = "_persistent_source"


def persistent_class(cls: type[Object]) -> type[Object]:
    """Class decorator: objects remember their constructor arguments (`init_args`, `init_kwargs`, as copies) and pickle
    with the source of the module that defines the class. Applied to the class in place."""
    if is_persistent(cls):
        return cls
    init = cls.__init__

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        if type(self) is cls:
            self.__dict__["_init_args"] = copy.deepcopy(args)
            self.__dict__["_init_kwargs"] = copy.deepcopy(kwargs)
        init(self, *args, **kwargs)

    def __reduce_ex__(self: Any, protocol: Any) -> Any:
        if type(self) is not cls:  # a subclass of its own: not declared persistent
            return super(cls, self).__reduce_ex__(protocol)
        meta = {"type": "class", "version": PERSISTENCE_VERSION, "module_src": _module_source(cls),
                "class_name": cls.__name__, "state": self.__getstate__()}  # fmt: skip
        return _reconstruct_persistent_obj, (meta,)

    attributes = {
        "__init__": __init__,
        "__reduce_ex__": __reduce_ex__,
        "init_args": property(lambda self: copy.deepcopy(self._init_args)),
        "init_kwargs": property(lambda self: EasyDict(copy.deepcopy(self._init_kwargs))),
        _SOURCE: _module_source(cls),
    }
    for name, value in attributes.items():
        setattr(cls, name, value)
    _classes[_module_source(cls), cls.__name__] = cls
    return cls


def is_persistent(obj: Any) -> bool:
    """Whether a class, or the class of an object, is itself decorated with `persistent_class`."""
    cls = obj if isinstance(obj, type) else type(obj)
    return _SOURCE in vars(cls)


def import_hook(hook: Callable[[Meta], Meta | None]) -> Callable[[Meta], Meta | None]:
    """Have `hook(meta)` look at every object that is unpickled; it may change the description, or return another."""
    _import_hooks.append(hook)
    return hook


class NotBuilt(Record):
    """An object whose class sg3 does not know and whose source was not executed: its description, of no other use."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python itself asks any object for
            raise AttributeError(name)
        raise DataError(
            f"{self.class_name}: comes from a pickle as source text, which sg3 did not execute; if you trust the file, "
            "sg3.compat.install(execute_source=True) does"
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__getattr__("forward")


def _reconstruct_persistent_obj(meta: Meta) -> Any:
    """What pickles call. Raises DataError for a description of another kind or version."""
    meta = dict(meta)
    for hook in _import_hooks:
        meta = hook(meta) or meta
    if meta.get("type") != "class" or meta.get("version") != PERSISTENCE_VERSION:
        raise DataError(f"persistent object: got type {meta.get('type')!r} and version {meta.get('version')!r}, "
                        f"expected 'class' and {PERSISTENCE_VERSION}")
    source, name, state = meta["module_src"], meta["class_name"], meta["state"]
    cls: Any = _classes.get((source, name))
    if cls is None and execute_source:
        cls = vars(_execute(source))[name]
    if cls is not None:
        obj = cls.__new__(cls)
        if hasattr(obj, "__setstate__"):
            obj.__setstate__(state)
        else:
            obj.__dict__.update(state)
        return obj
    return _network_of_sg3(NotBuilt(name, source, _plain_numbers(state)))


def _network_of_sg3(record: NotBuilt) -> nn.Module | NotBuilt:
    """Modules come innermost first: layers stay records, and the network that they make up is recognised by them."""
    family = official.recognise(record)
    if family is None:
        return record
    return networks.frozen(official.read_network(record, (family,), record.class_name), "cpu")


def _plain_numbers(value: Any) -> Any:
    """numpy's scalars as Python's, in the containers of a pickle."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {name: _plain_numbers(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(_plain_numbers(entry) for entry in value)
    return value


def _execute(source: str) -> ModuleType:
    """The module that a source text makes. The same text is executed once."""
    name = "_imported_module_" + hashlib.sha256(source.encode()).hexdigest()
    if name not in sys.modules:
        module = ModuleType(name)
        module.__dict__[_SOURCE] = source
        sys.modules[name] = module
        try:
            exec(compile(source, f"<source in a pickle, {name}>", "exec", dont_inherit=True), module.__dict__)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _module_source(cls: type) -> str:
    """The text that defines a class: what it was made of, for a class that came out of a pickle."""
    known = vars(cls).get(_SOURCE) or vars(sys.modules[cls.__module__]).get(_SOURCE)
    return known if isinstance(known, str) else inspect.getsource(sys.modules[cls.__module__])
