"""Where marching programs for symmetric filters start, what their strips have in common, and what both axes share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sg3.kernels.filtered_lrelu.banded import banded, separable_taps
from sg3.kernels.filtered_lrelu.geometry import MARCHING, Resampling
from sg3.kernels.filtered_lrelu.marching_plan import MOST_TAPS, Pointwise, numbers
from sg3.kernels.filtered_lrelu.symmetric_plan import (
    OF_ARCHITECTURE,
    QUADS,
    SHAPES,
    SHAPES_FLOAT32,
    SymmetricPlan,
    Terms,
    build,
    lay_out,
    like_axes,
)
from sg3.kernels.fir import design_lowpass_filter

CPU = torch.device("cpu")
READ = Pointwise(1.0, 0.0, False, True)


@pytest.mark.parametrize(("up", "down"), MARCHING)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_both_axes_begin_alike_and_one_block_of_each_kind_goes_from_strip_to_strip(
    up: int, down: int, data: st.DataObject
) -> None:
    """For all paddings that are taken and all taps; all columns fit; and what must be even is."""
    up_taps, down_taps = data.draw(st.integers(1, MOST_TAPS * up)), data.draw(st.integers(1, MOST_TAPS * down))
    low = st.integers(-40, 40)
    up_x, down_x = data.draw(low), data.draw(low)
    up_padding, down_padding = ((n, n + 4 * data.draw(st.integers(-5, 5))) for n in (up_x, down_x))
    resampling = Resampling(up, down, up_padding, down_padding, (1.0, 1.0), False)
    assert like_axes(resampling)
    columns = data.draw(st.integers(3 if down == 4 else 2, 4))
    layout = lay_out(resampling, up_taps, down_taps, columns)
    x, y = layout.x, layout.y
    assert (x.phase, x.lead) == (y.phase, y.lead)
    assert layout.halves == layout.pixel_blocks * up == layout.output_blocks * down

    # Rows: block (h, a) of up for strip rows h and pixel rows a = 0 (carried) to pixel_blocks, of which the two rows
    # h and h + 1 of a line of signs need no more than have been loaded for them.
    first, end = numbers(up_taps, x.phase + up_taps - 1, 16, 1, up, 16)
    for h in range(0, layout.halves, 2):
        assert all(row - up * a < first for row in (h, h + 1) for a in range(h // up + 2, 9))
    assert all(h + up >= end for h in range(layout.halves)), "pixel rows before the carried ones"
    # Output rows j are finished by the end of their own strip, or, the last, of the next.
    first, end = numbers(down_taps, x.lead + down_taps - 1, -16, down, 1, 16)
    assert all(layout.halves - down * j >= end for j in range(layout.output_blocks - 1))
    assert layout.halves + down >= end
    assert first >= 0, "samples before the block's own"
    if up == 2:  # A matrix that is not held: pixel rows that begin half a block earlier reach three blocks of samples.
        first, end = numbers(up_taps, x.phase + up_taps - 1, 16, 1, up, 16)
        assert -1 <= first < end <= 2

    # Columns: all samples that outputs read are there, and all pixels that those read.
    samples = x.lead + (layout.step - 1) * down + down_taps
    assert samples <= 16 * layout.columns
    assert (samples - 1 + x.phase + up_taps - 1) // up < 8 * layout.pieces
    assert layout.step % 2 == layout.x_step % 2 == x.x_origin % 2 == x.s_origin % 4 == y.s_origin % 32 == 0
    assert layout.x_step * up == layout.step * down
    assert layout.step * down % 4 == 0
    for axis, padding in ((x, 0), (y, 1)):
        assert axis.s_origin + axis.lead + axis.skipped * down == -down_padding[padding]
        assert axis.s_origin - up_padding[padding] == axis.x_origin * up + axis.phase
    assert x.skipped == 0 <= y.skipped


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_call_and_its_gradient_agree(data: st.DataObject) -> None:
    """Whether programs march must not depend on which filter comes first."""
    for shapes in (SHAPES, *({**SHAPES_FLOAT32, **of_one} for of_one in ({}, *OF_ARCHITECTURE.values()))):
        assert set(shapes) == {(down, down_terms, up, up_terms) for up, up_terms, down, down_terms in shapes}
    padding = data.draw(st.tuples(*[st.integers(-9, 9)] * 2))
    up_taps, down_taps = data.draw(st.integers(23, 25)), data.draw(st.integers(11, 13))
    assume(up_taps != 23 or down_taps != 11)
    f = data.draw(st.sampled_from([torch.ones(down_taps), torch.ones(down_taps, down_taps).triu()]))
    fu = torch.ones(up_taps)
    forward = Resampling.forward(4, 2, (padding[0], 0, padding[1], 0), False)
    plans = [build(fu, f, forward, Pointwise(1.0, 0.2, True, False), torch.float32, CPU),
             build(f, fu, forward.transposed(fu, f), READ, torch.float32, CPU)]  # fmt: skip
    marches = up_taps <= 24 and down_taps <= 12 and f.ndim == 1 and (padding[0] - padding[1]) % 4 == 0
    assert [plan is not None for plan in plans] == [marches] * 2


def whole(matrix: Terms, term: int, rows: int, columns: int, row_unit: int, column_unit: int) -> np.ndarray:
    """A matrix of rows x columns blocks of 16 x 16, from its distinct blocks: the sum of their parts."""
    count = matrix.numbers[1] - matrix.numbers[0]
    start = 256 * count * sum(matrix.parts[:term])
    data = matrix.data.flatten()[start : start + 256 * count * matrix.parts[term]].double()
    data = data.reshape(count, matrix.parts[term], 256).sum(1)
    if matrix.held:
        data = data.reshape(count, 16, 4, 2, 2).transpose(-3, -2).reshape(count, 16, 16)
    else:  # by thread: row i, columns 2 c, its four pairs: of two columns, eight further right, each of two rows
        data = data.reshape(count, 8, 4, 2, 2, 2).permute(0, 4, 1, 3, 2, 5).reshape(count, 16, 16)
    result = np.zeros([rows, 16, columns, 16])
    for i in range(rows):
        for j in range(columns):
            number = row_unit * i - column_unit * j
            if matrix.numbers[0] <= number < matrix.numbers[1]:
                result[i, :, j] = data[number - matrix.numbers[0]]
    return result.reshape(rows * 16, columns * 16)


@pytest.mark.parametrize(("dtype", "radial_down"), [
    (torch.float16, True), (torch.float32, False), (torch.float32, True),
])  # fmt: skip
def test_blocks_are_the_filter(dtype: torch.dtype, radial_down: bool) -> None:
    """Put together, of both axes and all terms, they are the filters' own matrices, up to what the type can tell."""
    fu = design_lowpass_filter(24, cutoff=8, width=16, fs=64)
    fd = design_lowpass_filter(12, cutoff=9, width=14, fs=64, radial=radial_down)
    plan = build(fu, fd, Resampling(4, 2, (5, 1), (1, -3), (16.0, 1.0), False), READ, dtype, CPU)
    assert plan is not None
    powers = (plan.powers.up, plan.powers.both - plan.powers.up) if plan.powers else (0, 0)
    order = np.concatenate([16 * m + QUADS for m in range(2)])
    for matrix, power, f, gain in ((plan.up, powers[0], fu, 16.0), (plan.down, powers[1], fd, 1.0)):
        taps_x, taps_y = separable_taps(f, gain, False, dtype)
        exact, got = (np.zeros([32, 32, 16, 16] if matrix is plan.up else [16, 16, 32, 32]) for _ in range(2))
        for term, (x, y) in enumerate(zip(taps_x, taps_y, strict=True)):
            if matrix is plan.up:
                ours = whole(matrix, term, 2, 1, 1, 4)
                both = [banded(t[None], 32, 16, plan.layout.x.phase + 23, 1, 4)[0][order] for t in (x, y)]
            else:
                ours = whole(matrix, term, 1, 2, -2, -1)
                both = [banded(t[None], 16, 32, plan.layout.x.lead + 11, 2, 1)[0][:, order] for t in (x, y)]
            exact += both[1][:, None, :, None] * both[0][None, :, None, :]
            got += ours[:, None, :, None] * ours[None, :, None, :] * (-1 if matrix.negative[term] else 1)
        error = np.abs(got * 2.0**-power - exact).max() / np.abs(exact).max()
        assert error < 2 * torch.finfo(dtype).eps
    assert any(plan.down.negative) == radial_down
    assert plan.up.held
    assert plan.down.held == (dtype == torch.float16 or not radial_down)


@pytest.mark.parametrize("down", [2, 4])
def test_what_is_not_held_is_the_same_filter(down: int) -> None:
    """The gradients: a matrix of several terms, and one beside it, in the order in which threads read them."""
    fu = design_lowpass_filter(12, cutoff=9, width=14, fs=64, radial=True)
    fd = design_lowpass_filter(6 * down, cutoff=9, width=14, fs=64)
    plan = build(fu, fd, Resampling(2, down, (5, 1), (1, -3), (4.0, 1.0), False), READ, torch.float32, CPU)
    assert plan is not None
    assert plan.powers is not None
    assert (plan.up.held, plan.down.held) == (False, down == 2)
    order = np.concatenate([16 * m + QUADS for m in range(6)])
    ups, downs = separable_taps(fu, 4.0, False, torch.float32)[0], separable_taps(fd, 1.0, False, torch.float32)[0]
    for term in range(len(ups)):
        exact = banded(ups[term : term + 1], 48, 32, plan.layout.x.phase + 11, 1, 2)[0][order[:48]]
        got = whole(plan.up, term, 3, 2, 1, 2) * 2.0 ** (-plan.powers.up / 2)
        assert np.abs(got - exact).max() < 2.0 ** (-20 if plan.up.parts[term] == 2 else -10) * np.abs(exact).max()
    exact = banded(downs, 16, 96, plan.layout.x.lead + 6 * down - 1, down, 1)[0][:, order]
    got = whole(plan.down, 0, 1, 6, -down, -1) * 2.0 ** ((plan.powers.up - plan.powers.both) / 2)
    assert np.abs(got - exact).max() < 2.0**-20 * np.abs(exact).max()


def test_small_terms_have_one_part() -> None:
    """In float32: what is small beside the first term is no more exact in two."""
    for cutoff, width in ((9.0, 14.0), (3.0, 11.0)):
        f = design_lowpass_filter(12, cutoff=cutoff, width=width, fs=64, radial=True)
        plan = build(f, torch.ones(12), Resampling(2, 2, (9, 9), (0, 0), (4.0, 1.0), False), READ, torch.float32, CPU)
        assert plan is not None
        singular = torch.linalg.svdvals(f.double())
        assert list(plan.up.parts) == [2 if s > 2**-12 * singular[0] else 1 for s in singular[: len(plan.up.parts)]]
        assert plan.up.of_loop()[:2] == (len(plan.up.parts), plan.up.parts.count(2))


def test_what_is_not_symmetric_has_no_plan() -> None:
    flat = torch.ones(24)
    for f in (torch.ones(12, 11), torch.randn(12, 12), torch.ones(12, 12).triu()):
        assert build(flat, f, Resampling(4, 2, (9, 9), (0, 0), (4.0, 1.0), False), READ, torch.float32, CPU) is None
    for padding in ((9, 8), (9, 11)):
        for pair in ((padding, (0, 0)), ((0, 0), padding)):
            resampling = Resampling(4, 2, *pair, (16.0, 1.0), False)
            assert build(flat, torch.ones(12), resampling, READ, torch.float32, CPU) is None
    like = build(flat, torch.ones(12), Resampling(4, 2, (9, 13), (0, -4), (16.0, 1.0), False), READ, torch.float32, CPU)
    assert isinstance(like, SymmetricPlan)
