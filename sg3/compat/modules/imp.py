"""`imp`, gone in Python 3.12: the few functions that scripts call."""

import importlib
import importlib.util
import sys
from types import ModuleType

reload = importlib.reload
new_module = ModuleType


def load_source(name: str, pathname: str, file: object = None) -> ModuleType:
    """Import a source file under this name, also if it is there already."""
    spec = importlib.util.spec_from_file_location(name, pathname)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules.setdefault(name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module
