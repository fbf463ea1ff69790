"""filtered_lrelu in one walk over the image, compiled for the CPU by Numba.

A thread takes some channels of a part of the image and goes down its rows. Every row of the upsampled signal is made,
bent and filtered down again while it is in the cache; none of them reaches memory, except for a byte a sample that says
where the signal took the slope or was clamped (`signs`), if a gradient is going to ask.

    rows of x  --up_y-->  row  --up_x-->  middle  --bend-->  middle  --down_x-->  a row of the ring  --down_y-->  y

All four filters are then sums of rows, each multiplied by a tap: long vectors and nothing else. For this to be so along
x as well, a row lies in memory as [phase, position, lane]. Lanes are channels, side by side as in channels_last. Sample
j of the middle has phase j % period and position j // period, the period being lcm(up, down): samples of one phase meet
the same taps, before and after. Rows of x and y have period / up and period / down phases. So a shift by one position
shifts the whole vector. `numba_plan.py` says which samples meet which taps.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np
import torch

from sg3.kernels.filtered_lrelu.banded import separable_taps
from sg3.kernels.filtered_lrelu.geometry import CLAMPED, PASSED, SLOPED, Resampling
from sg3.kernels.filtered_lrelu.numba_plan import GROUP, plan_columns, plan_rows
from sg3.kernels.numba_jit import compiled, start

LANES = 64          # most channels that are worked on together
ROW = 256 * 32      # most numbers in a row of outputs: what is made of it stays in a core's L2 cache
TILE_HEIGHT = 32    # least outputs of a tile along y: some rows above and below are made once more
UNITS = 8           # as many tiles at least, if the image is tall enough, so that all cores have work


class Place(NamedTuple):
    """Where a tile lies in the whole image's x, middle and y."""

    channel: int       # the first of as many as there are lanes
    lanes: int
    first_pixel: int   # of a row of x, at position 0
    first_middle: int  # position of a row of the middle, at position 0
    first_row: int     # of y
    end_middle: int    # the position and
    end_row: int       # the row of the middle from which on another tile writes the signs


class Bend(NamedTuple):
    """The nonlinearity: v * positive or v * negative, then clamped."""

    positive: np.float32
    negative: np.float32
    clamp: np.float32


def forward(
    x: torch.Tensor, b: torch.Tensor | None, y: torch.Tensor, signs: torch.Tensor | None, fu: torch.Tensor | None,
    fd: torch.Tensor | None, resampling: Resampling, gain: float, slope: float, clamp: float | None,
) -> None:  # fmt: skip
    """Fill y [N, C, OH, OW] from x [N, C, H, W], both float32 on the CPU; fastest if they are channels_last.

    `signs`, uint8 [N, C, rows, phases * positions] of the middle, is written, if it is not None; how it lies in there
    only this module knows: [N, blocks of LANES channels, row, phase, position, lane].
    """
    assert resampling.down_padding == (0, 0)  # or the rows of signs would begin before the middle does
    _run(x, b, y, signs, False, fu, fd, resampling, gain, slope, clamp)


def grad(
    g: torch.Tensor, y: torch.Tensor, signs: torch.Tensor, x: None, b: None, fu: torch.Tensor | None,
    fd: torch.Tensor | None, resampling: Resampling, gain: float, slope: float, clamp: float | None, transposed: bool,
) -> None:  # fmt: skip
    """Fill y from g; the signs are read instead of bending the signal."""
    _run(g, None, y, signs.contiguous(), True, fu, fd, resampling, gain, slope, clamp)


def _run(
    x: torch.Tensor, b: torch.Tensor | None, y: torch.Tensor, signs: torch.Tensor | None, read_signs: bool,
    fu: torch.Tensor | None, fd: torch.Tensor | None, resampling: Resampling, gain: float, slope: float,
    clamp: float | None,
) -> None:  # fmt: skip
    up, down = resampling.up, resampling.down
    factors = up, down, math.lcm(up, down)
    assert signs is None or (signs.dtype == torch.uint8 and signs.shape[:2] == x.shape[:2] == y.shape[:2])
    up_x, up_y = separable_taps(fu, resampling.filter_gains[0], resampling.flip_filter, x.dtype)
    down_x, down_y = separable_taps(fd, resampling.filter_gains[1], resampling.flip_filter, x.dtype)
    tile = tile_size(y, factors[2] // down)
    columns = plan_columns(up_x, down_x, resampling.up_padding[0], resampling.down_padding[0], factors, tile[1])
    middle = signs.shape[2] if signs is not None else (y.shape[2] - 1) * down + down_y.shape[1]
    rows = plan_rows(up_y, down_y, resampling.up_padding[1], resampling.down_padding[1], up, middle)
    bend = Bend(*(np.float32(v) for v in (gain, gain * slope, math.inf if clamp is None else clamp)))

    pixels = x.detach().permute(0, 2, 3, 1).contiguous()  # [N, H, W, C]
    result = y.detach().permute(0, 2, 3, 1)
    room = result if result.is_contiguous() else y.new_empty(result.shape)
    bias = np.zeros(x.shape[1], np.float32) if b is None else b.detach().contiguous().numpy()
    plane = np.empty([*x.shape[:2], middle, 0], np.uint8) if signs is None else signs.detach().numpy()
    start(
        _tiles_by_threads, _tiles_in_turn,
        pixels.flatten(2).numpy(), bias, room.flatten(2).numpy(), plane, read_signs, columns, rows, bend, factors, tile,
    )  # fmt: skip
    if room is not result:
        result.copy_(room)


def tile_size(y: torch.Tensor, phases: int) -> tuple[int, int, int]:
    """How many channels, columns (a multiple of `phases`) and rows of y [N, C, OH, OW] a tile has. The number of
    threads is none of its concern, so it does not show in results."""
    n, c, height, width = y.shape
    blocks = -(-c // LANES)
    lanes = -(-c // blocks)
    across = -(-width * lanes // ROW)
    columns = -(-width // (across * phases)) * phases
    along = max(min(-(-UNITS // max(n * blocks * across, 1)), height // TILE_HEIGHT), 1)
    return lanes, columns, -(-height // along)


@compiled()
def _weigh(out, rows, at, stride, taps, add):
    """out (+)= the sum over k of taps[k] times what begins in `rows` at at[k] * stride."""
    n = len(out)
    for k in range(0, len(taps), GROUP):
        t0, t1, t2, t3, t4, t5 = taps[k], taps[k + 1], taps[k + 2], taps[k + 3], taps[k + 4], taps[k + 5]
        r0, r1, r2 = rows[at[k] * stride :][:n], rows[at[k + 1] * stride :][:n], rows[at[k + 2] * stride :][:n]
        r3, r4, r5 = rows[at[k + 3] * stride :][:n], rows[at[k + 4] * stride :][:n], rows[at[k + 5] * stride :][:n]
        if add or k > 0:
            for i in range(n):
                out[i] += t0 * r0[i] + t1 * r1[i] + t2 * r2[i] + t3 * r3[i] + t4 * r4[i] + t5 * r5[i]
        else:
            for i in range(n):
                out[i] = t0 * r0[i] + t1 * r1[i] + t2 * r2[i] + t3 * r3[i] + t4 * r4[i] + t5 * r5[i]


@compiled()
def _bend(v, bend):
    for i in range(len(v)):
        s = v[i] * (bend.negative if v[i] <= 0 else bend.positive)
        s = -bend.clamp if s < -bend.clamp else s
        v[i] = bend.clamp if s > bend.clamp else s


@compiled()
def _bend_and_sign(v, signs, bend):
    for i in range(len(v)):
        sign = np.uint8(SLOPED) if v[i] <= 0 else np.uint8(PASSED)
        s = v[i] * (bend.negative if v[i] <= 0 else bend.positive)
        signs[i] = np.uint8(CLAMPED) if abs(s) > bend.clamp else sign
        s = -bend.clamp if s < -bend.clamp else s
        v[i] = bend.clamp if s > bend.clamp else s


@compiled()
def _apply_signs(v, signs, bend):
    """v times the derivative of `_bend`, by the signs."""
    for i in range(len(signs)):
        factor = bend.negative if signs[i] == SLOPED else bend.positive
        v[i] *= np.float32(0) if signs[i] == CLAMPED else factor


@compiled()
def _read_row(out, x_row, channels, bias, place, phases):
    """out [phase, position, lane] = pixels first_pixel, first_pixel + 1, ... of x_row [W, C] plus bias, 0 outside of
    the image. `bias` goes on repeating itself for as long as a row."""
    lanes, first = place.lanes, place.first_pixel
    width, positions = len(x_row) // channels, len(out) // (phases * lanes)
    if phases == 1 and lanes == channels:  # all in one piece
        start = min(max(-first, 0), positions)
        stop = max(min(width - first, positions), start)
        out[: start * lanes] = 0
        out[stop * lanes :] = 0
        inside = out[start * lanes : stop * lanes]
        pixels = x_row[(first + start) * lanes :][: len(inside)]
        for i in range(len(inside)):
            inside[i] = pixels[i] + bias[i]
        return
    for phase in range(phases):
        for position in range(positions):
            column = first + phase + phases * position
            to = out[(phase * positions + position) * lanes :][:lanes]
            if 0 <= column < width:
                pixel = x_row[column * channels + place.channel :][:lanes]
                for lane in range(lanes):
                    to[lane] = pixel[lane] + bias[lane]
            else:
                to[:] = 0


@compiled()
def _write_row(y_row, channels, row, place, phases):
    """The opposite: y_row [columns, C] = row [phase, position, lane]."""
    lanes = place.lanes
    if phases == 1 and lanes == channels:
        y_row[:] = row[: len(y_row)]
        return
    positions = len(row) // (phases * lanes)
    for column in range(len(y_row) // channels):
        pixel = row[(column % phases * positions + column // phases) * lanes :][:lanes]
        to = y_row[column * channels + place.channel :][:lanes]
        for lane in range(lanes):
            to[lane] = pixel[lane]


@compiled()
def _bend_row(middle, signs, read_signs, length, bend, first, end):
    """Bend a row of the middle [phase, length], which begins `first` numbers after the whole image's.

    `signs` [phase, ...], if there are any, are those of the whole image's row, to be written before `end`.
    """
    phases = len(middle) // length
    sign_length = len(signs) // phases
    for phase in range(phases):
        row = middle[phase * length :][:length]
        row_signs = signs[phase * sign_length :][:sign_length]
        if read_signs:
            start = min(max(-first, 0), length)
            stop = max(min(sign_length - first, length), start)
            row[:start] = 0
            row[stop:] = 0
            inside = row[start:stop]
            _apply_signs(inside, row_signs[first + start :][: len(inside)], bend)
        else:
            own = row_signs[first:end]
            _bend_and_sign(row[: len(own)], own, bend)
            _bend(row[len(own) :], bend)


@compiled()
def _tile(x, bias, y, signs, read_signs, columns, rows, bend, factors, place):
    """Some outputs y [rows, columns * C] from an image x [H, W * C]. `signs` are those of the whole image."""
    up, down, period = factors
    lanes, x_phases, y_phases, terms = place.lanes, period // up, period // down, len(rows.down_taps)
    middle_length = columns.middle_positions * lanes
    x_length, y_length = x_phases * columns.x_positions * lanes, y_phases * columns.y_positions * lanes
    x_rows, x_row = np.empty(rows.up_count * x_length, np.float32), np.empty(x_length, np.float32)
    y_rows, y_row = np.empty(terms * rows.down_count * y_length, np.float32), np.empty(y_length, np.float32)
    middle = np.empty(period * middle_length, np.float32)
    bias_row = np.empty(columns.x_positions * lanes, np.float32)
    for i in range(len(bias_row)):
        bias_row[i] = bias[place.channel + i % lanes]
    up_at, down_at = np.empty(rows.up_taps.shape[2], np.int64), np.empty(rows.down_taps.shape[1], np.int64)

    next_pixel = next_middle = np.iinfo(np.int64).min
    for o in range(len(y)):
        start = (place.first_row + o) * down - rows.down_padding
        for j in range(max(start, next_middle), start + rows.down_count):
            slot = j % rows.down_count
            if not 0 <= j < rows.middle:
                for term in range(terms):
                    y_rows[(term * rows.down_count + slot) * y_length :][:y_length] = 0
                continue
            pixel = -((rows.up_padding - j) // up)
            for i in range(max(pixel, next_pixel), pixel + rows.up_count):
                ring_row = x_rows[i % rows.up_count * x_length :][:x_length]
                if 0 <= i < len(x):
                    _read_row(ring_row, x[i], len(bias), bias_row, place, x_phases)
                else:
                    ring_row[:] = 0
            next_pixel = pixel + rows.up_count
            for k in range(len(up_at)):
                up_at[k] = (pixel + min(k, rows.up_count - 1)) % rows.up_count
            for term in range(len(rows.up_taps)):
                _weigh(x_row, x_rows, up_at, x_length, rows.up_taps[term, (j - rows.up_padding) % up], False)
                for phase in range(period):
                    _weigh(middle[phase * middle_length :][:middle_length], x_row, columns.up_at[phase], lanes,
                           columns.up_taps[term, phase], term > 0)
            end = place.end_middle if j < place.end_row else 0
            _bend_row(middle, signs[j], read_signs, middle_length, bend, place.first_middle * lanes, end * lanes)
            for term in range(terms):
                ring_row = y_rows[(term * rows.down_count + slot) * y_length :][:y_length]
                for phase in range(y_phases):
                    _weigh(ring_row[phase * columns.y_positions * lanes :][: columns.y_positions * lanes], middle,
                           columns.down_at[phase], lanes, columns.down_taps[term], False)
        next_middle = start + rows.down_count
        for term in range(terms):
            for k in range(len(down_at)):
                down_at[k] = term * rows.down_count + (start + min(k, rows.down_count - 1)) % rows.down_count
            _weigh(y_row, y_rows, down_at, y_length, rows.down_taps[term], term > 0)
        _write_row(y[o], len(bias), y_row, place, y_phases)


@compiled()
def _unit(unit, x, bias, y, signs, read_signs, columns, rows, bend, factors, tile):
    """One of the tiles, `unit` its number."""
    channels, height = len(bias), y.shape[1]
    width = y.shape[2] // channels
    up, down, period = factors
    along, across, blocks = -(-height // tile[2]), -(-width // tile[1]), -(-channels // tile[0])
    rest, tile_y = divmod(unit, along)
    rest, tile_x = divmod(rest, across)
    image, block = divmod(rest, blocks)
    channel, column, row = block * tile[0], tile_x * tile[1], tile_y * tile[2]
    lanes = min(channels - channel, tile[0])
    sign_rows, sign_columns = signs.shape[2:]
    block_signs = signs.reshape(-1)[(image * channels + channel) * sign_rows * sign_columns :]
    place = Place(
        channel, lanes, columns.first_pixel + column * down // up, columns.first_middle + column * down // period, row,
        sign_columns // period if tile_x == across - 1 else (column + tile[1]) * down // period,
        sign_rows if tile_y == along - 1 else (row + tile[2]) * down,
    )  # fmt: skip
    _tile(
        x[image], bias, y[image, row : row + tile[2], column * channels : (column + tile[1]) * channels],
        block_signs[: sign_rows * sign_columns * lanes].reshape(sign_rows, sign_columns * lanes), read_signs, columns,
        rows, bend, factors, place,
    )  # fmt: skip


@compiled()
def _count(bias, y, tile):
    width = y.shape[2] // len(bias)
    return len(y) * -(-len(bias) // tile[0]) * -(-width // tile[1]) * -(-y.shape[1] // tile[2])


@compiled()
def _tiles_in_turn(x, bias, y, signs, read_signs, columns, rows, bend, factors, tile):
    """y [N, OH, OW * C] from x [N, H, W * C]."""
    for unit in range(_count(bias, y, tile)):
        _unit(unit, x, bias, y, signs, read_signs, columns, rows, bend, factors, tile)


@compiled(parallel=True)
def _tiles_by_threads(x, bias, y, signs, read_signs, columns, rows, bend, factors, tile):
    """The same, the tiles shared out to the threads."""
    for unit in numba.prange(_count(bias, y, tile)):  # counts in unsigned numbers, whose quotients would be floats
        _unit(np.int64(unit), x, bias, y, signs, read_signs, columns, rows, bend, factors, tile)
