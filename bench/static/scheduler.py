"""Replays warps on one multiprocessor, cycle by cycle: four schedulers, their pipes, one memory unit, barriers.

Warps are dealt to the schedulers in turn. Each cycle a scheduler issues the next instruction of one warp: of the one
that it issued last, while that is ready, else of the next in order that is. A warp is ready when its last instruction's
stall is over, the scoreboards that it waits for are down, and its pipe is free. Programs that end are replaced until
`programs` have run, each kind of program in its turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from bench.static.machine import (
    BARRIER,
    COPY,
    COPY_COMMIT,
    COPY_WAIT,
    FMA,
    FMA_HEAVY,
    MEMORY,
    PIPES,
    QUEUE,
    TENSOR,
    WARPGROUP,
    WARPGROUP_WAIT,
    Architecture,
    Cost,
)
from bench.static.sass import Instruction
from bench.static.trace import Trace

BARRIER_LATENCY = 22.0
OPERANDS_READ = 8.0  # cycles after its turn in the pipe until an instruction's operands may be overwritten
LAUNCH = 300.0  # cycles between a program's end and its successor's first instruction
GROUPS = 8  # of asynchronous copies or products that one warp may have under way
SETS = 5  # of resident programs, of every kind, that run one after the other: the first warms up
NOBODY_TAKES_PART = 12.0  # latency of an access of no lane


@dataclass(frozen=True)
class Run:
    """What a multiprocessor did: cycles per program in steady state, and the share of time that each pipe worked."""

    cycles: float
    busy: dict[str, float]


def simulate(
    instructions: Sequence[Instruction], costs: Sequence[Cost], programs: Sequence[Sequence[Trace]], resident: int,
    arch: Architecture, replays: bool = False, launch: float = LAUNCH,
) -> Run:  # fmt: skip
    """`programs`: kinds of programs that take turns, each the traces of its warps. With `replays`, bank conflicts and
    lanes that are spread over cache lines count as well; without, an access takes as long as its width says."""
    traces = [trace for kind in programs for trace in kind]
    order = np.concatenate([np.asarray(t.order, dtype=np.int64) for t in traces])
    lengths = np.array([len(t.order) for t in traces])
    starts = np.cumsum(lengths) - lengths

    cycles = np.array([c.cycles for c in costs], dtype=np.float64)[order]
    latency = np.array([c.latency for c in costs], dtype=np.float64)[order]
    for start, trace in zip(starts, traces, strict=True):
        for place, access in trace.accesses.items():
            cycles[start + place] = access.rounds if replays else access.ideal
            if access.ideal == 0:
                latency[start + place] = NOBODY_TAKES_PART

    def numbers(values: list[int]) -> np.ndarray:
        return np.array(values, dtype=np.int64)[order]

    pipes = numbers([c.pipe for c in costs])
    total = SETS * resident * len(programs)
    ends = _replay(
        pipes, cycles, latency, numbers([c.event for c in costs]), numbers([c.argument for c in costs]),
        numbers([max(i.stall, 1) for i in instructions]), numbers([i.write for i in instructions]),
        numbers([i.read for i in instructions]), numbers([i.wait for i in instructions]),
        starts, lengths, len(programs[0]), resident, total, arch.fma_cycles == 1, launch,
    )  # fmt: skip
    each = float(ends[total - 1] - ends[resident - 1]) / (total - resident)
    work = workload(pipes, cycles, arch)
    return Run(each, {pipe: amount / len(programs) / each for pipe, amount in work.items()})


def workload(pipes: np.ndarray, cycles: np.ndarray, arch: Architecture) -> dict[str, float]:
    """Cycles that a multiprocessor needs for these instructions if only one pipe counts, for each pipe."""
    work = np.bincount(pipes, weights=cycles, minlength=len(PIPES))
    result = {name: work[pipe] / (1 if pipe == MEMORY else 4) for pipe, name in enumerate(PIPES)}
    result["issue"] = len(pipes) / 4
    if arch.fma_cycles == 1:  # two pipes of 2 cycles an instruction, of which one alone multiplies integers
        result["FMA"] = max(work[FMA_HEAVY], work[FMA] + work[FMA_HEAVY] / 2) / 4
    else:
        result["FMA"] = (work[FMA] + work[FMA_HEAVY]) / 4
    return result


@njit(cache=True)
def _replay(
    pipes, cycles, latency, event, argument, stall, write, read, wait,
    starts, lengths, warps, resident, programs, two_fma, launch,
):  # fmt: skip
    """When each of the programs ends."""
    kinds = len(starts) // warps
    n = resident * warps
    trace = np.arange(n) % len(starts)  # of each resident warp
    started = resident
    place = np.zeros(n, np.int64)  # of the next instruction in its warp's trace
    ready = np.zeros(n)
    scoreboard = np.zeros((n, 6))
    waiting = np.zeros(n, np.bool_)  # at a barrier
    done = np.zeros(n, np.bool_)
    # Asynchronous work, copies [0] and products of a warp group [1]: when the open group and those closed end.
    open_group = np.zeros((2, n))
    group_ends = np.zeros((2, n, GROUPS))
    free = np.zeros((4, 8))  # when a partition's pipe is free
    memory_free = 0.0
    ends = np.zeros(programs + resident)
    finished = 0
    last = np.zeros(4, np.int64)
    time = 0.0
    while finished < programs:
        soonest = 1e30
        for s in range(4):
            chosen = -1
            for k in range(n):
                w = (k + last[s]) % n
                if w % 4 != s or done[w] or waiting[w]:
                    continue
                i = starts[trace[w]] + place[w]
                at = ready[w]
                mask = wait[i]
                for b in range(6):
                    if mask >> b & 1:
                        at = max(at, scoreboard[w, b])
                e = event[i]
                if e in (COPY_WAIT, WARPGROUP_WAIT):
                    kind = 0 if e == COPY_WAIT else 1
                    # Groups end in order, the latest first in the list: wait for the one after those still allowed.
                    if argument[i] < GROUPS:
                        at = max(at, group_ends[kind, w, argument[i]])
                pipe = pipes[i]
                if pipe == MEMORY:
                    at = max(at, memory_free - QUEUE)
                elif pipe == FMA and two_fma:
                    at = max(at, min(free[s, FMA], free[s, FMA_HEAVY]))
                elif pipe == FMA_HEAVY and not two_fma:
                    at = max(at, free[s, FMA])
                elif pipe > 0:
                    at = max(at, free[s, pipe])
                if at <= time:
                    chosen = w
                    break
                soonest = min(soonest, at)
            if chosen < 0:
                continue
            w = chosen
            i = starts[trace[w]] + place[w]
            pipe, e = pipes[i], event[i]
            begin = time
            if pipe == MEMORY:
                begin = max(memory_free, time)
                memory_free = begin + cycles[i]
            elif pipe in (FMA, FMA_HEAVY):
                which, length = pipe, cycles[i]
                if not two_fma:
                    which = FMA
                elif pipe == FMA:  # the pipe that is free first, of two with 16 lanes
                    which = FMA if free[s, FMA] <= free[s, FMA_HEAVY] else FMA_HEAVY
                    length = 2.0
                free[s, which] = time + length
            elif pipe > 0:
                free[s, pipe] = time + cycles[i]
            result = begin + latency[i]
            if pipe == TENSOR:
                result += cycles[i]
            if write[i] < 6:
                b = write[i]
                scoreboard[w, b] = max(scoreboard[w, b], result)
            if read[i] < 6:
                b = read[i]
                scoreboard[w, b] = max(scoreboard[w, b], begin + OPERANDS_READ)
            if e in (COPY, WARPGROUP):
                kind = 0 if e == COPY else 1
                open_group[kind, w] = max(open_group[kind, w], result)
            if e == COPY_COMMIT or (e == WARPGROUP and argument[i] > 0):
                kind = 0 if e == COPY_COMMIT else 1
                for g in range(GROUPS - 1, 0, -1):
                    group_ends[kind, w, g] = group_ends[kind, w, g - 1]
                group_ends[kind, w, 0] = max(open_group[kind, w], group_ends[kind, w, 1])
            ready[w] = time + stall[i]
            place[w] += 1
            c = w // warps
            if e == BARRIER:
                waiting[w] = True
            if place[w] >= lengths[trace[w]]:
                done[w] = True
                waiting[w] = False
            if e == BARRIER or done[w]:
                all_done, all_there = True, True
                for v in range(c * warps, (c + 1) * warps):
                    all_done = all_done and done[v]
                    all_there = all_there and (done[v] or waiting[v])
                if all_done:
                    ends[finished] = time
                    finished += 1
                    for v in range(c * warps, (c + 1) * warps):
                        trace[v] = started % kinds * warps + v % warps
                        done[v] = False
                        place[v] = 0
                        ready[v] = time + launch
                        scoreboard[v] = 0.0
                        open_group[:, v] = 0.0
                        group_ends[:, v] = 0.0
                    started += 1
                elif all_there:
                    for v in range(c * warps, (c + 1) * warps):
                        if waiting[v]:
                            waiting[v] = False
                            ready[v] = max(ready[v], time + BARRIER_LATENCY)
            last[s] = w
            soonest = time + 1
        time = max(soonest, time + 1)
    return ends[:programs]
