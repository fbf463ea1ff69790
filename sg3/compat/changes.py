"""Changes to other people's modules that can be taken back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_ABSENT = object()


class Changes:
    """Notes how to undo each change; `undo` does it, the last one first."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Give a module or class an attribute, or another value for one."""
        before = vars(owner).get(name, _ABSENT)
        setattr(owner, name, value)
        self.call_on_undo(lambda: delattr(owner, name) if before is _ABSENT else setattr(owner, name, before))

    def set_missing(self, owner: Any, name: str, value: Any) -> None:
        """Give a module or class an attribute unless it has one of its own."""
        if name not in vars(owner):
            self.set(owner, name, value)

    def call_on_undo(self, function: Callable[[], object]) -> None:
        self._undo.append(function)

    def undo(self) -> None:
        while self._undo:
            self._undo.pop()()
