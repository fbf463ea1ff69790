"""What a multiprocessor has, and what each instruction asks of it.

A multiprocessor is four partitions that issue one instruction of one of their warps a cycle, and one unit for all kinds
of memory that the four share. A warp instruction occupies a pipe for 32 lanes / lanes of the pipe cycles. Lanes are
those of NVIDIA's table "Throughput of native arithmetic instructions" (CUDA C++ programming guide); latencies are
assumptions, the usual results of published microbenchmarks. All of them are in docs/static-model.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bench.static.sass import Instruction

# Pipes of a partition, and the memory unit, which is one for all four.
ISSUE, FMA, FMA_HEAVY, ALU, XU, TENSOR, UNIFORM, MEMORY = range(8)
PIPES = ("issue", "FMA", "IMAD", "ALU", "XU", "tensor", "uniform", "memory")

# What an instruction does besides occupying a pipe.
NOTHING, BARRIER, COPY, COPY_COMMIT, COPY_WAIT, WARPGROUP, WARPGROUP_WAIT = range(7)


@dataclass(frozen=True)
class Architecture:
    """A GPU, and its multiprocessor's resources. Shared memory in bytes; `tensor`: fp16 multiply-adds a cycle and
    partition in mma instructions, `wgmma` in those of a warp group."""

    gpu: str
    multiprocessors: int
    clock: float
    bandwidth: float  # bytes/s that a copy reaches, about 85 % of the data sheet's
    shared: int
    warps: int
    programs: int
    fma_cycles: int  # of a float32 FMA: 2 with 16 lanes, 1 with 32
    tensor: float
    wgmma: float


ARCHITECTURES = {
    80: Architecture("A100 80 GB", 108, 1.410e9, 1.73e12, 164 << 10, 64, 32, 2, 256, 0),
    90: Architecture("H100 SXM", 132, 1.755e9, 2.85e12, 228 << 10, 64, 32, 1, 512 * 0.62, 512),
}
REGISTERS = 65536
RESERVED_SHARED = 1024  # of every program, for the system

GLOBAL_LATENCY = 500.0
QUEUE = 8.0  # cycles of work that wait in front of the memory unit before the next instruction must wait to issue


@dataclass(frozen=True)
class Cost:
    """Cycles on a pipe, cycles from there until the result is there, and what else happens."""

    pipe: int
    cycles: float
    latency: float
    event: int = NOTHING
    argument: int = 0


FMA_OPS = {"FFMA", "FMUL", "FADD", "FFMA2", "FMUL2", "FADD2", "FMUL32I", "FADD32I", "FFMA32I"}
HALF_OPS = {"HADD2", "HMUL2", "HFMA2", "HADD2_32I", "HMUL2_32I", "HMNMX2", "HSET2", "HSETP2"}
HEAVY_OPS = {"IMAD", "IMUL", "IDP"}
XU_OPS = {"MUFU", "I2F", "F2I", "F2F", "FRND", "POPC", "FLO", "BREV"}
SHARED_OPS = {"LDS", "STS", "LDSM", "STSM", "ATOMS"}
GLOBAL_OPS = {"LDG", "STG", "LDGSTS", "LDL", "STL", "LD", "ST", "RED", "ATOMG"}
CONTROL_OPS = {
    "BRA", "EXIT", "BSSY", "BSYNC", "CALL", "RET", "WARPSYNC", "NOP", "MEMBAR", "FENCE", "WARPGROUP", "DEPBAR",
    "ERRBAR", "CCTL", "YIELD", "LDGDEPBAR", "PREEXIT", "ACQBULK", "BMOV", "BREAK", "S2R", "CS2R", "NANOSLEEP",
}  # fmt: skip
UNIFORM_EXTRA = {"R2UR", "S2UR", "VOTEU"}
HMMA_MACS = {"16816": 2048, "1688": 1024, "1684": 512}  # multiply-adds of the shapes m16n8k16, m16n8k8, m16n8k4


def cost(instruction: Instruction, arch: Architecture, global_latency: float = GLOBAL_LATENCY) -> Cost:
    """What an instruction asks of a multiprocessor."""
    name, op = instruction.name, instruction.op
    if name in FMA_OPS:
        return Cost(FMA, arch.fma_cycles, 4)
    if name in HALF_OPS:
        return Cost(FMA, 1, 5)
    if name in HEAVY_OPS:
        return Cost(FMA_HEAVY, 2, 5)
    if name in XU_OPS:
        return Cost(XU, 8, 22)
    if name in SHARED_OPS:
        cycles = _words(op)
        return Cost(MEMORY, cycles, 26 + cycles)
    if name == "SHFL":
        return Cost(MEMORY, 1, 24)
    if name in GLOBAL_OPS:
        return Cost(MEMORY, _words(op), global_latency, COPY if name == "LDGSTS" else NOTHING)
    if name == "LDC":
        return Cost(MEMORY, 1, 30)
    if name == "HMMA":
        macs = HMMA_MACS[op.split(".")[1]]
        return Cost(TENSOR, macs * (2 if "TF32" in op else 1) / arch.tensor, 34)
    if name == "HGMMA":
        shape = re.match(r"HGMMA\.\d+x(\d+)x(\d+)", op)
        assert shape is not None, op
        macs = 16 * int(shape[1]) * int(shape[2])  # of one of the group's four warps, 16 rows
        cycles = macs * (2 if "TF32" in op else 1) / arch.wgmma
        return Cost(TENSOR, cycles, 40, WARPGROUP, int("gsb0" in instruction.operands))
    if name == "WARPGROUP" and "DEPBAR" in op:
        return Cost(ISSUE, 1, 12, WARPGROUP_WAIT, _count(instruction))
    if name == "LDGDEPBAR":
        return Cost(ISSUE, 1, 12, COPY_COMMIT)
    if name == "DEPBAR":
        return Cost(ISSUE, 1, 12, COPY_WAIT, _count(instruction))
    if name == "BAR":
        return Cost(ISSUE, 1, 20, BARRIER)
    if name in CONTROL_OPS:
        return Cost(ISSUE, 1, 20 if name == "S2R" else 12)
    if name.startswith("U") or name in UNIFORM_EXTRA:
        return Cost(UNIFORM, 2, 20 if name == "ULDC" else 12)
    return Cost(ALU, 2, 5)


def _words(op: str) -> int:
    """Times 128 bytes that a warp moves."""
    if op.startswith(("LDSM", "STSM")):
        return int(op[-1]) if op[-1] in "24" else 1
    return 4 if ".128" in op else 2 if ".64" in op else 1


def _count(instruction: Instruction) -> int:
    """How many groups may still be under way: the last operand."""
    return int(instruction.operands.rpartition(",")[2].strip() or "0", 16)


@dataclass(frozen=True)
class Occupancy:
    """Programs on a multiprocessor at a time, and what would let in no more."""

    programs: int
    limit: str


def occupancy(arch: Architecture, registers: int, shared: int, warps: int) -> Occupancy:
    """Registers a thread, shared memory of a program in bytes, warps of a program."""
    per_warp = -(-registers * 32 // 256) * 256
    room = {
        "registers": REGISTERS // (per_warp * warps),
        "shared memory": arch.shared // (shared + RESERVED_SHARED),
        "warps": arch.warps // warps,
        "programs": arch.programs,
    }
    limit = min(room, key=lambda key: room[key])
    return Occupancy(room[limit], limit)
