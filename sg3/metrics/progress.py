"""Long loops that report how far they are, and can be stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sg3.processes import Stopped

T = TypeVar("T")
Report = Callable[[str, int, int], object]  # (what, done, total)


@dataclass(frozen=True)
class Progress:
    """Whom a loop tells how far it is, and whom it asks whether to end."""

    report: Report | None = None
    stop: Callable[[], object] | None = None

    def each(self, what: str, items: Sequence[T]) -> Iterator[T]:
        """The items, with a report before each one and at the end. Raises Stopped, which never leaves `compute`, where
        `stop` says so."""
        for done, item in enumerate(items):
            self.tell(what, done, len(items))
            if self.stop is not None and self.stop():
                raise Stopped
            yield item
        self.tell(what, len(items), len(items))

    def tell(self, what: str, done: int, total: int) -> None:
        """So many of the items are done."""
        if self.report is not None:
            self.report(what, done, total)
