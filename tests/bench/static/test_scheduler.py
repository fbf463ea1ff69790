"""The scheduler of the static model on traces whose time can be worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from bench.static.access import Access
from bench.static.machine import ARCHITECTURES, Architecture, cost
from bench.static.sass import Instruction
from bench.static.scheduler import BARRIER_LATENCY, Run, simulate
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
    assert difference(Instruction("FFMA", stall=4), 100) == pytest.approx(400)


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


def test_pipes_work_side_by_side() -> None:
    pair = [Instruction("FFMA"), Instruction("LOP3.LUT")] * 100 + [Instruction("EXIT")]
    assert cycles(pair) == pytest.approx(200, abs=5)
    # Products of integers take the FMA pipe, on sm_90 one of two.
    pair = [Instruction("FFMA"), Instruction("IMAD")] * 100 + [Instruction("EXIT")]
    assert cycles(pair, arch=A100) == pytest.approx(400, abs=5)
    assert cycles(pair, arch=H100) == pytest.approx(200, abs=5)


def test_other_warps_hide_latency() -> None:
    """A chain of 10 loads that are waited for, of 500 cycles: as long for eight warps as for one."""
    chain = [Instruction("LDG.E", write=0, wait=1)] * 10 + [Instruction("EXIT", wait=1)]
    alone = cycles(chain)
    assert alone == pytest.approx(5000, rel=0.01)
    assert cycles(chain, warps=8) == pytest.approx(alone, rel=0.02)
    # Four programs at a time: a quarter of the time for each.
    assert cycles(chain, warps=8, resident=4) == pytest.approx(alone / 4, rel=0.05)


def test_an_operand_that_is_still_read_may_not_be_overwritten() -> None:
    store, after = Instruction("STG.E", read=1), Instruction("FADD", wait=1 << 1)
    assert cycles([store, after, Instruction("EXIT")]) < 20  # not the store's latency


def test_a_barrier_waits_for_the_slowest_warp() -> None:
    slow, fast = [0] * 100 + [1, 2], [1, 2]
    code = [Instruction("FADD", stall=10), Instruction("BAR.SYNC"), Instruction("EXIT")]
    costs = [cost(i, A100) for i in code]
    both = simulate(code, costs, [[Trace(slow), Trace(fast)]], 1, A100, launch=0.0).cycles
    alone = simulate(code, costs, [[Trace(slow)]], 1, A100, launch=0.0).cycles
    assert both == pytest.approx(alone, abs=3)
    assert alone == pytest.approx(1000 + BARRIER_LATENCY, abs=5)
    # A warp that has ended is not waited for.
    assert simulate(code, costs, [[Trace(slow), Trace([2])]], 1, A100, launch=0.0).cycles == pytest.approx(alone, abs=3)


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_copies_are_waited_for_in_groups(allowed: int) -> None:
    """Three groups of one copy, 100 cycles apart, of 500 cycles: with n allowed to be under way, the last n are."""
    group = [Instruction("LDGSTS.E.128", "[R2], [R4.64]"), Instruction("LDGDEPBAR", stall=10)]
    group += [Instruction("NOP", stall=10)] * 9
    code = [*group * 3, Instruction("DEPBAR.LE", f"SB0, {allowed:#x}"), Instruction("EXIT")]
    assert cycles(code) == pytest.approx(500 + 100 * (2 - allowed), abs=10)


def test_products_of_a_warp_group_are_waited_for() -> None:
    product = "HGMMA.64x64x16.F32"
    code = [Instruction(product, "R24, gdesc[UR4], R24"), Instruction(product, "R24, gdesc[UR4], R24, gsb0")]
    end = [Instruction("WARPGROUP.DEPBAR.LE", "gsb0, 0x0"), Instruction("EXIT")]
    assert cycles([*code, *end], warps=4, arch=H100) == pytest.approx(2 * 32 + 40 + 1, abs=8)
    assert cycles([*code, Instruction("EXIT")], warps=4, arch=H100) == pytest.approx(64, abs=4)  # only the pipe's time


def test_accesses_take_as_many_rounds_as_they_need() -> None:
    code = [Instruction("LDS", "R0, [R2]")] * 100 + [Instruction("EXIT")]
    costs = [cost(i, A100) for i in code]
    trace = Trace(list(range(101)), {place: Access(rounds=8, ideal=1) for place in range(100)})

    def run(replays: bool) -> Run:
        return simulate(code, costs, [[trace]], 1, A100, replays=replays, launch=0.0)

    assert run(False).cycles == pytest.approx(100, abs=3)
    assert run(True).cycles == pytest.approx(800, abs=20)
    assert run(True).busy["memory"] == pytest.approx(1, abs=0.03)


def test_kinds_of_programs_take_turns() -> None:
    code = [Instruction("FADD", stall=10), Instruction("EXIT")]
    costs = [cost(i, A100) for i in code]
    long, short = [Trace([0] * 100 + [1])], [Trace([0] * 20 + [1])]
    assert simulate(code, costs, [long, short], 1, A100, launch=0.0).cycles == pytest.approx(600, rel=0.1)
    assert simulate(code, costs, [long, short], 1, A100, launch=100.0).cycles == pytest.approx(700, rel=0.1)


def test_share_of_the_time_that_pipes_work() -> None:
    code = [Instruction("FFMA", stall=8)] * 100 + [Instruction("EXIT")]
    run = simulate(code, [cost(i, A100) for i in code], [[Trace(list(range(101)))] * 4], 1, A100, launch=0.0)
    assert run.busy["FMA"] == pytest.approx(2 / 8, rel=0.02)
    assert run.busy["issue"] == pytest.approx(1 / 8, rel=0.02)
    assert run.busy["tensor"] == 0
