"""upfirdn2d in one walk down the rows of the result, compiled for the CPU by Numba.

A row of y is made of the few rows of x that its taps along y meet, and their sum, still in the cache, is filtered along
x.

    rows of x  --taps_y-->  row  --split-->  [phase, position, lane]  --taps_x-->  phases of a row  --join-->  row of y

Both filters are then sums of long vectors, each multiplied by a tap (`_weigh`). Lanes are what lies side by side in
memory for one pixel: the channels of a channels_last image, a single number of an NCHW one. For the vectors to be long
along x too, a row is split into phases where the image gets smaller, and joined from phases where it gets larger; with
neither, it is filtered as it lies. No zero is inserted and nothing is made to be discarded.

A filter of two dimensions is a sum of separable terms. Every row is made by itself and always in the same order, so the
number of threads does not show in the result.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numba
import numpy as np
import torch

from sg3.kernels.memory_format import new_image
from sg3.kernels.numba_jit import compiled, start

AT_LEAST = 2**17  # numbers of y for a thread; fewer are done before it has begun
ONE = np.ones([1, 1], np.float32)


def forward(
    x: torch.Tensor, f: torch.Tensor | None, up: tuple[int, int], down: tuple[int, int], padding: tuple[int, int],
    flip_filter: bool, gain: float, size: tuple[int, int], channels_last: bool,
) -> torch.Tensor:  # fmt: skip
    """float32 [N, C, H, W] on the CPU -> [N, C, *size], dense, channels_last or contiguous; padding = (x0, y0)."""
    y = new_image(x, *size, channels_last=channels_last)
    n, c, height, width = x.shape
    if n == 0:
        return y
    pixels, result, lanes = x.detach(), y, 1
    if channels_last:
        pixels, result, lanes = pixels.permute(0, 2, 3, 1), y.permute(0, 2, 3, 1), c
    taps = ONE if f is None else f.detach().to(torch.float32).contiguous().numpy()
    start(
        _rows_by_threads, _rows_in_turn, pixels.contiguous().view(-1).numpy(), result.view(-1).numpy(),
        taps.reshape(-1, taps.shape[-1]), f is not None and f.ndim == 1, flip_filter, float(gain), up, down, padding,
        (n * c // lanes, height, width, lanes), size,
    )  # fmt: skip
    return y


def _rows_in_turn(x, y, f, separable, flip, gain, up, down, padding, shape, size):
    """y [images, OH, OW, lanes] from x [images, H, W, lanes], both flat; shape is x's, size = OH, OW."""
    _rows(x, y, f, separable, flip, gain, up, down, padding, shape, size, 0, shape[0] * size[0])


def _rows_by_threads(*arguments):
    """The same, shared out to Python's threads, which `_rows` leaves to themselves: a loop of Numba's for several
    threads takes twice as long to compile, and most calls here are too short for more than one."""
    shape, size = arguments[-2:]
    rows = shape[0] * size[0]
    threads = max(min(numba.get_num_threads(), len(arguments[1]) // AT_LEAST, rows), 1)
    ends = [rows * part // threads for part in range(threads + 1)]
    if threads == 1:
        _rows(*arguments, 0, rows)
        return
    with ThreadPoolExecutor(threads - 1) as pool:
        others = [pool.submit(_rows, *arguments, *part) for part in pairwise(ends[1:])]
        _rows(*arguments, *ends[:2])
    for other in others:
        other.result()  # raises what it raised


@compiled()
def _terms(f, separable, flip, gain):
    """The taps [terms, taps] along x and y of [taps_y, taps_x] or, `separable`, [1, taps] for both, in the order in
    which they meet samples, each with the root of the gain.

    f - sum_t taps_y[t] taps_x[t] becomes smaller term by term: by the row and the column that cross at the largest
    number left, over this number, until float32 cannot tell what is left.
    """
    ny, nx = (f.shape[1] if separable else f.shape[0]), f.shape[1]
    most = 1 if separable else min(nx, ny)
    taps_x, taps_y = np.zeros((most, nx), np.float32), np.zeros((most, ny), np.float32)
    root = math.sqrt(abs(gain))
    root_y = -root if gain < 0 else root
    rest, line, cross = np.empty(f.shape, np.float64), np.empty(nx, np.float64), np.empty(ny, np.float64)
    for i in range(len(f)):
        for j in range(nx):
            rest[i, j] = f[i, j]
    terms, limit = 0, 0.0
    while terms < most:
        row = column = 0
        for i in range(len(f)):
            for j in range(nx):
                if abs(rest[i, j]) > abs(rest[row, column]) or np.isnan(rest[i, j]):
                    row, column = i, j
        pivot = rest[row, column]
        if terms > 0 and abs(pivot) <= limit:
            break
        for j in range(nx):
            line[j] = rest[row, j]
            taps_x[terms, j if flip else nx - 1 - j] = root * line[j]
        for i in range(ny):  # a filter of zeros has no pivot
            cross[i] = rest[0, i] if separable else rest[i, column] / pivot if pivot != 0 else 0.0
            taps_y[terms, i if flip else ny - 1 - i] = root_y * cross[i]
        if terms == 0:
            limit = abs(pivot) * np.finfo(np.float32).eps / 8
        terms += 1
        if terms < most:
            for i in range(ny):
                for j in range(nx):
                    rest[i, j] -= cross[i] * line[j]
    return taps_x[:terms], taps_y[:terms]


@compiled()
def _weigh(out, begin, length, rows, at, taps, count, add):
    """out[begin + i] (+)= the sum over k < count of taps[k] * rows[at[k] + i], i < length.

    Places and numbers are unsigned: then Numba has no negative index to look for, and LLVM makes vectors.
    """
    if count == 0 and not add:
        for i in range(length):
            out[begin + i] = 0
    four, two, one = np.uint64(4), np.uint64(2), np.uint64(1)
    k = np.uint64(0)
    while k < count:
        add = add or k > 0
        if count - k >= four:
            t0, t1, t2, t3 = taps[k], taps[k + one], taps[k + two], taps[k + two + one]
            a0, a1, a2, a3 = at[k], at[k + one], at[k + two], at[k + two + one]
            if add:
                for i in range(length):
                    out[begin + i] += t0 * rows[a0 + i] + t1 * rows[a1 + i] + t2 * rows[a2 + i] + t3 * rows[a3 + i]
            else:
                for i in range(length):
                    out[begin + i] = t0 * rows[a0 + i] + t1 * rows[a1 + i] + t2 * rows[a2 + i] + t3 * rows[a3 + i]
            k += four
        elif count - k >= two:
            t0, t1, a0, a1 = taps[k], taps[k + one], at[k], at[k + one]
            if add:
                for i in range(length):
                    out[begin + i] += t0 * rows[a0 + i] + t1 * rows[a1 + i]
            else:
                for i in range(length):
                    out[begin + i] = t0 * rows[a0 + i] + t1 * rows[a1 + i]
            k += two
        else:
            t0, a0 = taps[k], at[k]
            if add:
                for i in range(length):
                    out[begin + i] += t0 * rows[a0 + i]
            else:
                for i in range(length):
                    out[begin + i] = t0 * rows[a0 + i]
            k += one


@compiled()
def _split(out, row, phases, positions, lanes):
    """`row` [position, phase, lane] -> `out` [phase, position, lane]."""
    if lanes == 1 and phases == 2:  # as LLVM makes vectors of it
        for i in range(np.uint64(positions)):
            out[i] = row[i + i]
            out[np.uint64(positions) + i] = row[i + i + np.uint64(1)]
        return
    for phase in range(phases):
        for position in range(positions):
            to, source = (phase * positions + position) * lanes, (position * phases + phase) * lanes
            for lane in range(np.uint64(lanes)):
                out[np.uint64(to) + lane] = row[np.uint64(source) + lane]


@compiled()
def _join(out, begin, columns, row, phases, positions, lanes):
    """The opposite, to out[begin], ...: the first `columns` of [position, phase]."""
    joined = 0
    if lanes == 1 and phases == 2:
        joined = columns // 2
        for i in range(np.uint64(joined)):
            out[np.uint64(begin) + i + i] = row[i]
            out[np.uint64(begin) + i + i + np.uint64(1)] = row[np.uint64(positions) + i]
    for phase in range(phases):
        for position in range(joined, (columns - phase + phases - 1) // phases):
            to, source = begin + (position * phases + phase) * lanes, (phase * positions + position) * lanes
            for lane in range(np.uint64(lanes)):
                out[np.uint64(to) + lane] = row[np.uint64(source) + lane]


@compiled()
def _rows(x, y, f, separable, flip, gain, up, down, padding, shape, size, first, end):
    """Rows first, ..., end - 1 of y [images, OH, OW, lanes] from x [images, H, W, lanes], both flat."""
    _, height, width, lanes = shape
    out_h, out_w = size
    taps_x, taps_y = _terms(f, separable, flip, gain)
    terms, n_x, n_y = len(taps_x), taps_x.shape[1], taps_y.shape[1]
    common = math.gcd(up[0], down[0])
    phases, x_phases = up[0] // common, down[0] // common  # of a row of y and of x

    # Output q * phases + r meets tap tap_x[r] + k * up with the sample that lies sample[r] + k after first_column, and
    # with every further q one that lies x_phases samples further on.
    first_column = -(padding[0] // up[0])
    most = -(-out_w // phases)  # outputs of a phase
    sample, tap_x, count_x = np.empty(phases, np.int64), np.empty(phases, np.int64), np.empty(phases, np.int64)
    columns = 1
    for r in range(phases):
        column = -((padding[0] - r * down[0]) // up[0])
        sample[r], tap_x[r] = column - first_column, column * up[0] + padding[0] - r * down[0]
        count_x[r] = max(-((tap_x[r] - n_x) // up[0]), 0)
        columns = max(columns, sample[r] + count_x[r] + (most - 1) * x_phases)
    positions = -(-columns // x_phases)
    at_x = np.zeros((phases, -(-n_x // up[0])), np.uint64)
    weights_x = np.zeros((terms, *at_x.shape), np.float32)
    for r in range(phases):
        for k in range(count_x[r]):
            position, phase = divmod(sample[r] + k, x_phases)
            at_x[r, k] = (phase * positions + position) * lanes
            for term in range(terms):
                weights_x[term, r, k] = taps_x[term, tap_x[r] + k * up[0]]

    row = np.zeros(positions * x_phases * lanes, np.float32)  # outside of the image it stays 0
    inside = min(max(-first_column, 0), positions * x_phases)
    outside = max(min(width - first_column, positions * x_phases), inside)
    split = row if x_phases == 1 else np.empty_like(row)
    apart = np.empty(most * phases * lanes if phases > 1 else 0, np.float32)
    at_y, weights_y = np.empty(n_y, np.uint64), np.empty(n_y, np.float32)
    for o in range(first, end):
        image, y_row = divmod(o, out_h)
        start_y = y_row * down[1] - padding[1]
        sample_y = -(-start_y // up[1])
        tap_y = sample_y * up[1] - start_y
        low = max(-sample_y, 0)
        count = max(min(-((tap_y - n_y) // up[1]), height - sample_y) - low, 0)
        for term in range(terms):
            for k in range(count):
                at_y[k] = ((image * height + sample_y + low + k) * width + first_column + inside) * lanes
                weights_y[k] = taps_y[term, tap_y + (low + k) * up[1]]
            _weigh(row, np.uint64(inside * lanes), np.uint64((outside - inside) * lanes), x, at_y, weights_y,
                   np.uint64(count), False)
            if x_phases > 1:
                _split(split, row, x_phases, positions, lanes)
            for r in range(phases):
                begin = o * out_w * lanes if phases == 1 else r * most * lanes
                length = (out_w - r + phases - 1) // phases * lanes
                _weigh(y if phases == 1 else apart, np.uint64(begin), np.uint64(length), split, at_x[r],
                       weights_x[term, r], np.uint64(count_x[r]), term > 0)
        if phases > 1:
            _join(y, o * out_w * lanes, out_w, apart, phases, most, lanes)
