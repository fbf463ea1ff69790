"""Which instructions a warp executes, in order, and what its accesses to memory ask for.

Branches and addresses follow from the launch's arguments, the program's number and the thread's. What data decides is
not known. There the shorter way is taken: kernels branch on data only to leave out what is rarely needed. Where some
lanes branch and others do not, the code in between counts.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

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


def follow(instructions: Sequence[Instruction], warp: Warp, rounds: Sequence[int] = ()) -> Trace:
    """Execute from the first instruction to the end. `rounds`: for loops whose number of rounds data decides, how often
    each runs when it is entered, in the order in which they are met.

    Raises ValueError if there are more such loops than rounds, or a warp does not end.
    """
    trace = Trace()
    rest: list[float] = []
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
            if lanes is not None:
                warp.active = warp.active & ~lanes
            if not warp.active.any():
                break
        elif i.name == "RET":
            if not calls:
                break
            following = calls.pop()
        elif i.name in ("BRA", "CALL") and i.target is not None:
            backward = i.target <= at
            taken = _taken(i, warp, backward)
            if taken is None and backward:
                if at not in unknown:
                    unknown.append(at)
                if len(unknown) > len(rounds):
                    raise ValueError(f"data decides how often the loop before '{i}' runs; say so by `rounds`")
                left[at] = left.get(at, rounds[unknown.index(at)]) - 1
                taken = left[at] > 0
                if not taken:
                    del left[at]
            elif taken is None:
                rest = rest or remaining(instructions)
                taken = rest[i.target] < rest[at + 1]
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
    """Whether a branch is; None where data decides."""
    if ".DIV" in i.op:  # to code for warps that have fallen apart
        return False
    lanes = warp.guard(i)
    for place in operands(i.operands):
        if place.is_predicate:
            condition = warp.predicate(place)
            lanes = None if lanes is None or condition is None else lanes & condition
    if lanes is None:
        return None
    return bool(lanes.any() if backward else lanes[warp.active].all())


def remaining(instructions: Sequence[Instruction]) -> list[float]:
    """How many instructions the shortest way from each to the end takes."""
    before: list[list[int]] = [[] for _ in instructions]
    ends = []
    for at, i in enumerate(instructions):
        if i.name in ("EXIT", "RET"):
            ends.append(at)
        for following in _ways(at, i):
            if following < len(instructions):
                before[following].append(at)
    distance = [float("inf")] * len(instructions)
    queue = [(1.0, at) for at in ends]
    while queue:
        length, at = heapq.heappop(queue)
        if length < distance[at]:
            distance[at] = length
            for previous in before[at]:
                heapq.heappush(queue, (length + 1, previous))
    return distance


def _ways(at: int, i: Instruction) -> Iterator[int]:
    conditional = i.predicate or any(p.is_predicate for p in operands(i.operands))
    if i.name in ("BRA", "CALL") and i.target is not None:
        yield i.target
        if not conditional:
            return
    if i.name not in ("EXIT", "RET") or i.predicate:
        yield at + 1
