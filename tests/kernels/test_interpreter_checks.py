"""Kernels with faults that the plain interpreter does not notice, each of which the checks find."""

from __future__ import annotations

from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")

import triton.language as tl  # noqa: E402

from sg3.kernels import upfirdn2d  # noqa: E402
from sg3.kernels.triton_launch import INTERPRETING  # noqa: E402
from sg3.kernels.upfirdn2d import impl_triton  # noqa: E402

if not INTERPRETING:
    pytest.skip("kernels are not interpreted here", allow_module_level=True)

from triton.runtime.interpreter import InterpreterError  # noqa: E402


@triton.jit
def _copy(x_ptr, y_ptr, n, x_shift, y_shift, y_step, BLOCK: tl.constexpr):
    """Program p copies x[i + x_shift] to y[i + y_shift + p * y_step] for i < n, the rows of y being y_step apart."""
    i = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i + x_shift, mask=i < n, other=0)
    tl.store(y_ptr + tl.program_id(0) * y_step + i + y_shift, x, mask=i < n)


@triton.jit
def _copy_all(x_ptr, y_ptr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(y_ptr + i, tl.load(x_ptr + i))


@triton.jit
def _count(y_ptr):
    tl.atomic_add(y_ptr, 1)


def copy(x: torch.Tensor, y: torch.Tensor, n: int = 8, x_shift: int = 0, y_shift: int = 0, y_step: int = 8,
         programs: int = 2) -> None:  # fmt: skip
    _copy[(programs,)](x, y, n, x_shift, y_shift, y_step, BLOCK=16)


def test_what_is_right_passes_and_is_computed() -> None:
    memory = torch.arange(24.0)
    x, y = memory[8:16], torch.zeros(20)
    copy(x, y)
    assert torch.equal(y[:16], torch.cat([x, x]))
    copy(x, y)  # again: only programs of one launch must not meet
    copy(x, y, n=0, x_shift=1000)  # no lane is active
    _copy_all[(1,)](memory[:16], y[4:], BLOCK=16)
    assert torch.equal(y[4:], memory[:16])


@pytest.mark.parametrize(("x_shift", "place"), [(1, 8), (-1, -1), (10**6, 10**6), (-(2**40), -(2**40))])
def test_a_load_out_of_bounds(x_shift: int, place: int) -> None:
    with pytest.raises(InterpreterError, match=rf"MemoryFault.*load from element {place} of x_ptr, .*program \(0, 0"):
        copy(torch.ones(8), torch.zeros(16), x_shift=x_shift)


def test_a_load_that_ends_in_another_tensor() -> None:
    """Both lie in one storage, so the element exists; it is not the tensor's."""
    memory = torch.zeros(24)
    with pytest.raises(InterpreterError, match=r"load from element 8 of x_ptr, which has \[8\] elements"):
        copy(memory[:8], memory[8:], x_shift=1)


def test_without_a_mask() -> None:
    with pytest.raises(InterpreterError, match=r"load from element 15 of x_ptr"):
        _copy_all[(1,)](torch.zeros(15), torch.zeros(16), BLOCK=16)
    with pytest.raises(InterpreterError, match=r"store to element 15 of y_ptr"):
        _copy_all[(1,)](torch.zeros(16), torch.zeros(15), BLOCK=16)


@pytest.mark.parametrize(("y_shift", "place"), [(1, 16), (-1, -1)])
def test_a_store_out_of_bounds(y_shift: int, place: int) -> None:
    y = torch.zeros(16, dtype=torch.float16)
    with pytest.raises(InterpreterError, match=rf"MemoryFault.*store to element {place} of y_ptr"):
        copy(torch.ones(8, dtype=torch.float16), y, y_shift=y_shift)


def test_gaps_at_the_ends_of_a_view() -> None:
    """Rows of 7 in memory for rows of 8: what follows the last row is not the view's."""
    view = torch.zeros(2, 8)[:, :7]
    assert view.untyped_storage().nbytes() == 64
    with pytest.raises(InterpreterError, match=r"store to element 15 of y_ptr, which has \[2, 7\] .* strides \[8, 1\]"):
        copy(torch.ones(8), view)


def test_two_programs_that_store_to_one_place() -> None:
    match = r"MemoryFault.*store to element 7 of y_ptr.*program \(1, 0, 0\) and, before it, by program number 0"
    with pytest.raises(InterpreterError, match=match):
        copy(torch.ones(8), torch.zeros(16), y_step=7)
    copy(torch.ones(8), torch.zeros(16), n=7, y_step=7)


def test_two_programs_that_store_to_a_part_of_one_place() -> None:
    """Words of four bytes into a plane of single ones, three bytes apart."""
    plane = torch.zeros(32, dtype=torch.uint8)

    @triton.jit
    def words(y_ptr, step):
        at = (y_ptr + tl.program_id(0) * step).to(tl.pointer_type(tl.int32))
        tl.store(at, 1)

    words[(4,)](plane, 4)
    with pytest.raises(InterpreterError, match=r"store to element 3 of y_ptr"):
        words[(4,)](plane, 3)
    with pytest.raises(InterpreterError, match=r"store to element 29 of y_ptr"):
        words[(2,)](plane, 29)


def test_atomics_are_refused() -> None:
    with pytest.raises(InterpreterError, match="atomic"):
        _count[(1,)](torch.zeros(1, dtype=torch.int32))


@pytest.mark.parametrize(("name", "fault"), [("h", "load from element 60 of x_ptr"),
                                             ("out_h", "store to element 60 of y_ptr")])  # fmt: skip
def test_an_op_that_is_told_a_wrong_size(name: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real kernel that believes its image, or its output, to be one row higher."""
    plain, x, f = impl_triton.launch, torch.randn(1, 2, 5, 6), torch.ones(4, 4)

    def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
        where = kernel.arg_names.index(name)
        plain(kernel, grid, *args[:where], args[where] + 1, *args[where + 1 :], **options)

    upfirdn2d(x, f, padding=[2, 1, 2, 1], impl="triton")
    monkeypatch.setattr(impl_triton, "launch", launch)
    with pytest.raises(InterpreterError, match=fault):
        upfirdn2d(x, f, padding=[2, 1, 2, 1], impl="triton")
