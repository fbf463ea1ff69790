"""Following warps through a small kernel: loops, branches, addresses, and the arithmetic that they hang on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bench.static import trace as module
from bench.static.access import Access, access
from bench.static.arithmetic import execute
from bench.static.registers import LANES, MASK, Value, Warp
from bench.static.sass import Instruction
from bench.static.trace import Trace, follow, remaining
from tests.bench.static.tiny import X, Y, code, warp


def count(arch: int, found: Trace, name: str) -> int:
    return sum(code(arch)[n].name == name for n in found.order)


@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 7, 10])
def test_loops_run_as_often_as_the_arguments_say(arch: int, n: int) -> None:
    found = follow(code(arch), warp(arch, 0, 0, n, width=200))
    assert count(arch, found, "LDG") == n
    assert count(arch, found, "STG") == 1


@pytest.mark.parametrize("arch", [80, 90])
def test_addresses(arch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that all warps of all programs load and store is what the kernel's source says."""
    loaded, stored = [], []

    def noting(i: Instruction, w: Warp) -> Access | None:
        if i.name in ("LDG", "STG"):
            place = next(p for p in module.operands(i.operands) if "[" in p.text)
            lanes = w.guard(i)
            (loaded if i.name == "LDG" else stored).extend(w.address(place)[lanes].tolist())
        return access(i, w)

    monkeypatch.setattr(module, "access", noting)
    n, width = 5, 201
    for program in range(4):
        for number in range(2):
            follow(code(arch), warp(arch, number, program, n, width))
    assert sorted(loaded) == [X + 4 * k for k in range(n * width)]
    assert sorted(stored) == sorted(Y + 4 * (k // 3 * 4) for k in range(width))


@pytest.mark.parametrize("arch", [80, 90])
def test_a_program_beyond_the_image_loads_nothing(arch: int) -> None:
    found = follow(code(arch), warp(arch, 0, program=9, n=3, width=200))
    loads = [found.accesses[place] for place, n in enumerate(found.order) if code(arch)[n].name == "LDG"]
    assert loads == [Access(0, 0)] * 3
    assert count(arch, found, "STG") == 0  # the warp has ended before


@pytest.mark.parametrize("arch", [80, 90])
def test_what_data_decides_is_left_out(arch: int) -> None:
    found = follow(code(arch), warp(arch, 0, 0, 3, 200))
    assert count(arch, found, "MUFU") == 0
    assert sum(i.name == "MUFU" for i in code(arch)) == 4


def test_a_loop_that_data_ends_needs_to_be_told() -> None:
    loop = [Instruction("FSETP.GT.AND", "P0, PT, R0, R1, PT"), Instruction("BRA", "`(.L_x_0)", "@P0", target=0),
            Instruction("EXIT")]  # fmt: skip
    with pytest.raises(ValueError, match="rounds"):
        follow(loop, Warp({}, {}))
    assert follow(loop, Warp({}, {}), rounds=[3]).order == [0, 1, 0, 1, 0, 1, 2]


def test_a_warp_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 100)
    with pytest.raises(ValueError, match="more than 100"):
        follow([Instruction("BRA", "`(.L_x_0)", target=0)], Warp({}, {}))


def test_the_shorter_way_is_taken_wherever_the_rare_code_lies() -> None:
    test = Instruction("FSETP.GT.AND", "P0, PT, R0, R1, PT")
    rare = [Instruction("FADD")] * 5
    end = Instruction("EXIT")
    inside = [test, Instruction("BRA", "`(.L)", "@!P0", target=7), *rare, end]
    assert follow(inside, Warp({}, {})).order == [0, 1, 7]
    behind = [test, Instruction("BRA", "`(.L)", "@P0", target=3), end, *rare, Instruction("BRA", "`(.M)", target=2)]
    assert follow(behind, Warp({}, {})).order == [0, 1, 2]
    assert remaining(behind) == [3, 2, 1, 7, 6, 5, 4, 3, 2]


def test_calls_return() -> None:
    body = [Instruction("CALL.REL.NOINC", "`(.L)", target=3), Instruction("NOP"), Instruction("EXIT"),
            Instruction("FADD"), Instruction("RET.REL.NODEC", "R4")]  # fmt: skip
    assert follow(body, Warp({}, {})).order == [0, 3, 4, 1, 2]


# ---- arithmetic: each instruction against the same in Python's integers, on numbers that overflow

A = [0, 1, 2, 3, 5, 63, 64, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 7, 12345678, 0xDEADBEEF, *range(9, 27)]
B = [0, 7, 2**32 - 1, 2**31, 1, 3, 100, 2**16, 2**31 - 1, 2**31, 1, 2**32 - 7, 87654321, 0xCAFEBABE, *range(40, 22, -1)]
A, B, N = np.array(A), np.array(B), LANES


def s(value: int) -> int:
    return value - 2**32 if value >> 31 else value


def run(op: str, operands: str, **registers: np.ndarray) -> Warp:
    state = Warp({0x160: 77, 0x164: 3}, {"SR_TID.X": LANES + 64},
                 {"R1": A, "R2": B, "R3": N, "R4": B, "R5": A, **registers})  # fmt: skip
    execute(state, Instruction(op, operands))
    return state


RULES: list[tuple[str, str, Callable[[int, int, int], int]]] = [
    ("IADD3", "R0, R1, R2, R3", lambda a, b, n: a + b + n),
    ("IADD3", "R0, R1, -R2, 0x5", lambda a, b, n: a - b + 5),
    ("IADD3", "R0, PT, PT, R1, -0x1, RZ", lambda a, b, n: a - 1),
    ("IADD3.X", "R0, R1, ~R2, RZ, PT, !PT", lambda a, b, n: a + (MASK - b) + 1),
    ("VIADD", "R0, R1, 0xffffffe", lambda a, b, n: a + 0xFFFFFFE),
    ("IMAD", "R0, R1, R2, R3", lambda a, b, n: a * b + n),
    ("IMAD", "R0, R1, -0x1a, R2", lambda a, b, n: a * -26 + b),
    ("IMAD.MOV.U32", "R0, RZ, RZ, c[0x0][0x160]", lambda a, b, n: 77),
    ("IMAD.MOV", "R0, RZ, RZ, -R1", lambda a, b, n: -a),
    ("IMAD.SHL.U32", "R0, R1, 0x8, RZ", lambda a, b, n: a * 8),
    ("IMAD.HI.U32", "R0, R1, R2, RZ", lambda a, b, n: a * b >> 32),
    ("IMAD.HI", "R0, R1, 0x55555556, RZ", lambda a, b, n: s(a) * 0x55555556 >> 32),
    ("UIMAD", "UR0, UR1, UR2, URZ", lambda a, b, n: a * b),
    ("LEA", "R0, R1, R2, 0x3", lambda a, b, n: (a << 3) + b),
    ("LEA.HI", "R0, R1, R2, RZ, 0x5", lambda a, b, n: (a >> 27) + b),
    ("LEA.HI.X.SX32", "R0, R1, R2, 0x2, PT", lambda a, b, n: (s(a) << 2 >> 32) + b + 1),
    ("LEA.HI.X", "R0, R1, R2, R4, 0x2, !PT", lambda a, b, n: ((b << 32 | a) << 2 >> 32) + b),
    ("SHF.L.U32", "R0, R1, R3, RZ", lambda a, b, n: a << n),
    ("SHF.R.U32.HI", "R0, RZ, R3, R1", lambda a, b, n: a >> n),
    ("SHF.R.S32.HI", "R0, RZ, R3, R1", lambda a, b, n: s(a) >> n),
    ("SHF.L.U64.HI", "R0, R1, 0x4, R2", lambda a, b, n: (b << 32 | a) << 4 >> 32),
    ("SHF.R.U64", "R0, R1, 0x4, R2", lambda a, b, n: (b << 32 | a) >> 4),
    ("LOP3.LUT", "R0, R1, R2, RZ, 0xc0, !PT", lambda a, b, n: a & b),
    ("LOP3.LUT", "R0, R1, R2, R3, 0x96, !PT", lambda a, b, n: a ^ b ^ n),
    ("LOP3.LUT", "R0, R1, R2, R3, 0xea, !PT", lambda a, b, n: a & b | n),
    ("LOP3.LUT", "R0, RZ, R1, RZ, 0x33, !PT", lambda a, b, n: ~a),
    ("SEL", "R0, R1, R2, !PT", lambda a, b, n: b),
    ("PRMT", "R0, R1, 0x5410, R2", lambda a, b, n: a & 0xFFFF | (b & 0xFFFF) << 16),
    ("PRMT", "R0, R1, 0x7632, R2", lambda a, b, n: a >> 16 | b >> 16 << 16),
    ("PRMT", "R0, R1, 0x8880, RZ", lambda a, b, n: a & 0xFF | (0xFFFFFF00 if a & 0x80 else 0)),
    ("IABS", "R0, R1", lambda a, b, n: abs(s(a))),
    ("IMNMX", "R0, R1, R2, PT", lambda a, b, n: min(s(a), s(b))),
    ("VIMNMX.U32", "R0, R1, R2, !PT", lambda a, b, n: max(a, b)),
    ("SGXT.U32", "R0, R1, 0x5", lambda a, b, n: a & 31),
    ("SGXT", "R0, R1, 0x8", lambda a, b, n: (a & 255) - (256 if a & 128 else 0)),
    ("MOV", "R0, 0x1f", lambda a, b, n: 31),
    ("HFMA2.MMA", "R0, -RZ, RZ, 0, 5.9604644775390625e-08", lambda a, b, n: 1),
    ("HFMA2", "R0, -RZ, RZ, -1.875, 0", lambda a, b, n: 0xBF800000),
    ("S2R", "R0, SR_TID.X", lambda a, b, n: n + 64),
]


@pytest.mark.parametrize(("op", "operands", "formula"), RULES, ids=[f"{op} {text}" for op, text, _ in RULES])
def test_arithmetic(op: str, operands: str, formula: Callable[[int, int, int], int]) -> None:
    state = run(op, operands, UR1=A, UR2=B)
    expected = [formula(int(a), int(b), int(n)) & MASK for a, b, n in zip(A, B, N, strict=True)]
    assert state.registers[operands.partition(",")[0]].tolist() == expected


@pytest.mark.parametrize(
    ("op", "formula"),
    [("IMAD.WIDE", lambda a, b, c: s(a) * s(b) + c), ("IMAD.WIDE.U32", lambda a, b, c: a * b + c)],
)  # fmt: skip
def test_products_of_64_bits(op: str, formula: Callable[[int, int, int], int]) -> None:
    state = run(op, "R6, R1, R2, R4")
    pairs = zip(A, B, B + (A << 32), strict=True)
    expected = [formula(int(a), int(b), int(c) % 2**64) % 2**64 for a, b, c in pairs]
    low, high = state.registers["R6"], state.registers["R7"]
    assert [int(x) | int(y) << 32 for x, y in zip(low, high, strict=True)] == expected


def test_sums_of_64_bits_carry() -> None:
    """(R2, R1) - (R1, R2) by halves, as compilers do it."""
    state = run("IADD3", "R6, P0, R1, -R2, RZ")
    execute(state, Instruction("IADD3.X", "R7, R2, ~R1, RZ, P0, !PT"))
    for a, b, low, high in zip(A, B, state.registers["R6"], state.registers["R7"], strict=True):
        assert int(low) | int(high) << 32 == ((int(b) << 32 | int(a)) - (int(a) << 32 | int(b))) % 2**64


COMPARISONS = [("LT", int.__lt__), ("GE", int.__ge__), ("EQ", int.__eq__), ("NE", int.__ne__)]


@pytest.mark.parametrize(("kind", "formula"), COMPARISONS)
def test_comparisons_of_32_and_64_bits(kind: str, formula: Callable[[int, int], bool]) -> None:
    state = run(f"ISETP.{kind}.AND", "P0, P1, R1, R2, PT")
    assert state.registers["P0"].tolist() == [formula(s(int(a)), s(int(b))) for a, b in zip(A, B, strict=True)]
    assert state.registers["P1"].tolist() == (~state.registers["P0"]).tolist()
    state = run(f"ISETP.{kind}.U32.AND", "P0, PT, R1, R2, PT")
    # Of numbers with equal upper halves the lower ones decide.
    execute(state, Instruction(f"ISETP.{kind}.AND.EX", "P1, PT, R2, R4, PT, P0"))
    assert state.registers["P1"].tolist() == [formula(int(a), int(b)) for a, b in zip(A, B, strict=True)]


def test_division_by_a_reciprocal() -> None:
    """The sequence that compilers emit for an unsigned division, on sm_90."""
    state = run("I2F.U32.RP", "R6, R2", R2=np.maximum(B, 1))
    for op, operands in (
        ("MUFU.RCP", "R6, R6"), ("VIADD", "R6, R6, 0xffffffe"), ("F2I.FTZ.U32.TRUNC.NTZ", "R7, R6"),
        ("IMAD.MOV", "R8, RZ, RZ, -R7"), ("IMAD", "R9, R8, R2, RZ"), ("IMAD.MOV.U32", "R6, RZ, RZ, RZ"),
        ("IMAD.HI.U32", "R6, R7, R9, R6"), ("IMAD.HI.U32", "R6, R6, R1, RZ"), ("IMAD.MOV", "R8, RZ, RZ, -R6"),
        ("IMAD", "R8, R2, R8, R1"),
    ):  # fmt: skip
        execute(state, Instruction(op, operands))
    for _ in range(2):
        execute(state, Instruction("ISETP.GE.U32.AND", "P0, PT, R8, R2, PT"))
        execute(state, Instruction("IADD3", "R8, R8, -R2, RZ", "@P0"))
        execute(state, Instruction("IADD3", "R6, R6, 0x1, RZ", "@P0"))
    assert state.registers["R6"].tolist() == (A // np.maximum(B, 1)).tolist()


def test_predicates_packed_and_unpacked() -> None:
    state = run("P2R", "R6, PR, RZ, 0x5", P0=A > 2, P2=B > 5)
    assert state.registers["R6"].tolist() == ((A > 2) + 4 * (B > 5)).tolist()
    state.registers.update(P0=None, P2=None)
    execute(state, Instruction("R2P", "PR, R6, 0x4"))
    assert state.registers["P0"] is None
    assert state.registers["P2"].tolist() == (B > 5).tolist()


def test_predicates_packed_into_a_register_that_was_never_written() -> None:
    state = run("P2R", "R6, PR, R6, 0x4", P2=B > 5)
    execute(state, Instruction("R2P", "PR, R6, 0x4"))
    assert state.registers["P2"].tolist() == (B > 5).tolist()


def test_what_is_not_known_stays_so() -> None:
    state = run("LDG.E.64", "R6, [R4.64]")
    assert state.registers["R6"] is None
    assert state.registers["R7"] is None
    execute(state, Instruction("IADD3", "R0, R6, R1, RZ"))
    assert state.registers["R0"] is None
    execute(state, Instruction("HFMA2", "R0, R1, R2, R3"))
    assert state.registers["R0"] is None
    execute(state, Instruction("SHFL.BFLY", "PT, R1, R2, 0x10, 0x1f"))
    assert state.registers["R1"] is None
    execute(state, Instruction("IMAD.MOV.U32", "R0, RZ, RZ, R2"))
    execute(state, Instruction("IADD3", "R0, R0, 0x1, RZ", "@P3"))  # nobody has set P3
    assert state.registers["R0"] is None


@pytest.mark.parametrize(
    ("op", "written"), [("LDSM.16.M88", 1), ("LDSM.16.M88.2", 2), ("LDS.128", 4), ("HMMA.16816.F32", 4), ("FADD", 1)]
)  # fmt: skip
def test_no_more_is_forgotten_than_an_instruction_writes(op: str, written: int) -> None:
    state = run(op, "R8, [R2]", **{f"R{n}": A for n in range(8, 16)})
    assert [state.registers[f"R{n}"] is None for n in range(8, 16)] == [True] * written + [False] * (8 - written)


# ---- accesses


def of(op: str, operands: str, **registers: Value) -> Access | None:
    return access(Instruction(op, operands), Warp({}, {}, {"R3": 0 * LANES, **registers}))


@pytest.mark.parametrize(
    ("op", "operands", "addresses", "rounds"),
    [
        ("LDS", "R0, [R2]", 4 * LANES, 1),  # side by side
        ("LDS", "R0, [R2]", 0 * LANES, 1),  # all the same
        ("LDS", "R0, [R2]", 8 * LANES, 2),  # every second bank
        ("STS", "[R2], R0", 128 * LANES, 32),  # all in one bank
        ("STS", "[R2+0x40], R0", 132 * LANES, 1),  # padded
        ("LDS.128", "R0, [R2]", 16 * LANES, 4),
        ("LDS.64", "R0, [R2]", 16 * LANES, 4),
        ("STS.U16", "[R2], R0", 2 * LANES, 1),
        ("LDSM.16.M88.4", "R0, [R2]", 16 * LANES, 4),
        ("LDSM.16.M88.4", "R0, [R2]", 128 * LANES, 32),  # eight rows of a matrix in the same banks
        ("LDSM.16.MT88.2", "R0, [R2]", 128 * LANES + 16 * (LANES % 8), 2),  # swizzled
        ("LDG.E", "R0, [R2.64]", 4 * LANES, 1),
        ("LDG.E", "R0, [R2.64+0x4]", 4 * LANES, 2),  # across a line's end
        ("LDG.E.U16", "R0, [R2.64]", 16 * LANES, 4),
        ("STG.E.U16", "[R2.64], R0", 1000 * LANES, 32),
        ("LDG.E.128", "R0, desc[UR4][R2.64]", 16 * LANES, 4),
        ("LDGSTS.E.BYPASS.128", "[R8], [R2.64], P3", 16 * LANES, 4),  # P3 is not known
    ],
)  # fmt: skip
def test_rounds_of_the_memory_unit(op: str, operands: str, addresses: np.ndarray, rounds: int) -> None:
    found = of(op, operands, R2=addresses)
    assert found is not None
    assert found.known
    assert found.rounds == rounds
    assert found.ideal <= rounds


def test_lanes_that_take_no_part() -> None:
    state = Warp({}, {}, {"R2": 128 * LANES, "P0": LANES < 3})
    assert access(Instruction("LDS", "R0, [R2]", "@P0"), state).rounds == 3
    state.active = LANES < 2
    assert access(Instruction("LDS", "R0, [R2]", "@P0"), state).rounds == 2
    assert access(Instruction("LDS", "R0, [R2]", "@!P0"), state) == Access(0, 0)


def test_unknown_addresses_count_as_side_by_side() -> None:
    assert of("LDS.128", "R0, [R7]", R7=None) == Access(4, 4, known=False)
    assert of("FADD", "R0, R1, R2") is None
