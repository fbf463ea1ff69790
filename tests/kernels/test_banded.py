"""Filter pairs as banded matrices: the algebra against the reference, tile by tile, and the cache of plans."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sg3.kernels.filtered_lrelu import banded
from sg3.kernels.filtered_lrelu.banded import PlanCache, Tile, build, fit, separable_terms
from sg3.kernels.filtered_lrelu.geometry import Resampling
from sg3.kernels.fir import design_lowpass_filter
from sg3.kernels.upfirdn2d.op import upfirdn2d_ref

CPU = torch.device("cpu")
F64 = torch.float64


@settings(max_examples=40, deadline=None)
@given(
    up=st.integers(1, 4), down=st.integers(1, 4), taps=st.tuples(*[st.integers(1, 13)] * 2),
    up_padding=st.tuples(*[st.integers(-9, 20)] * 2), down_padding=st.tuples(*[st.integers(-5, 9)] * 2),
    flip=st.booleans(), flat=st.booleans(), seed=st.integers(0, 9), tile=st.tuples(*[st.integers(0, 3)] * 2),
)  # fmt: skip
def test_every_tile_reproduces_both_filters(up, down, taps, up_padding, down_padding, flip, flat, seed, tile) -> None:
    """Down(Up(x)) from the matrices of one plan, for any tile, is upfirdn2d after upfirdn2d."""
    torch.manual_seed(seed)
    fu, fd = (torch.randn(n, dtype=F64) if flat else torch.randn(n, n + 1, dtype=F64) for n in taps)
    geometry = Resampling(up, down, up_padding, down_padding, (float(up**2), 1.0), flip)
    plan = build(fu, fd, geometry, Tile(128, 64, 32), F64, CPU)
    assert plan.step > 0
    assert plan.step * down % 4 == 0
    assert plan.s_origin[0] % 4 == 0

    size = 24  # enough pixels on every side that the reference can be cut out of a larger image
    x = torch.randn(1, 1, 100, 100, dtype=F64)
    def window(origin: int, step: int, t: int, room: int) -> slice:
        start = size + origin + t * step
        return slice(start, start + room)

    rows = window(plan.x_origin[1], plan.x_step, tile[1], plan.tile.x)
    columns = window(plan.x_origin[0], plan.x_step, tile[0], plan.tile.x)
    padded = torch.nn.functional.pad(x, [300, 300, 300, 300])[0, 0]
    pixels = padded[300 - size + rows.start :, 300 - size + columns.start :][: plan.tile.x, : plan.tile.x]
    between = sum(uy @ pixels @ ux for uy, ux in zip(plan.up_y, plan.up_x, strict=True))
    got = sum(dy @ between @ dx for dy, dx in zip(plan.down_y, plan.down_x, strict=True))

    # The reference on an image with zeros around it, so that all of the tile's pixels exist.
    far = 400
    v = upfirdn2d_ref(x, fu, (up, up), (1, 1), (up_padding[0] + far, far, up_padding[1] + far, far), flip, up**2)
    pads = (down_padding[0] - far, 0, down_padding[1] - far, 0)
    y = upfirdn2d_ref(v, fd, (1, 1), (down, down), pads, flip, 1.0)[0, 0]
    first_y, first_x = tile[1] * plan.step, tile[0] * plan.step
    expected = y[first_y : first_y + plan.step, first_x : first_x + plan.step]
    got = got[: expected.shape[0], : expected.shape[1]]
    torch.testing.assert_close(got, expected, atol=1e-9 * float(y.abs().max()), rtol=0)


def test_radial_filters_have_few_terms() -> None:
    """As design: two to four terms, by dtype; and the terms add up to the filter within the tolerance."""
    f = design_lowpass_filter(12, cutoff=8, width=16, fs=64, radial=True)
    assert f is not None
    ranks = {}
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        eps = torch.finfo(dtype).eps
        fx, fy = separable_terms(f.double().numpy(), eps / 8)
        ranks[dtype] = len(fx)
        assert np.linalg.norm(fy.T @ fx - f.double().numpy(), 2) <= eps / 8 * np.linalg.norm(f.double().numpy(), 2)
    assert ranks[torch.bfloat16] <= ranks[torch.float16] <= ranks[torch.float32] <= 5
    assert ranks[torch.float16] in (2, 3)


def test_what_fits_a_tile() -> None:
    assert fit(Tile(64, 64, 32), 12, 12, 2, 2, lead=0) == 26
    assert fit(Tile(32, 64, 32), 12, 12, 2, 2, lead=0) == 20  # 32 pixels make 52 samples
    assert fit(Tile(64, 64, 32), 32, 32, 1, 1, lead=3) == 0
    assert fit(Tile(64, 64, 32), 12, 24, 2, 4, lead=3) == 10
    with pytest.raises(ValueError, match="12 and 65 taps do not fit"):
        build(torch.ones(12), torch.ones(65), Resampling(2, 2, (0, 0), (0, 0), (4, 1), False), Tile(64, 64, 32),
              torch.float32, CPU)  # fmt: skip


def test_the_cache_knows_filters_by_place_and_version() -> None:
    cache = PlanCache(2, build)
    geometry = Resampling(2, 2, (9, 9), (0, 0), (4.0, 1.0), False)

    def get(fu: torch.Tensor, geometry: Resampling = geometry):
        return cache.get(fu, None, geometry, Tile(64, 64, 32), torch.float32, CPU)

    fu = torch.rand(12)
    plan = get(fu)
    assert get(fu) is plan
    assert get(fu.detach()) is plan  # as torch.compile hands it over
    assert get(fu.clone()) is plan  # equal values, read back once
    fu.copy_(fu.clone())
    assert get(fu) is plan
    fu.mul_(2)
    changed = get(fu)
    assert changed is not plan
    torch.testing.assert_close(changed.up_x, plan.up_x * 2)
    assert get(fu.to(torch.float64)) is changed

    gone = weakref.ref(plan)
    del plan
    for padding in (1, 2):
        get(fu, Resampling(2, 2, (padding, 0), (0, 0), (4.0, 1.0), False))
    gc.collect()
    assert gone() is None  # bounded


@pytest.mark.parametrize("inside", [False, True], ids=["used outside", "used inside"])
def test_filters_made_under_inference_mode_are_read_once(inside: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU every reading waits for all work queued there; and under graph capture there can be none."""
    reads = []
    plain = banded._values
    monkeypatch.setattr(banded, "_values", lambda f: reads.append(f) or plain(f))
    cache = PlanCache(4, build)
    geometry = Resampling(2, 2, (9, 9), (0, 0), (4.0, 1.0), False)

    def get(fu: torch.Tensor, fd: torch.Tensor):
        with torch.inference_mode(inside):
            return cache.get(fu, fd, geometry, Tile(64, 64, 32), torch.float32, CPU)

    with torch.inference_mode():
        fu, fd = torch.rand(12), torch.rand(12)
    first = get(fu, fd)
    assert len(reads) == 2
    assert get(fu, fd) is first
    assert get(fu.detach(), fd) is first
    assert len(reads) == 2
    assert get(fd, fu) is not first


def test_streams_that_use_a_plan_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each stream, for every matrix; not for the stream of a capture, whose plans are kept."""
    recorded: list[tuple[int, str]] = []
    state = SimpleNamespace(stream="first", capturing=False)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: state.stream)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: state.capturing)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda matrix, s: recorded.append((matrix.data_ptr(), s)))
    cache = PlanCache(4, lambda *arguments: build(*arguments[:-1], CPU))
    fu = torch.rand(12)

    def get(stream: str, capturing: bool = False):
        state.stream, state.capturing = stream, capturing
        resampling = Resampling(2, 2, (9, 9), (0, 0), (4.0, 1.0), False)
        return cache.get(fu, None, resampling, Tile(64, 64, 32), torch.float32, torch.device("cuda", 0))

    plan = get("first")
    matrices = [matrix.data_ptr() for matrix in (plan.up_x, plan.up_y, plan.down_x, plan.down_y)]
    for stream in ("first", "second", "second", "first"):
        assert get(stream) is plan
    assert get("third", capturing=True) is plan
    assert recorded == [(matrix, stream) for stream in ("first", "second") for matrix in matrices]
