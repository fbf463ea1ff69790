"""How large a decoded pickle is with nothing in it shared.

A pickle may refer to the same object from many places, and 60 levels of pairs of the level below are a few hundred
bytes that take longer to print, to walk through or to copy than the universe has existed. So nobody gets to see a
decoded pickle before `check_unfolded` has found that, written out in full, it is small enough for all that readers do.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sg3 import limits
from sg3.pickle_scan import Refused


class Size(NamedTuple):
    """Of a value written out in full, with all below it."""

    values: int = 1  # values, itself included
    text: int = 0  # characters of strings, and of the names that lead to each value, as in "synthesis.b4.conv1.weight"
    data: int = 0  # bytes of data; of tensors, two for each element
    height: int = 1  # levels


_PLAIN = Size()
_LEAVES = frozenset({str, int, float, bool, type(None)})


def check_unfolded(content: Any, size: int) -> None:
    """Raise Refused if `content` contains itself, or is larger than `sg3.limits` allows for a file of `size` bytes.

    Objects that stand for others have what belongs to them in `args` and `state`; `elements` is how many a call that
    makes a tensor claims.
    """
    _Measure(size + limits.SHARED).size(content, 1)


class _Measure:
    def __init__(self, most_data: int) -> None:
        self._most_data = most_data
        self._known: dict[int, Size] = {}  # by identity: the content keeps all of them alive
        self._open: set[int] = set()

    def size(self, item: Any, level: int) -> Size:
        if isinstance(item, str):
            return Size(text=len(item))
        if isinstance(item, (bytes, bytearray)):
            return Size(data=len(item))
        if item is None or isinstance(item, (bool, int, float, type)):
            return _PLAIN
        if not isinstance(item, (dict, list, tuple, set)) and not (hasattr(item, "args") or hasattr(item, "state")):
            return _PLAIN  # a name
        if (known := self._known.get(id(item))) is not None:
            return known
        if id(item) in self._open:
            raise Refused("holds a value that contains itself")
        if level > limits.NESTING:
            raise Refused(f"is nested more than {limits.NESTING} levels deep")
        self._open.add(id(item))
        total = self._checked(self._total(item, level))
        self._open.remove(id(item))
        self._known[id(item)] = total
        return total

    def _total(self, item: Any, level: int) -> Size:
        if isinstance(item, dict):
            total = self._sum(item.values(), level)
            names = 0
            for name, entry in item.items():
                length = len(name) if isinstance(name, (str, bytes)) else 20
                names += length * (1 if type(entry) in _LEAVES else self.size(entry, level + 1).values)
            return total._replace(text=total.text + names)
        if isinstance(item, (list, tuple, set)):
            return self._sum(item, level)
        inner = self._sum((getattr(item, "args", ()), getattr(item, "state", None)), level)
        elements = getattr(item, "elements", None)
        return inner if elements is None else inner._replace(data=2 * elements)

    def _sum(self, items: Any, level: int) -> Size:
        values, text, data, height = 1, 0, 0, 1
        for item in items:
            if type(item) in _LEAVES:  # nearly all are
                values += 1
                if type(item) is str:
                    text += len(item)
                continue
            inner = self.size(item, level + 1)
            values += inner.values
            text += inner.text
            data += inner.data
            height = max(height, inner.height)
        return Size(values, text, data, height + 1)

    def _checked(self, size: Size) -> Size:
        """At every level: the numbers themselves grow with each one that is let through."""
        if size.values > limits.VALUES:
            raise Refused(f"describes more than {limits.VALUES} values, by using the same ones many times")
        if size.text > limits.TEXT:
            raise Refused(f"describes more than {limits.TEXT} characters of names and text")
        if size.data > self._most_data:
            raise Refused("describes more data than it holds, such as by using the same bytes for several tensors")
        if size.height > limits.NESTING:
            raise Refused(f"is nested more than {limits.NESTING} levels deep")
        return size
