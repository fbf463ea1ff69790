"""The bits of signs: there and back, and what stands in PTX against its substitutes in the interpreter."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from sg3.kernels.filtered_lrelu import marching_products, signs
from sg3.kernels.filtered_lrelu.marching_plan import factors
from sg3.kernels.triton_launch import INTERPRETING

pytestmark = pytest.mark.skipif(not INTERPRETING, reason="asks what the interpreter makes of it")


def run_ptx(text: str, registers: dict[str, np.ndarray]) -> np.ndarray:
    """Carry out straight-line PTX on arrays of 32-bit registers. Knows the few instructions that sg3 has."""
    registers = dict(registers)

    def value(name: str) -> np.ndarray:
        return registers[name] if name in registers else np.uint32(int(name, 0))

    def halves(x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(x, dtype=np.uint32)[..., None].view(np.float16)

    def bfloat16s(x: np.ndarray) -> torch.Tensor:
        both = np.stack([x & np.uint32(0xFFFF), x >> np.uint32(16)], axis=-1) << np.uint32(16)
        return torch.from_numpy(both.view(np.float32)).double()

    for line in text.strip(" {}").split(";"):
        op, *operands = re.findall(r"[^\s,]+", line) or ["nothing"]
        result, *arguments = [*operands, "none"]
        if op in (".reg", "nothing"):
            continue
        a = [value(name) for name in arguments[:-1]]
        if op == "mov.b32":
            registers[result] = a[0]
        elif op == "not.b32":
            registers[result] = ~a[0]
        elif op == "and.b32":
            registers[result] = a[0] & a[1]
        elif op == "shr.u32":
            registers[result] = a[0] >> a[1]
        elif op == "mad.lo.u32":
            registers[result] = (a[0].astype(np.uint64) * a[1] + a[2]).astype(np.uint32)
        elif op == "mul.lo.u32":
            registers[result] = (a[0].astype(np.uint64) * a[1]).astype(np.uint32)
        elif op == "fma.rn.bf16x2":  # exact in float64, but for numbers that are far apart, where it does not matter
            x, y, z = (bfloat16s(value) for value in a)
            rounded = (x * y + z).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16).astype(np.uint32)
            registers[result] = rounded[..., 0] | rounded[..., 1] << 16
        elif op == "set.le.f16x2.f16x2":
            x, y = np.broadcast_arrays(halves(a[0]), halves(a[1]))
            registers[result] = (x <= y).astype(np.float16).view(np.uint32)[..., 0]
        else:
            raise NotImplementedError(op)
    return registers["$0"]


def inline_ptx() -> dict[str, set[str]]:
    """By file, the first arguments of all inline assembly in sg3: text, or the name of a constant."""
    found: dict[str, set[str]] = {}
    package = Path(signs.__file__).parents[2]
    for path in sorted(package.rglob("*.py")):
        source = path.read_text()
        if "inline_asm" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and "inline_asm" in node.func.attr:
                text = node.args[0]
                name = text.id if isinstance(text, ast.Name) else ast.literal_eval(text)
                found.setdefault(path.relative_to(package).as_posix(), set()).add(name)
    return found


def test_all_that_stands_in_ptx_is_tested_here() -> None:
    assert inline_ptx() == {
        "kernels/filtered_lrelu/marching_products.py": {"MOVE"},
        "kernels/filtered_lrelu/signs.py": {"NOT_POSITIVE", "NOT_POSITIVE_BFLOAT16", "FACTORS"},
    }


def test_what_triton_cannot_look_behind_is_a_move() -> None:
    """`marching_products.unseen`, for which the interpreter has what went in."""
    bits = np.arange(0, 2**32, 65521, dtype=np.uint64).astype(np.uint32)
    assert np.array_equal(run_ptx(marching_products.MOVE.value, {"$1": bits}), bits)


@triton.jit
def _not_positive(x_ptr, y_ptr):
    i = tl.arange(0, 65536)
    tl.store(y_ptr + i, signs.not_positive(tl.load(x_ptr + i), tl.float16))


def test_not_positive_for_all_numbers_of_half_precision() -> None:
    bits = np.arange(65536, dtype=np.uint16)
    x = torch.from_numpy(bits.view(np.float16).copy())
    y = torch.empty_like(x)
    _not_positive[(1,)](x, y)
    pairs = bits.astype(np.uint32) | bits[::-1].astype(np.uint32) << 16
    done = run_ptx(signs.NOT_POSITIVE.value, {"$1": pairs})[:, None].view(np.float16)
    assert np.array_equal(done[:, 0], y.numpy())
    assert np.array_equal(done[:, 1], y.numpy()[::-1])
    assert np.array_equal(y.numpy(), (x.numpy() <= 0).astype(np.float16))


def test_not_positive_for_all_numbers_of_bfloat16() -> None:
    """What stands in PTX says what v <= 0 says, which is the substitute."""
    bits = np.arange(65536, dtype=np.uint32)
    x = torch.from_numpy((bits << np.uint32(16)).view(np.float32))
    done = run_ptx(signs.NOT_POSITIVE_BFLOAT16.value, {"$1": bits | bits[::-1] << 16})[:, None].view(np.float16)
    numbers = ~x.isnan()
    assert torch.equal(torch.from_numpy(done[:, 0])[numbers] != 0, (x <= 0)[numbers])
    assert torch.equal(torch.from_numpy(done[:, 1].copy()).flip(0)[numbers] != 0, (x <= 0)[numbers])
    assert set(np.unique(done)) <= {0.0, 1.0}


@triton.jit
def _factors(words_ptr, y_ptr, above, below, LOWER: tl.constexpr):
    i = tl.arange(0, 16)
    word = tl.load(words_ptr + tl.program_id(0) * 32 + tl.arange(0, 8)[:, None] * 4 + tl.arange(0, 4)[None, :])
    y = signs.factors_of_bytes(signs.bytes_of_word(word), above, below, LOWER, y_ptr.dtype.element_ty)
    tl.store(y_ptr + tl.program_id(0) * 256 + i[:, None] * 16 + i[None, :], y)


@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0, 0.01, 1.5])
@pytest.mark.parametrize("lower", [0, 1])
def test_factors_of_all_bytes(slope: float, lower: int) -> None:
    """Every byte at every place: the substitute, the PTX, and what it means."""
    above, below = factors(slope, torch.float16)
    words = torch.arange(256, dtype=torch.int32).repeat_interleave(2).reshape(16, 8, 4)
    words = (words | words.flip(0) << 8).to(torch.int16)  # another byte beside it
    y = torch.empty(16, 16, 16, dtype=torch.float16)
    _factors[(16,)](words.contiguous(), y, above, below, LOWER=lower)

    r, i, k, c, e = torch.meshgrid(*map(torch.arange, (2, 8, 2, 4, 2)), indexing="ij")
    bit = (words.to(torch.int32)[:, i, c] >> (8 * e + 4 * lower + 2 * k + r)) & 1
    assert torch.equal(y, torch.where(bit != 0, below, above).to(torch.float16).reshape(16, 16, 16))

    one, other = (np.float16(t).view(np.uint16).astype(np.uint32) for t in (above, below))
    field = words.numpy().view(np.uint16).astype(np.uint32)
    field = (field & 255) | (field >> 8) << 16
    for row in range(2):
        for column in range(2):
            done = run_ptx(signs.FACTORS.value, {
                "$1": field, "$2": np.uint32(2 * column + row + 4 * lower),
                "$4": (one.astype(np.int64) - other).astype(np.uint32), "$6": other * np.uint32(0x10001),
            })[..., None].view(np.float16)  # fmt: skip
            assert np.array_equal(done, y.reshape(16, 2, 8, 2, 4, 2)[:, row, :, column].numpy())


@triton.jit
def _there(x_ptr, words_ptr, LIMIT: tl.constexpr, TYPE: tl.constexpr):
    i = tl.arange(0, 16)
    upper = tl.load(x_ptr + i[:, None] * 16 + i[None, :])
    lower = tl.load(x_ptr + 256 + i[:, None] * 16 + i[None, :])
    if LIMIT:
        word = signs.word_of_bits(tl.abs(upper) > LIMIT, tl.abs(lower) > LIMIT)
    else:
        word = signs.word_of_signs(upper, lower, TYPE)
    tl.store(words_ptr + tl.arange(0, 8)[:, None] * 4 + tl.arange(0, 4)[None, :], word)


@triton.jit
def _back(words_ptr, y_ptr):
    i = tl.arange(0, 16)
    field = signs.bytes_of_word(tl.load(words_ptr + tl.arange(0, 8)[:, None] * 4 + tl.arange(0, 4)[None, :]))
    for h in tl.static_range(2):
        bits = signs.bits_of_bytes(field, h)
        tl.store(y_ptr + h * 256 + i[:, None] * 16 + i[None, :], bits.to(tl.int32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("limit", [0, 1])
def test_there_and_back(dtype: torch.dtype, limit: int) -> None:
    x = torch.randn(2, 16, 16).to(dtype)
    x[0, 3, 4], x[1, 5, 6], x[0, 7, 8] = 0.0, -0.0, 1.0
    words, y = torch.empty(8, 4, dtype=torch.int16), torch.empty(2, 16, 16, dtype=torch.int32)
    _there[(1,)](x, words, LIMIT=limit, TYPE=tl.float16 if dtype == torch.float16 else tl.float32)
    _back[(1,)](words, y)
    assert torch.equal(y != 0, x.abs() > 1 if limit else x <= 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("slope", [0.2, 0.01, 0.3, 1.7])
def test_the_factors_ratio_is_the_slope(dtype: torch.dtype, slope: float) -> None:
    """Much closer than the slope in half precision, which is off by up to eps / 2."""
    above, below = factors(slope, dtype)
    assert 1 <= above < 2
    assert [float(torch.tensor(t, dtype=dtype)) for t in (above, below)] == [above, below]
    assert abs(below / above / slope - 1) < torch.finfo(dtype).eps / 32
    assert factors(slope, torch.float32) == (1.0, slope)
