"""The scheduler of the static model on traces whose time can be worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from bench.static.machine import ARCHITECTURES, Architecture, cost, occupancy
from bench.static.sass import Instruction
from bench.static.scheduler import simulate
from bench.static.trace import Trace

A100, H100 = ARCHITECTURES[80], ARCHITECTURES[90]


def cycles(code: list[Instruction], warps: int = 1, resident: int = 1, arch: Architecture = A100) -> float:
    costs = [cost(i, arch) for i in code]
    return simulate(code, costs, [[Trace(list(range(len(code))))] * warps], resident, arch, launch=0.0).cycles


def difference(one: Instruction, n: int, **options: Any) -> float:
    """Cycles that n more of an instruction take."""
    end = Instruction("EXIT")
    return cycles([one] * 2 * n + [end], **options) - cycles([one] * n + [end], **options)


def test_a_dependent_chain_takes_its_stalls() -> None:
    assert difference(Instruction("FFMA", stall=4), 100) == 400


@pytest.mark.parametrize(
    ("op", "arch", "each"),
    [
        ("FFMA", A100, 2), ("FFMA", H100, 1), ("IMAD", A100, 2), ("IMAD", H100, 2), ("LOP3.LUT", A100, 2),
        ("MUFU.RCP", A100, 8), ("HFMA2", A100, 1), ("HMMA.16816.F32", A100, 8), ("HMMA.1688.F32.TF32", A100, 8),
        ("LDS", A100, 1), ("LDS.128", A100, 4), ("NOP", A100, 1),
    ],
)  # fmt: skip
def test_one_warp_is_held_up_by_its_pipe(op: str, arch: Architecture, each: float) -> None:
    assert difference(Instruction(op), 200, arch=arch) == pytest.approx(200 * each, abs=1)


def test_partitions_work_side_by_side_and_share_the_memory_unit() -> None:
    for op, each in (("FFMA", 2), ("LDS", 4)):
        assert difference(Instruction(op), 200, warps=4) == pytest.approx(200 * each, abs=4)
    assert difference(Instruction("FFMA"), 200, warps=8) == pytest.approx(800, abs=4)


def test_a_scoreboard_holds_up_who_waits_for_it() -> None:
    load, use = Instruction("LDG.E", write=2), Instruction("FADD", wait=1 << 2)
    other = Instruction("FADD", wait=1 << 3)
    pair = cycles([load, use, Instruction("EXIT")]), cycles([load, other, Instruction("EXIT")])
    assert pair[0] - pair[1] == pytest.approx(499, abs=2)


def test_occupancy() -> None:
    assert occupancy(A100, registers=128, shared=16384, warps=4).programs == 4
    assert occupancy(A100, registers=129, shared=16384, warps=4).programs == 3  # of 136, registers come in steps
    assert occupancy(A100, registers=32, shared=40960, warps=4).limit == "shared memory"
    assert occupancy(A100, registers=16, shared=0, warps=1).limit == "programs"
