"""Replays warps on one multiprocessor, cycle by cycle: four schedulers, their pipes, one memory unit, barriers.

Warps are dealt to the schedulers in turn. Each cycle a scheduler issues the next instruction of one warp: of the one
that it issued last, while that is ready, else of the next in order that is. A warp is ready when its last instruction's
stall is over, the scoreboards that it waits for are down, and its pipe is free. Programs that end are replaced until
`programs` have run, each kind of program in its turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from bench.static.machine import (
    BARRIER,
    COPY,
    COPY_COMMIT,
    COPY_WAIT,
    FMA,
    FMA_HEAVY,
    ISSUE,
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
SETS = 10  # of resident programs, at least, that are counted after the first
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

    work = Work(
        starts, lengths, numbers([c.pipe for c in costs]), cycles, latency, numbers([c.event for c in costs]),
        numbers([c.argument for c in costs]), numbers([max(i.stall, 1) for i in instructions]),
        numbers([i.write for i in instructions]), numbers([i.read for i in instructions]),
        numbers([i.wait for i in instructions]),
    )  # fmt: skip
    rounds = -(-SETS * resident // len(programs))  # in which each kind has its turn
    ends = _replay(work, len(programs[0]), resident, resident + rounds * len(programs), arch.fma_cycles == 1, launch)
    # Programs begin in step and fall out of it; the slope over all that follow the first set is their rate.
    each = float(np.polynomial.polynomial.polyfit(np.arange(len(ends) - resident), ends[resident:], 1)[1])
    return Run(each, {pipe: amount / len(programs) / each for pipe, amount in workload(work, arch).items()})


class Work(NamedTuple):
    """Traces one after the other: where each begins and how long it is, then for every instruction in it what `Cost`
    and `Instruction` say."""

    starts: np.ndarray
    lengths: np.ndarray
    pipe: np.ndarray
    cycles: np.ndarray
    latency: np.ndarray
    event: np.ndarray
    argument: np.ndarray
    stall: np.ndarray
    write: np.ndarray
    read: np.ndarray
    wait: np.ndarray


def workload(work: Work, arch: Architecture) -> dict[str, float]:
    """Cycles that a multiprocessor needs for all of this if only one pipe counts, for each pipe."""
    sums = np.bincount(work.pipe, weights=work.cycles, minlength=len(PIPES))
    result = {name: sums[pipe] / (1 if pipe == MEMORY else 4) for pipe, name in enumerate(PIPES)}
    result["issue"] = len(work.pipe) / 4
    if arch.fma_cycles == 1:  # two pipes of 2 cycles an instruction, of which one alone multiplies integers
        result["FMA"] = max(sums[FMA_HEAVY], sums[FMA] + sums[FMA_HEAVY] / 2) / 4
    else:
        result["FMA"] = (sums[FMA] + sums[FMA_HEAVY]) / 4
    return result


class State(NamedTuple):
    """Of the resident warps, [warps] and more, and of the four partitions' pipes. Times are in cycles."""

    trace: np.ndarray       # which trace a warp runs
    place: np.ndarray       # of the next instruction in it
    ready: np.ndarray       # when the last instruction's stall is over
    scoreboard: np.ndarray  # [warps, 6], when each is down
    waiting: np.ndarray     # at a barrier
    done: np.ndarray
    # Asynchronous work, copies [0] and products of a warp group [1].
    open_group: np.ndarray  # [2, warps], when what no group contains yet ends
    group_ends: np.ndarray  # [2, warps, GROUPS], when the latest groups end, the last one first
    free: np.ndarray        # [4, pipes], when a pipe can begin something new; the memory unit's is [0, MEMORY]


@njit(cache=True)
def _replay(work, warps, resident, programs, two_fma, launch):
    """When each of the programs ends, of which `resident` run at a time, each of `warps`."""
    n = resident * warps
    state = State(
        np.arange(n) % len(work.starts), np.zeros(n, np.int64), np.zeros(n), np.zeros((n, 6)), np.zeros(n, np.bool_),
        np.zeros(n, np.bool_), np.zeros((2, n)), np.zeros((2, n, GROUPS)), np.zeros((4, 8)),
    )  # fmt: skip
    ends = np.zeros(programs + resident)
    finished = 0
    last = np.zeros(4, np.int64)  # the warp that each scheduler has issued from
    time = 0.0
    while finished < programs:
        soonest = 1e30
        for s in range(4):
            for k in range(n):
                w = (last[s] + k) % n
                if w % 4 != s or state.done[w] or state.waiting[w]:
                    continue
                i = work.starts[state.trace[w]] + state.place[w]
                at = _earliest(work, state, w, i, s, two_fma)
                if at > time:
                    soonest = min(soonest, at)
                    continue
                _issue(work, state, w, i, s, time, two_fma)
                if work.event[i] == BARRIER or state.done[w]:
                    own = w // warps * warps  # the first warp of its program
                    done = there = 0
                    for v in range(own, own + warps):
                        done += state.done[v]
                        there += state.done[v] or state.waiting[v]
                    if done == warps:
                        ends[finished] = time
                        finished += 1
                        first_trace = (resident + finished - 1) * warps % len(work.starts)
                        for v in range(own, own + warps):
                            _start(state, v, first_trace + v - own, time + launch)
                    elif there == warps:
                        for v in range(own, own + warps):
                            if state.waiting[v]:
                                state.waiting[v] = False
                                state.ready[v] = max(state.ready[v], time + BARRIER_LATENCY)
                last[s] = w
                soonest = time + 1
                break
        time = max(soonest, time + 1)
    return ends[:programs]


@njit(cache=True)
def _earliest(work, state, w, i, s, two_fma):
    """When warp w of partition s can issue its next instruction i."""
    at = state.ready[w]
    for b in range(6):
        if work.wait[i] >> b & 1:
            at = max(at, state.scoreboard[w, b])
    event, allowed = work.event[i], work.argument[i]
    if event in (COPY_WAIT, WARPGROUP_WAIT) and allowed < GROUPS:
        # Groups end in order: what must have ended is the latest of those that may not be under way any more.
        at = max(at, state.group_ends[0 if event == COPY_WAIT else 1, w, allowed])
    pipe = work.pipe[i]
    if pipe == MEMORY:
        return max(at, state.free[0, MEMORY] - QUEUE)
    if pipe == FMA and two_fma:
        return max(at, min(state.free[s, FMA], state.free[s, FMA_HEAVY]))
    if pipe == FMA_HEAVY and not two_fma:
        return max(at, state.free[s, FMA])
    return max(at, state.free[s, pipe]) if pipe != ISSUE else at


@njit(cache=True)
def _issue(work, state, w, i, s, time, two_fma):
    """Warp w of partition s issues its next instruction i."""
    pipe, event, begin, length = work.pipe[i], work.event[i], time, work.cycles[i]
    if pipe == MEMORY:
        begin = max(state.free[0, MEMORY], time)
        state.free[0, MEMORY] = begin + length
    elif pipe == FMA and two_fma:  # the pipe that is free first, of two with 16 lanes
        which = FMA if state.free[s, FMA] <= state.free[s, FMA_HEAVY] else FMA_HEAVY
        state.free[s, which] = time + 2.0
    elif pipe == FMA_HEAVY and not two_fma:
        state.free[s, FMA] = time + length
    elif pipe != ISSUE:
        state.free[s, pipe] = time + length

    result = begin + work.latency[i] + (length if pipe == TENSOR else 0.0)
    if work.write[i] < 6:
        state.scoreboard[w, work.write[i]] = max(state.scoreboard[w, work.write[i]], result)
    if work.read[i] < 6:
        state.scoreboard[w, work.read[i]] = max(state.scoreboard[w, work.read[i]], begin + OPERANDS_READ)
    kind = 1 if event == WARPGROUP else 0
    if event in (COPY, WARPGROUP):
        state.open_group[kind, w] = max(state.open_group[kind, w], result)
    if event == COPY_COMMIT or (event == WARPGROUP and work.argument[i] > 0):
        for g in range(GROUPS - 1, 0, -1):
            state.group_ends[kind, w, g] = state.group_ends[kind, w, g - 1]
        state.group_ends[kind, w, 0] = max(state.open_group[kind, w], state.group_ends[kind, w, 1])

    state.ready[w] = time + work.stall[i]
    state.place[w] += 1
    state.done[w] = state.place[w] >= work.lengths[state.trace[w]]
    state.waiting[w] = event == BARRIER and not state.done[w]


@njit(cache=True)
def _start(state, w, trace, time):
    """Warp w belongs to a new program, in the place of one that has ended."""
    state.trace[w] = trace
    state.place[w] = 0
    state.ready[w] = time
    state.done[w] = False
    for b in range(6):
        state.scoreboard[w, b] = 0.0
    for kind in range(2):
        state.open_group[kind, w] = 0.0
        for g in range(GROUPS):
            state.group_ends[kind, w, g] = 0.0
