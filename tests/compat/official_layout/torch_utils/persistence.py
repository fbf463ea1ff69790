# ruff: noqa: C408 - as old scripts are written
"""A stand-in: classes that pickle with the source of their module."""

import pickle
import sys


def persistent_class(cls):
    def __reduce__(self):
        with open(sys.modules[cls.__module__].__file__) as file:
            meta = dict(type="class", version=6, module_src=file.read(), class_name=cls.__name__, state=self.__dict__)
        return _reconstruct_persistent_obj, (meta,)

    cls.__reduce__ = __reduce__
    return cls


def _reconstruct_persistent_obj(meta):
    import types

    module = types.ModuleType("_imported_module")
    module.__file__ = __file__
    exec(meta["module_src"], module.__dict__)
    cls = module.__dict__[meta["class_name"]]
    obj = cls.__new__(cls)
    obj.__dict__.update(meta["state"])
    return obj


def round_trip(obj):
    return pickle.loads(pickle.dumps(obj))
