"""Reading machine code: on the listing of a small kernel, beside which a person can look."""

from __future__ import annotations

import pytest

from bench.static.machine import ARCHITECTURES, cost, occupancy
from bench.static.sass import NO_SCOREBOARD, parse
from tests.bench.static.tiny import code, listing

A100 = ARCHITECTURES[80]


def test_every_instruction_with_its_control_bits() -> None:
    for arch in (80, 90):
        lines = [line for line in listing(arch).splitlines() if line.lstrip().startswith("/*") and ";" in line]
        assert len(code(arch)) == len(lines)
    first, second = code(80)[:2]
    assert str(first) == "IMAD.MOV.U32 R1, RZ, RZ, c[0x0][0x28]"
    # 0x000fe400078e00ff: nothing to wait for or to raise, 2 cycles.
    assert (first.stall, first.write, first.read, first.wait) == (2, NO_SCOREBOARD, NO_SCOREBOARD, 0)
    # 0x000e220000002100: raises scoreboard 0 until the thread's number is there, 1 cycle.
    assert str(second) == "S2R R2, SR_TID.X"
    assert (second.stall, second.write, second.read, second.wait) == (1, 0, NO_SCOREBOARD, 0)
    assert next(i for i in code(80) if i.name == "LOP3").wait == 1  # R2 is there


def test_predicates_and_branch_targets() -> None:
    for arch in (80, 90):
        instructions = code(arch)
        loads = [i for i in instructions if i.name == "LDG"]
        assert {i.predicate for i in loads} == {"@!P2"} or {i.predicate for i in loads} == {"@!P1"}
        branches = [(n, i) for n, i in enumerate(instructions) if i.name == "BRA"]
        assert all(i.target is not None for _, i in branches)
        assert [n == i.target for n, i in branches] == [False] * (len(branches) - 1) + [True]  # behind the code
        back = [(n, i.target) for n, i in branches if i.target < n]
        assert len(back) == 2  # the loop by fours and the one by ones


def test_somebody_waits_for_every_load() -> None:
    """A scoreboard that a load raises is waited for later: what ties the model's latencies to the code."""
    for arch in (80, 90):
        instructions = code(arch)
        for n, i in enumerate(instructions):
            if i.name == "LDG":
                assert i.write != NO_SCOREBOARD
                assert any(later.wait >> i.write & 1 for later in instructions[n:])


def test_only_the_first_function() -> None:
    twice = listing(80) + listing(80).replace(".text.tiny", ".text.other")
    assert parse(twice) == code(80)


def test_no_code() -> None:
    with pytest.raises(ValueError, match="nvdisasm"):
        parse("")


def test_costs_know_widths_and_shapes() -> None:
    def of(op: str, operands: str = "", capability: int = 80) -> tuple[float, float]:
        found = cost(parse(f"\t.section\t.text.f,\n        /*0000*/    {op} {operands} ;  /* 0x{0:016x} */\n"
                           f"   /* 0x{0:016x} */\n")[0], ARCHITECTURES[capability])  # fmt: skip
        return found.cycles, found.latency

    assert of("LDS.128", "R4, [R2]") == (4, 30)
    assert of("LDSM.16.M88.4", "R4, [R2]")[0] == 4
    assert of("LDG.E.U16", "R4, [R2.64]") == (1, 500)
    assert of("HMMA.16816.F32", "R4, R8, R10, R4")[0] == 8
    assert of("HMMA.1688.F32.TF32", "R4, R8, R10, R4")[0] == 8
    # A warp group's 64x64x16 products are 16 x 64 x 16 for each of its warps, at 512 a cycle.
    assert of("HGMMA.64x64x16.F32", "R24, gdesc[UR4], R24, gsb0", 90)[0] == 32


def test_occupancy() -> None:
    assert occupancy(A100, registers=128, shared=16384, warps=4).programs == 4
    assert occupancy(A100, registers=129, shared=16384, warps=4).programs == 3  # as 136, registers come in steps
    assert occupancy(A100, registers=32, shared=40960, warps=4) == occupancy(A100, registers=48, shared=40960, warps=4)
    assert occupancy(A100, registers=32, shared=40960, warps=4).limit == "shared memory"
    assert occupancy(A100, registers=16, shared=0, warps=1).limit == "programs"
    assert occupancy(A100, registers=16, shared=0, warps=4).limit == "warps"
