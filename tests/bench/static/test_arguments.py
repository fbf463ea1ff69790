"""Where a kernel finds its arguments, and which programs stand for a grid."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from bench.static.arguments import APART, constants, warp_of
from bench.static.predict import SAMPLES, bytes_moved, drawn, sample
from sg3.kernels.triton_aot import Launch
from tests.bench.static.tiny import code

X, Y = torch.empty(300, 200), torch.empty(400, dtype=torch.float16)
NAMES = ["x_ptr", "bias_ptr", "y_ptr", "flag", "n", "stride", "gain", "width", "BLOCK"]
SIGNATURE = {"x_ptr": "*fp32", "bias_ptr": "constexpr", "y_ptr": "*fp16", "flag": "i1", "n": "i32", "stride": "i64",
             "gain": "fp32", "width": "i32", "BLOCK": "constexpr"}  # fmt: skip


def kernel(signature: dict[str, str], warps: int) -> SimpleNamespace:
    return SimpleNamespace(metadata=SimpleNamespace(num_warps=warps), src=SimpleNamespace(signature=signature))


def test_arguments_lie_in_order_each_at_a_multiple_of_its_size() -> None:
    launch = Launch(SimpleNamespace(arg_names=NAMES), (X, None, Y, True, 7, 2**33 + 5, 0.5, -2), (6, 3), {"BLOCK": 64})
    for arch, first in ((80, 0x160), (89, 0x160), (90, 0x210), (100, 0x380), (120, 0x380)):
        bank = constants(launch, kernel(SIGNATURE, 4), arch)
        assert [bank[place] for place in (0x0, 0xC, 0x10, 0x14)] == [128, 6, 3, 1]
        found = {place - first: word for place, word in bank.items() if place >= first}
        pointers = {0: 0, 4: APART >> 32, 8: 0, 12: 2 * APART >> 32}
        assert found == pointers | {16: 1, 20: 7, 24: 5, 28: 2, 36: 2**32 - 2}  # gain is a float, and not known


def test_threads_and_programs_know_their_numbers() -> None:
    special = warp_of({}, 3, (5, 1, 0)).special
    assert special["SR_TID.X"].tolist() == list(range(96, 128))
    assert special["SR_CTAID.X"].tolist() == [5] * 32
    assert special["SR_CTAID.Y"].tolist() == [1] * 32


def test_programs_are_drawn_from_the_whole_grid() -> None:
    """Of 12 tiles each of 1000 images: from everywhere, and of most of the tiles."""
    numbers = drawn(12 * 1000)
    assert numbers == drawn(12 * 1000)
    assert sorted(number * SAMPLES // 12000 for number in numbers) == list(range(SAMPLES))
    assert sorted(number * 4 // 12000 for number in numbers[:4]) == [0, 1, 2, 3]
    assert len({number % 12 for number in numbers}) >= 8
    assert drawn(5) == [0, 1, 2, 3, 4]


def test_traces_of_a_launch() -> None:
    """The small kernel's edge: 201 columns are three whole blocks of 64, and 9 columns in the last program."""
    launch = Launch(SimpleNamespace(arg_names=["x_ptr", "y_ptr", "n", "width"]), (X, Y, 5, 201), (4,), {})
    signature = {"x_ptr": "*fp32", "y_ptr": "*fp16", "n": "i32", "width": "i32"}
    programs = sample(launch, kernel(signature, 2), code(90), (), 90)
    assert len(programs) == 4
    assert all(len(warps) == 2 for warps in programs)
    assert {sum(code(90)[n].name == "LDG" for n in warps[0].order) for warps in programs} == {5}
    rounds = [sum(a.rounds for place, a in trace.accesses.items() if code(90)[trace.order[place]].name == "LDG")
              for warps in programs for trace in warps]  # fmt: skip
    # The first row begins with a line, the others, of 804 bytes, within one. In the last program 36 bytes lie in one
    # line but for the fourth row's, at 108, and its second warp has nothing to do.
    assert rounds == [1 + 4 * 2] * 6 + [6, 0]


def test_bytes_of_every_tensor_once() -> None:
    launch = Launch(None, (X, None, Y, X, 7), (1,), {})
    assert bytes_moved(launch) == 300 * 200 * 4 + 400 * 2
