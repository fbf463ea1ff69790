"""From a class and an architecture to a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from random import Random
from typing import Any

import torch

from bench.static.arguments import constants, warp_of
from bench.static.classes import Class
from bench.static.machine import ARCHITECTURES, GLOBAL_LATENCY, PIPES, cost, occupancy
from bench.static.sass import Instruction, disassemble
from bench.static.scheduler import simulate
from bench.static.trace import Trace, follow
from sg3.kernels.triton_aot import Launch, recorded
from sg3.kernels.triton_launch import noted

BOUND = 0.75  # a pipe that works this share of the time is what limits
SAMPLES = 16  # programs of a grid, at most
ENOUGH = 64_000  # executed instructions in all, beyond which no more programs are followed
LONG = 20_000  # of one warp, beyond which it stands for all


@dataclass(frozen=True)
class Prediction:
    """Of one class on one architecture. `ps` and `floor_ps`: picoseconds of the whole GPU per output element."""

    arch: str
    op: str
    config: str
    mode: str
    dtype: str
    ps: float
    ps_with_replays: float
    floor_ps: float
    cycles: float  # of a multiprocessor, per output
    limit: str
    busy: dict[str, float]
    instructions: float  # of warps, per output
    registers: int
    stack: int
    shared: int
    warps: int
    resident: int
    occupancy_limit: str
    unknown_accesses: float  # share of the accesses to memory whose addresses the model could not follow


def predict(item: Class, capability: int, global_latency: float = GLOBAL_LATENCY) -> Prediction:
    """Compile the class for sm_`capability` and replay it.

    Launches that prepare the last one are part of its time; a copy's rate is the most that they reach.
    """
    with recorded(capability) as launches, noted() as starts:
        outputs = item.run().numel()
    main = replay(item, launches[-1], outputs, capability, global_latency)
    for launch, start in zip(launches, starts, strict=True):
        if any(filled is argument for filled in start.room for argument in starts[-1].arguments):
            first = replay(item, launch, outputs, capability, global_latency)
            main = replace(
                main, ps=main.ps + max(first.ps, first.floor_ps), cycles=main.cycles + first.cycles,
                ps_with_replays=main.ps_with_replays + max(first.ps_with_replays, first.floor_ps),
                instructions=main.instructions + first.instructions,
            )  # fmt: skip
    return main


def replay(item: Class, launch: Launch, outputs: int, capability: int, global_latency: float) -> Prediction:
    """The prediction for a recorded launch that writes so many elements."""
    arch = ARCHITECTURES[capability]
    kernel = launch.compile(capability)
    binary = disassemble(kernel.asm["cubin"])
    warps, shared = kernel.metadata.num_warps, kernel.metadata.shared
    room = occupancy(arch, binary.registers, shared, warps)
    programs = sample(launch, kernel, binary.instructions, item.rounds, capability)
    costs = [cost(i, arch, global_latency) for i in binary.instructions]
    run = simulate(binary.instructions, costs, programs, room.programs, arch)
    replayed = simulate(binary.instructions, costs, programs, room.programs, arch, replays=True)
    accesses = [access for program in programs for trace in program for access in trace.accesses.values()]
    executed = sum(len(trace.order) for program in programs for trace in program) / len(programs)

    cycles = run.cycles * prod(launch.grid) / outputs
    per_second = arch.multiprocessors * arch.clock
    ps, floor = cycles / per_second * 1e12, bytes_moved(launch) / arch.bandwidth / outputs * 1e12
    pipe = max(PIPES, key=lambda name: run.busy[name])
    limit = "bandwidth" if ps < floor else pipe if run.busy[pipe] >= BOUND else "latency"
    return Prediction(
        f"sm_{capability}", item.op, *item.key,
        ps=ps, ps_with_replays=replayed.cycles * prod(launch.grid) / outputs / per_second * 1e12, floor_ps=floor,
        cycles=cycles, limit=limit, busy=run.busy,
        instructions=executed * prod(launch.grid) / outputs, registers=binary.registers, stack=binary.stack,
        shared=shared, warps=warps, resident=room.programs, occupancy_limit=room.limit,
        unknown_accesses=1 - sum(access.known for access in accesses) / max(len(accesses), 1),
    )  # fmt: skip


def sample(
    launch: Launch, kernel: Any, instructions: Sequence[Instruction], rounds: Sequence[int], capability: int
) -> list[list[Trace]]:
    """The traces of a few programs' warps, drawn from the whole grid, so that its edges have their share."""
    bank = constants(launch, kernel, capability)
    x, y, z = (*launch.grid, 1, 1)[:3]
    result: list[list[Trace]] = []
    executed = 0
    for number in drawn(x * y * z):
        program = number % x, number // x % y, number // x // y
        warps: list[Trace] = []
        for warp in range(kernel.metadata.num_warps):
            warps.append(follow(instructions, warp_of(bank, warp, program), rounds))
            executed += len(warps[-1].order)
            if len(warps[0].order) > LONG:
                return [warps * kernel.metadata.num_warps]
        result.append(warps)
        if executed > ENOUGH:
            break
    return result


def drawn(programs: int) -> list[int]:
    """Numbers of up to SAMPLES programs, always the same ones: all if there are no more than that, otherwise at random,
    one of each part of the grid, the parts in an order in which the first few lie far apart."""
    if programs <= SAMPLES:
        return list(range(programs))
    draw = Random(0)
    parts = sorted(range(SAMPLES), key=lambda part: f"{part:04b}"[::-1])
    return [int((part + draw.random()) * programs / SAMPLES) for part in parts]


def bytes_moved(launch: Launch) -> int:
    """At the least: all tensors that it reads or writes, each once."""
    tensors = {t.data_ptr(): t for t in launch.arguments if isinstance(t, torch.Tensor)}
    return sum(t.numel() * t.element_size() for t in tensors.values())
