"""Geometry of the augmentation pipeline: affine maps in the plane, and resampling an image by one without aliasing.

Matrices are float64 [N, 3, 3] on the host and act on column vectors (x, y, 1), in pixels from the image's centre unless
said otherwise. They are inverse maps: they say where in the source an output pixel comes from, so the operation that
happens last is multiplied on the right.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from sg3.kernels import downsample2d, grid_sample, upsample2d

# Daubechies' least asymmetric wavelet of 6 vanishing moments, low-pass decomposition taps (PyWavelets: sym6).
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
EDGE = len(SYM6) // 4  # pixels that the filter reaches beyond an image, on each side

Margins = tuple[int, int, int, int]  # pixels added at the left, top, right, bottom


def translate(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Moves by (x, y), each [N]."""
    return _matrix([1, 0, x], [0, 1, y])


def scale(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Stretches by the factors (x, y), each [N]."""
    return _matrix([x, 0, 0], [0, y, 0])


def rotate(angle: np.ndarray) -> np.ndarray:
    """Turns from the x axis towards the y axis by [N] radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return _matrix([cos, -sin, 0], [sin, cos, 0])


def _matrix(first: list[np.ndarray | float], second: list[np.ndarray | float]) -> np.ndarray:
    entries = np.broadcast_arrays(*first, *second, 0.0, 0.0, 1.0)
    return np.stack(entries, axis=-1).reshape(-1, 3, 3)


def margins(inverse: np.ndarray, height: int, width: int) -> Margins:
    """How far the outputs of all samples reach beyond the source, with the filters' reach.

    Limited to one reflection of the image: what lies further out is 0.
    """
    x, y = (width - 1) / 2, (height - 1) / 2  # the outermost pixels' centres
    corners = np.array([[-x, x, x, -x], [-y, -y, y, y], [1, 1, 1, 1]])
    source = (inverse @ corners)[:, :2]  # [N, (x, y), 4]
    low, high = -source.min(axis=(0, 2)), source.max(axis=(0, 2))
    reach = np.array([low[0] - x, low[1] - y, high[0] - x, high[1] - y]) + 2 * EDGE
    left, top, right, bottom = np.ceil(reach.clip(0, [width - 1, height - 1] * 2)).astype(int).tolist()
    return left, top, right, bottom


def sampling_matrices(inverse: np.ndarray, height: int, width: int, margin: Margins) -> np.ndarray:
    """The map from places in `warp`'s output, before it is downsampled, to places in its upsampled source, [N, 2, 3].

    Both in torch's coordinates: -1 and 1 are the outer edges of the border pixels.
    """
    left, top, right, bottom = margin
    source = 2 * np.array([width + left + right, height + top + bottom])
    output = 2 * np.array([width + 2 * EDGE, height + 2 * EDGE])
    centre = np.array([width - 1, height - 1]) / 2

    # Upsampled pixel 2i lies on pixel i: sym6's weight is on a tap, not between two as a symmetric filter's would be.
    centred = _axes(0.5, -EDGE - centre) @ _axes(output / 2, (output - 1) / 2)
    normalised = _axes(2 / source, 1 / source - 1) @ _axes(2, 2 * (centre + np.array([left, top])))
    return (normalised @ inverse @ centred)[:, :2]


def _axes(factor: np.ndarray | float, offset: np.ndarray) -> np.ndarray:
    """[3, 3]: each axis times its factor plus its offset."""
    return np.block([[np.diag(np.broadcast_to(factor, 2)), offset[:, None]], [0.0, 0.0, 1.0]])


def warp(x: torch.Tensor, matrices: torch.Tensor, margin: Margins, taps: torch.Tensor) -> torch.Tensor:
    """Resample x [N, C, H, W] by `matrices` [N, 2, 3] (see `sampling_matrices`) of x's dtype.

    Reflected at its borders, upsampled, sampled bilinearly, downsampled; `taps` are a wavelet's. Wavelets being
    orthonormal, what is not moved comes back exactly.
    """
    n, c, h, w = x.shape
    left, top, right, bottom = margin
    x = reflect(reflect(x, 3, left, right), 2, top, bottom)
    x = upsample2d(x, taps, up=2)
    grid = F.affine_grid(matrices, [n, c, 2 * (h + 2 * EDGE), 2 * (w + 2 * EDGE)], align_corners=False)
    x = grid_sample(x, grid)
    return downsample2d(x, taps, down=2, padding=-2 * EDGE, flip_filter=True)


def reflect(x: torch.Tensor, dim: int, low: int, high: int) -> torch.Tensor:
    """Extend one axis by `low` pixels before and `high` behind, mirrored at the border pixels as often as needed."""
    size = x.shape[dim]
    period = max(2 * (size - 1), 1)
    place = torch.arange(-low, size + high, device=x.device).remainder(period)
    return x.index_select(dim, torch.minimum(place, period - place))
