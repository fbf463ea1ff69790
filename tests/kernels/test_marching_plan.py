"""Where marching programs start, and what they carry from strip to strip."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sg3.kernels.filtered_lrelu.banded import banded, round_taps
from sg3.kernels.filtered_lrelu.geometry import MARCHING, Resampling
from sg3.kernels.filtered_lrelu.marching_plan import (
    MOST_TAPS,
    PAIRS,
    SHAPES,
    SHAPES_FLOAT32,
    Pointwise,
    build,
    lay_out,
    numbers,
)
from sg3.kernels.fir import design_lowpass_filter

CPU = torch.device("cpu")


@pytest.mark.parametrize(("up", "down"), MARCHING)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_one_block_of_each_kind_goes_from_strip_to_strip(up: int, down: int, data: st.DataObject) -> None:
    """For all paddings and all taps that are taken; all columns fit; and what must be even is."""
    up_taps, down_taps = data.draw(st.integers(1, MOST_TAPS * up)), data.draw(st.integers(1, MOST_TAPS * down))
    low = st.tuples(*[st.integers(-40, 40)] * 2)
    resampling = Resampling(up, down, data.draw(low), data.draw(low), (1.0, 1.0), False)
    layout = lay_out(resampling, up_taps, down_taps, data.draw(st.integers(2, 4)))
    assert layout.halves == layout.pixel_blocks * up == layout.output_blocks * down

    # Rows: block (h, a) of up_y for strip rows h and pixel rows a = 0 (carried) to pixel_blocks.
    first, _ = numbers(up_taps, layout.y.phase + up_taps - 1, 16, 1, up, 16)
    assert all(h - up * a < first for h in range(layout.halves) for a in range(layout.pixel_blocks + 1, 9))
    _, end = numbers(up_taps, layout.y.phase + up_taps - 1, 16, 1, up, 16)
    assert all(h + up >= end for h in range(layout.halves)), "pixel rows before the carried ones"
    # Output rows j are finished by the end of their own strip, or, the last, of the next.
    _, end = numbers(down_taps, layout.y.lead + down_taps - 1, -16, down, 1, 16)
    assert all(layout.halves - down * j >= end for j in range(layout.output_blocks - 1))
    assert layout.halves + down >= end
    first, _ = numbers(down_taps, layout.y.lead + down_taps - 1, -16, down, 1, 16)
    assert first >= 0, "samples before the block's own"

    # Columns: all samples that outputs read are there, and all pixels that those read.
    samples = layout.x.lead + (layout.step - 1) * down + down_taps
    assert samples <= 16 * layout.columns
    assert (samples - 1 + layout.x.phase + up_taps - 1) // up < 8 * layout.pieces
    assert layout.step % 2 == layout.x_step % 2 == layout.x.x_origin % 2 == layout.x.s_origin % 2 == 0
    assert layout.x_step * up == layout.step * down
    assert layout.step * down % 4 == 0
    assert layout.y.s_origin % 32 == 0
    for axis, padding in ((layout.x, 0), (layout.y, 1)):
        assert axis.s_origin + axis.lead + axis.skipped * down == -resampling.down_padding[padding]
        assert axis.s_origin - resampling.up_padding[padding] == axis.x_origin * up + axis.phase
        assert -up < axis.phase <= (up if axis is layout.x else 0)


def test_a_call_and_its_gradient_keep_signs_alike() -> None:
    """Which programs they are must not depend on which filter comes first."""
    for shapes in (SHAPES, SHAPES_FLOAT32):
        assert set(shapes) == {(down, down_terms, up, up_terms) for up, up_terms, down, down_terms in shapes}
    assert {(up, down) for up, _, down, _ in SHAPES} == set(MARCHING)
    long, short = torch.ones(2 * MOST_TAPS + 1), torch.ones(2 * MOST_TAPS)
    for fu, fd, marches in ((short, short, True), (long, short, False), (short, long, False)):
        for f, g in ((fu, fd), (fd, fu)):
            plan = build(f, g, Resampling(2, 2, (9, 9), (0, 0), (4.0, 1.0), False), Pointwise(1.0, 0.2, False, True),
                         torch.float16, CPU)  # fmt: skip
            assert (plan is not None) == marches


def whole(blocks, rows: int, columns: int, row_unit: int, column_unit: int, height: int) -> np.ndarray:
    """A matrix of rows x columns blocks of height x 16, from its distinct blocks, of the first term."""
    data = blocks.data[0, :, 0].double().reshape(-1, height, 4, 2, 2).transpose(-3, -2).reshape(-1, height, 16).numpy()
    result = np.zeros([rows, height, columns, 16])
    for i in range(rows):
        for j in range(columns):
            number = row_unit * i - column_unit * j
            if blocks.numbers[0] <= number < blocks.numbers[1]:
                result[i, :, j] = data[number - blocks.numbers[0]]
    return result.reshape(rows * height, columns * 16)


@pytest.mark.parametrize(("up", "down"), MARCHING)
def test_blocks_are_the_banded_matrices(up: int, down: int) -> None:
    """Put together, the distinct blocks are the Toeplitz matrices that they were cut from."""
    fu, fd = torch.randn(MOST_TAPS * up), torch.randn(MOST_TAPS * down)
    resampling = Resampling(up, down, (5, 3), (1, -2), (1.0, 1.0), False)
    plan = build(fu, fd, resampling, Pointwise(1.0, 0.0, False, True), torch.float16, CPU)
    taps_u, taps_d = (round_taps(f.double().numpy()[None], n, torch.float16) for f, n in ((fu, up), (fd, down)))
    order = np.concatenate([16 * m + PAIRS for m in range(4)])
    x, y = plan.layout.x, plan.layout.y
    up_x = banded(taps_u, 64, 48, x.phase + len(fu) - 1, 1, up)[0]
    up_y = banded(taps_u, 64, 48, y.phase + len(fu) - 1, 1, up)[0]
    down_x = banded(taps_d, 32, 64, x.lead + len(fd) - 1, down, 1)[0]
    down_y = banded(taps_d, 32, 64, y.lead + len(fd) - 1, down, 1)[0]
    assert np.array_equal(whole(plan.up_x, 4, 3, 1, up, 16), up_x[order])
    assert np.array_equal(whole(plan.up_y, 4, 3, 1, up, 16), up_y)
    transposed = [whole(plan.down_x, 4, 4, -down, -2, 8), whole(plan.down_y, 2, 4, -down, -1, 16)]
    assert np.array_equal(transposed[0], down_x[:, order])
    assert np.array_equal(transposed[1], down_y)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("gain", [1.0, 2**0.5, 4.0, 16 * 2**0.5])
def test_each_phase_keeps_its_sum(dtype: torch.dtype, gain: float) -> None:
    """A constant stays what it is, to a hundredth of what rounding changes; no tap is off by much more than before."""
    for taps, phases in ((12, 2), (24, 4), (12, 1)):
        f = design_lowpass_filter(taps, cutoff=8, width=16, fs=64)
        exact = f.double().numpy()[None] * gain**0.5
        rounded = round_taps(exact, phases, dtype)
        assert np.array_equal(torch.from_numpy(rounded).to(dtype).double().numpy(), rounded)
        coarsest = torch.finfo(dtype).eps * 2 ** np.floor(np.log2(np.abs(exact).max()))
        assert np.abs(rounded - exact).max() <= 1.5 * coarsest  # its own rounding, and one step
        for phase in range(phases):
            assert abs((rounded - exact)[:, phase::phases].sum()) <= coarsest / 100
