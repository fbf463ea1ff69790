"""FilterPlan: a pair of resampling filters as banded matrices, ready for the matrix units of a GPU.

Along one axis, both steps of filtered_lrelu are products with a Toeplitz matrix whose entries are the taps:

    upsampling     s[j] = sum_i U[j, i] x[i]     U[j, i] = f[j + n - 1 - p - i * up]
    downsampling   y[o] = sum_j D[o, j] s[j]     D[o, j] = f[o * down + n - 1 - p - j]

for n taps and padding p on the left, entries beyond the taps being 0. `up` rows further down, U is the same one column
further right; one row further down, D is the same `down` columns further right. So if the samples s of two tiles begin
a multiple of `up` apart, both are made with the same small part of U and of D, of which a plan holds one for all tiles.

A filter that is not separable is a sum of separable terms, its singular value decomposition: StyleGAN3's radial
filters take two to four before what is left drowns in rounding. The plan lies on the device in the signal's dtype.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from sg3.kernels.filtered_lrelu.geometry import Resampling
from sg3.kernels.filtered_lrelu.powers import Powers, in_parts, scaled_taps

Plan = TypeVar("Plan", bound=Any)  # has `used_by`, as FilterPlan; or None

MOST_PLANS = 512  # of 30 to 130 kB each; a StyleGAN3 generator in training takes about 60


@dataclass(frozen=True)
class Tile:
    """Room for a square tile at the three stages: input pixels, samples between the filters, output pixels."""

    x: int
    s: int
    y: int


@dataclass(frozen=True)
class InParts:
    """A tile whose float32 numbers are multiplied in two half-precision parts (`powers.py`); the nonlinearity's gain is
    part of the matrices, and its slope says what room is left."""

    tile: Tile
    gain: float
    slope: float


@dataclass(frozen=True)
class FilterPlan:
    """What the tiles of one op have in common. A matrix is None where a step passes its input through.

    Matrices in parts begin with one more axis, of 2, and have `powers`.

    Tile number t along an axis makes outputs from t * step on, from samples between the filters from
    s_origin + t * step * down on, from input pixels from x_origin + t * x_step on. Origins are [x, y].
    """

    tile: Tile
    step: int
    x_step: int
    s_step: int
    x_origin: tuple[int, int]
    s_origin: tuple[int, int]
    up_x: torch.Tensor | None    # [terms, tile.x, tile.s]
    up_y: torch.Tensor | None    # [terms, tile.s, tile.x]
    down_x: torch.Tensor | None  # [terms, tile.s, tile.y]
    down_y: torch.Tensor | None  # [terms, tile.y, tile.s]
    powers: Powers | None = None
    streams: set[torch.cuda.Stream] = field(default_factory=set, repr=False, compare=False)  # of `used_by`

    @property
    def up_terms(self) -> int:
        return 0 if self.up_x is None else self.up_x.shape[-3]

    @property
    def down_terms(self) -> int:
        return 0 if self.down_x is None else self.down_x.shape[-3]

    def used_by(self, stream: torch.cuda.Stream) -> None:
        """Work that is queued on this stream reads the matrices, which may have been allocated for another one."""
        matrices = (self.up_x, self.up_y, self.down_x, self.down_y)
        record_stream(stream, self.streams, (m for m in matrices if m is not None))


def record_stream(
    stream: torch.cuda.Stream, known: set[torch.cuda.Stream], matrices: Iterable[torch.Tensor]
) -> None:
    """Tell PyTorch, unless the stream is known, to wait for all that is queued there when the memory is freed."""
    if stream not in known:
        known.add(stream)
        for matrix in matrices:
            matrix.record_stream(stream)


def separable_terms(f: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """f[y, x] = sum_t fy[t, y] fx[t, x], up to `tolerance` of the largest singular value; returns fx, fy."""
    if not np.isfinite(f).all():  # has none, and makes everything NaN, as it would be without
        return np.full([1, f.shape[1]], np.nan), np.full([1, f.shape[0]], np.nan)
    u, s, vt = np.linalg.svd(f)
    rest = s[::-1].cumsum()[::-1]  # what is lost by stopping before term t
    terms = max(int((rest > tolerance * s[0]).sum()), 1)
    root = np.sqrt(s[:terms, None])
    return vt[:terms] * root, u.T[:terms] * root


def banded(taps: np.ndarray, rows: int, columns: int, offset: int, row_step: int, column_step: int) -> np.ndarray:
    """[terms, rows, columns] with taps[:, row * row_step - column * column_step + offset], 0 beyond the taps."""
    index = np.arange(rows)[:, None] * row_step - np.arange(columns) * column_step + offset
    inside = (index >= 0) & (index < taps.shape[1])
    return np.where(inside, taps[:, np.where(inside, index, 0)], 0.0)


def fit(tile: Tile, up_taps: int, down_taps: int, up: int, down: int, lead: int) -> int:
    """How many outputs along an axis a tile of this size can make, its `step`; 0 if it has no room for any.

    Its samples begin with `lead` ones that no output needs. From tile to tile they move on by step * down: a multiple
    of `up`, so that all tiles have the same matrices, and of 4, so that each begins with a whole byte of signs.
    """
    unit = math.lcm(up // math.gcd(up, down), 4 // math.gcd(4, down))
    for step in range(tile.y // unit * unit, 0, -unit):
        samples = lead + (step - 1) * down + down_taps
        pixels = (samples - 1 + up_taps - 1) // up + 1
        if samples <= tile.s and pixels <= tile.x:
            return step
    return 0


def build(
    fu: torch.Tensor | None, fd: torch.Tensor | None, resampling: Resampling, kind: Tile | InParts, dtype: torch.dtype,
    device: torch.device,
) -> FilterPlan:  # fmt: skip
    """The plan for one tile size. Reads the filters back to the host. Raises ValueError if they do not fit the tile."""
    up, down = resampling.up, resampling.down
    tile, gain = (kind.tile, kind.gain) if isinstance(kind, InParts) else (kind, 1.0)
    ux, uy = separable_taps(fu, resampling.filter_gains[0] * gain, resampling.flip_filter, dtype)
    dx, dy = separable_taps(fd, resampling.filter_gains[1], resampling.flip_filter, dtype)
    # A tile's samples begin with a whole byte of signs, at a multiple of 4: up to three before the first that it needs.
    lead = (-resampling.down_padding[0]) % 4
    plain_up, plain_down = fu is None and up == 1, fd is None and down == 1 and lead == 0
    if plain_up:
        tile = Tile(tile.s, tile.s, tile.y)
    if plain_down:
        tile = Tile(tile.x, tile.s, tile.s)

    up_taps, down_taps = max(ux.shape[1], uy.shape[1]), max(dx.shape[1], dy.shape[1])
    step = fit(tile, up_taps, down_taps, up, down, lead)
    if step == 0:
        raise ValueError(f"fu, fd: {up_taps} and {down_taps} taps do not fit a tile of {tile}")
    s_origin = -resampling.down_padding[0] - lead, -resampling.down_padding[1]
    # Pixel i lies at sample p + i * up. The first that the tile's first sample is made of lies at it, or up to up - 1
    # samples after it; `shift` is that distance, 0 or negative.
    x_origin = tuple(math.ceil((s - p) / up) for s, p in zip(s_origin, resampling.up_padding, strict=True))
    shift = [s - p - i * up for s, p, i in zip(s_origin, resampling.up_padding, x_origin, strict=True)]

    def stage_up(taps: np.ndarray, axis: int) -> np.ndarray:  # [terms, tile.s, tile.x]
        return banded(taps, tile.s, tile.x, shift[axis] + taps.shape[1] - 1, 1, up)

    def stage_down(taps: np.ndarray, lead: int) -> np.ndarray:  # [terms, tile.y, tile.s]
        matrices = banded(taps, tile.y, tile.s, taps.shape[1] - 1 + lead, down, 1)
        matrices[:, step:] = 0
        return matrices

    powers = None
    if isinstance(kind, InParts):
        (ux, uy, dy, dx), powers = scaled_taps(ux, uy, dy, dx, up, kind.slope)  # tiles go down along x first
    else:
        ux, uy, dx, dy = (round_taps(t, n, dtype) for t, n in ((ux, up), (uy, up), (dx, down), (dy, down)))

    def on_device(matrices: np.ndarray) -> torch.Tensor:
        matrices = np.ascontiguousarray(matrices)
        return (torch.as_tensor(matrices).to(dtype) if powers is None else in_parts(matrices)).to(device)

    return FilterPlan(
        tile, step, step * down // up, step * down, (x_origin[0], x_origin[1]), s_origin,
        None if plain_up else on_device(stage_up(ux, 0).transpose(0, 2, 1)),
        None if plain_up else on_device(stage_up(uy, 1)),
        None if plain_down else on_device(stage_down(dx, lead).transpose(0, 2, 1)),
        None if plain_down else on_device(stage_down(dy, 0)),
        powers,
    )  # fmt: skip


def separable_taps(
    f: torch.Tensor | None, gain: float, flip: bool, dtype: torch.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """A filter as separable terms [terms, taps] along x and y, in float64, as many as a signal of `dtype` can tell.

    The square root of the gain goes along each axis. The taps stand as a convolution's, turned round where `flip` asks
    for a correlation.
    """
    if f is None:
        taps_x = taps_y = np.ones([1, 1])
    elif f.ndim == 1:
        taps_x = taps_y = f.detach().cpu().double().numpy()[None]
    else:
        taps_x, taps_y = separable_terms(f.detach().cpu().double().numpy(), torch.finfo(dtype).eps / 8)
    # f[n - 1 - k] of the formulas above is a convolution; a correlation has the taps the other way round
    if flip:
        taps_x, taps_y = taps_x[:, ::-1], taps_y[:, ::-1]
    return taps_x * math.sqrt(gain), taps_y * math.sqrt(gain)


def round_taps(taps: np.ndarray, phases: int, dtype: torch.dtype) -> np.ndarray:
    """Taps [terms, n] as numbers of `dtype`, in which each phase, every `phases`-th tap, keeps its sum.

    Rounded one by one, the taps of StyleGAN3's filters change what becomes of a constant by 1e-4 in float16 and 2e-3 in
    bfloat16, and in the same direction in every layer. So what rounding loses of a sum is given back, to each tap as
    much as its precision can take but no more than the spacing of numbers at the largest, from coarse to fine.
    """

    def nearest(values: np.ndarray | float) -> np.ndarray:
        return torch.tensor(np.array(values)).to(dtype).double().numpy()

    rounded = nearest(taps)
    if dtype == torch.float64 or not np.isfinite(taps).all():
        return rounded
    eps, tiny = torch.finfo(dtype).eps, torch.finfo(dtype).tiny
    for term, exact in zip(rounded, taps, strict=True):
        for phase in range(phases):
            have = term[phase::phases]  # a view
            missing = exact[phase::phases].sum() - have.sum()
            spacing = eps * 2.0 ** np.floor(np.log2(np.maximum(np.abs(have), tiny)))
            for i in np.argsort(-spacing, kind="stable"):
                most = np.clip(missing, -spacing.max(), spacing.max())
                closer = nearest(have[i] + np.round(most / spacing[i]) * spacing[i])
                missing -= closer - have[i]
                have[i] = closer
    return rounded


class PlanCache(Generic[Plan]):
    """The latest plans, found again by where a filter lies in memory and how often it was written to.

    Reading a filter back from the GPU waits for all work queued there, which only the first call can afford. Where it
    has to be read, equal values give the plan that exists, so a filter written over with itself (as by an average of
    weights) makes no new one. Writes to a filter made under inference_mode are not counted by PyTorch, and not noticed.

    An entry holds on to its filters (a few hundred bytes), so their addresses cannot come to mean others. A plan handed
    out while a CUDA graph is captured is kept for good, for the graph knows its address; of others, PyTorch is told
    which streams use them, so that the memory of one that is dropped is not given away before they are done with it.
    """

    def __init__(self, most: int, build: Callable[..., Plan]) -> None:
        self._most, self._build = most, build
        self._known: OrderedDict[Hashable, tuple[Hashable, object]] = OrderedDict()  # identity -> values, the filters
        self._plans: OrderedDict[Hashable, Plan] = OrderedDict()  # values -> plan
        self._captured: dict[Hashable, Plan] = {}
        self._lock = threading.Lock()

    def get(self, fu: torch.Tensor | None, fd: torch.Tensor | None, resampling: Resampling, kind: Hashable,
            dtype: torch.dtype, device: torch.device) -> Plan:  # fmt: skip
        """build(fu, fd, resampling, kind, dtype, device), called if that is new. Raises RuntimeError if it would have
        to be called during graph capture."""
        capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        use = resampling, kind, dtype, device
        identity = _identity(fu), _identity(fd), *use
        with self._lock:
            known = self._known.get(identity)
            if known is not None and known[0] in self._plans:
                self._known.move_to_end(identity)
                self._plans.move_to_end(known[0])
                plan = self._plans[known[0]]
                if capturing:
                    self._captured[known[0]] = plan
                elif device.type == "cuda" and plan is not None:
                    plan.used_by(torch.cuda.current_stream(device))
                return plan
        if capturing:
            raise RuntimeError("filtered_lrelu: these filters are new, and a CUDA graph is being captured; run the "
                               "network once before the capture")  # fmt: skip
        values = _values(fu), _values(fd), *use
        found = next((plans for plans in (self._plans, self._captured) if values in plans), None)
        plan = self._build(fu, fd, *use) if found is None else found[values]
        if device.type == "cuda" and plan is not None:
            plan.used_by(torch.cuda.current_stream(device))
        with self._lock:
            self._plans[values] = plan
            self._known[identity] = values, [None if f is None else f.detach() for f in (fu, fd)]
            for entries in (self._known, self._plans):
                while len(entries) > self._most:
                    entries.popitem(last=False)
        return plan


def _identity(f: torch.Tensor | None) -> Hashable:
    if f is None:
        return None
    version = None if f.is_inference() else f._version
    return f.data_ptr(), version, f.device, f.dtype, tuple(f.shape), f.stride()


def _values(f: torch.Tensor | None) -> Hashable:
    return None if f is None else (tuple(f.shape), f.detach().double().cpu().numpy().tobytes())


plans = PlanCache(MOST_PLANS, build)
