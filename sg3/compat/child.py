"""Processes started by multiprocessing's 'spawn' and 'forkserver' answer imports as their parent does.

Such a child first receives a dictionary of preparations (working directory, sys.path, the main module to import) and
carries them out. One more entry, first in that dictionary, installs sg3.compat while it is being unpickled: before the
main module and its imports. Forked children need nothing. Other programs that a script starts are left alone.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from sg3.compat.changes import Changes

ENTRY = str(Path(__file__).with_name("child_entry.py"))


class InstallOnArrival:
    """Unpickles as a call of `install`, from a file by its path: the child's sys.path may not lead to sg3 yet."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return runpy.run_path, (ENTRY, {"OPTIONS": self.options})


def start_children_alike(options: dict[str, Any]) -> Callable[[ModuleType, Changes], None]:
    """A patch of `multiprocessing.spawn`: children install with the given options, quietly."""

    def spawn_children_with_compat(spawn: ModuleType, changes: Changes) -> None:
        original = spawn.get_preparation_data

        def get_preparation_data(name: str) -> dict[str, Any]:
            return {"sg3_compat": InstallOnArrival({**options, "quiet": True}), **original(name)}

        changes.set(spawn, "get_preparation_data", get_preparation_data)

    return spawn_children_with_compat
