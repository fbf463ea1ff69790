"""Which instructions a warp executes, in order, and what its accesses to memory ask for.

Branches and addresses follow from the launch's arguments, the program's number and the thread's. What data decides is
not known: a branch over a piece of code is then not taken, so that the code counts. Where some lanes branch and others
do not, the code in between counts as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.static.access import Access, access
from bench.static.arithmetic import execute
from bench.static.registers import Warp, operands
from bench.static.sass import Instruction

LONGEST = 1_000_000


@dataclass
class Trace:
    """`order`: numbers of the executed instructions. `accesses`: by place in `order`, for those of memory."""

    order: list[int] = field(default_factory=list)
    accesses: dict[int, Access] = field(default_factory=dict)

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for warps that do the same."""
        return tuple(self.order), tuple(self.accesses.items())


def follow(instructions: Sequence[Instruction], warp: Warp, rounds: Sequence[int] = ()) -> Trace:
    """Execute from the first instruction to the end. `rounds`: for loops whose number of rounds data decides, how often
    each runs when it is entered, in the order of the code.

    Raises ValueError if there are more such loops than rounds, or a warp does not end.
    """
    trace = Trace()
    unknown: list[int] = []  # the loops that data ends, by their branch
    left: dict[int, int] = {}
    calls: list[int] = []
    at = 0
    while at < len(instructions):
        i = instructions[at]
        place = len(trace.order)
        trace.order.append(at)
        if place > LONGEST:
            raise ValueError(f"a warp executes more than {LONGEST} instructions; near {i}")
        following = at + 1
        if i.name == "EXIT":
            lanes = warp.guard(i)
            if lanes is not None and lanes.all():
                break
        elif i.name == "RET":
            if not calls:
                break
            following = calls.pop()
        elif i.name in ("BRA", "CALL") and i.target is not None:
            taken = _taken(i, warp, backward=i.target <= at)
            if taken is None and i.target <= at:
                if at not in unknown:
                    unknown.append(at)
                if len(unknown) > len(rounds):
                    raise ValueError(f"data decides how often the loop before '{i}' runs; say so by `rounds`")
                left[at] = left.get(at, rounds[unknown.index(at)]) - 1
                taken = left[at] > 0
                if not taken:
                    del left[at]
            if taken:
                following = i.target
                if i.name == "CALL":
                    calls.append(at + 1)
        else:
            found = access(i, warp)
            if found is not None:
                trace.accesses[place] = found
            execute(warp, i)
        at = following
    return trace


def _taken(i: Instruction, warp: Warp, backward: bool) -> bool | None:
    """Whether a branch is, as far as is known; None at a loop that data ends."""
    if ".DIV" in i.op:  # to code for warps that have fallen apart
        return False
    lanes = warp.guard(i)
    for place in operands(i.operands):
        if place.is_predicate:
            condition = warp.predicate(place)
            lanes = None if lanes is None or condition is None else lanes & condition
    if lanes is None:
        return None if backward else False
    return bool(np.any(lanes) if backward else np.all(lanes))
