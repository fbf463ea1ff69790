"""The processes that share the work, seen through torch.distributed if it is initialised; else this one alone.

Work is dealt out by the number of an item, so that what is computed does not depend on how many processes there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist

import sg3.errors
from sg3.errors import Sg3Error
from sg3.metrics.moments import Moments
from sg3.metrics.watch import Stopped

T = TypeVar("T")


class Ranks:
    """This process among those of the default process group."""

    def __init__(self) -> None:
        active = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if active else 0
        self.size = dist.get_world_size() if active else 1

    def mine(self, items: Sequence[T]) -> Sequence[T]:
        """Every size-th item, beginning with this rank's."""
        return items[self.rank :: self.size]

    def together(self, work: Callable[[], T]) -> T:
        """Run `work`, which must not communicate; if it fails in one process, every process raises.

        Otherwise the others would wait for the failed one, in their next exchange, until a timeout.
        """
        if self.size == 1:
            return work()
        result, error = None, None
        try:
            result = work()
        except Exception as caught:
            error = caught
        reports: list[tuple[str, str] | None] = [None] * self.size
        dist.all_gather_object(reports, None if error is None else (type(error).__name__, str(error)))
        if error is not None:
            raise error
        failed = [report for report in reports if report is not None]
        if failed:
            kind, message = failed[0]
            if kind == Stopped.__name__:
                raise Stopped
            known = getattr(sg3.errors, kind, Sg3Error)
            raise known(message if known is not Sg3Error else f"{kind} in another process: {message}")
        return result  # type: ignore[return-value]  # there was no error, so there is a result

    def from_first(self, work: Callable[[], T]) -> T:
        """Run `work` in the first process only, and give its result, or raise its error, in all."""
        outcome: list[T | None] = [self.together(lambda: work() if self.rank == 0 else None)]
        if self.size > 1:
            dist.broadcast_object_list(outcome, src=0)
        return outcome[0]  # type: ignore[return-value]  # as above

    def add_up(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def merge(self, moments: Moments) -> Moments:
        """The moments of what all processes have seen, in place."""
        count = torch.tensor(moments.count, dtype=torch.float64, device=moments.total.device)
        moments.count = int(self.add_up(count))
        self.add_up(moments.total)
        self.add_up(moments.outer)
        return moments

    def in_order(self, rows: torch.Tensor, positions: torch.Tensor, total: int) -> torch.Tensor | None:
        """Rows [n, ...] of all processes, each at its position [n]: [total, ...] in the first process, else None."""
        if self.size > 1:
            counts = [torch.zeros_like(positions[:1].sum()) for _ in range(self.size)]
            dist.all_gather(counts, torch.full_like(counts[0], len(rows)))
            longest = max(int(count) for count in counts)
            parts: list[list[torch.Tensor]] = []
            for tensor in (rows, positions):
                padded = tensor.new_zeros(longest, *tensor.shape[1:])
                padded[: len(tensor)] = tensor
                gathered = [torch.empty_like(padded) for _ in range(self.size)]
                dist.all_gather(gathered, padded)
                parts.append([part[: int(count)] for part, count in zip(gathered, counts, strict=True)])
            if self.rank != 0:
                return None
            rows, positions = (torch.cat(each) for each in parts)
        assert len(positions) == total
        result = torch.empty_like(rows)
        result[positions] = rows
        return result
