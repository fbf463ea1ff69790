"""Long loops that report how far they are, and can be stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sg3.processes import Stopped

T = TypeVar("T")
Progress = Callable[[str, int, int], object]  # (what, done, total)


@dataclass(frozen=True)
class Watch:
    """What a loop tells and asks while it runs."""

    progress: Progress | None = None
    stop: Callable[[], object] | None = None

    def each(self, what: str, items: Sequence[T]) -> Iterator[T]:
        """The items, with a report before each one and at the end. Raises Stopped where `stop` says so, which never
        leaves `compute`."""
        for done, item in enumerate(items):
            self.report(what, done, len(items))
            if self.stop is not None and self.stop():
                raise Stopped
            yield item
        self.report(what, len(items), len(items))

    def report(self, what: str, done: int, total: int) -> None:
        """Tell how many of the items are done."""
        if self.progress is not None:
            self.progress(what, done, total)
