"""Moving and turning images, and saying where the result is exact: Karras et al. 2021, Section 2 and Appendix E.

A generator is equivariant if moving what it draws gives the picture that moving its output would give. To measure that,
these operators move an output as ideally as a finite image allows:

    translate_integer      whole pixels                          EQ-T
    translate_fractional   Lanczos interpolation                 EQ-T frac
    rotate_fractional      band-limited resampling               EQ-R
    pseudo_rotate_...      what a turned image loses, no turn    EQ-R, the other side of the comparison

Each returns (image, mask): the mask is 1 where no pixel from outside of the image had a share in the result.
"""

from __future__ import annotations

from math import cos, floor, sin

import torch

from sg3.kernels import filter2d, grid_sample, upfirdn2d, upsample2d

ImageAndMask = tuple[torch.Tensor, torch.Tensor]

LANCZOS_A = 3  # lobes of the interpolating kernel to each side, in pixels
ROTATE_A = 2 * LANCZOS_A  # reach of the rotation's filter: two such windows, convolved
ROTATE_UP = 4  # the rotated image is read, bilinearly, from one with this many samples per pixel
SINC_REACH = 64  # pixels after which the ideal filters are cut off before they are convolved


def translate_integer(x: torch.Tensor, tx: float, ty: float) -> ImageAndMask:
    """Move images [N, C, H, W] right and down by the whole number of pixels nearest to (tx, ty), zeros moving in.

    tx and ty are fractions of the width and height. Returns image and mask [N, C, H, W].
    """
    _, _, h, w = x.shape
    dx, dy = round(tx * w), round(ty * h)
    z, mask = torch.zeros_like(x), x.new_zeros(h, w)
    if abs(dx) < w and abs(dy) < h:
        to = (slice(max(dy, 0), h + min(dy, 0)), slice(max(dx, 0), w + min(dx, 0)))
        source = (slice(max(-dy, 0), h + min(-dy, 0)), slice(max(-dx, 0), w + min(-dx, 0)))
        z[:, :, *to] = x[:, :, *source]
        mask[to] = 1
    return z, mask.expand_as(x)


def translate_fractional(x: torch.Tensor, tx: float, ty: float) -> ImageAndMask:
    """Move images [N, C, H, W] right and down by (tx, ty), with Lanczos interpolation (a = 3, 6 taps to an axis).

    tx and ty are fractions of the width and height. Returns image and mask [N, C, H, W].
    """
    _, _, h, w = x.shape
    z, mask = x, x.new_ones(h, w)
    for axis, (size, shift) in enumerate(((w, tx * w), (h, ty * h))):
        if abs(shift) >= size + LANCZOS_A:  # out of sight
            return torch.zeros_like(x), x.new_zeros(1).expand_as(x)
        whole = floor(shift)
        # Output i wants position i - shift and reads the 6 pixels i - whole + (2, 1, 0, -1, -2, -3).
        offsets = torch.arange(LANCZOS_A - 1, -LANCZOS_A - 1, -1, dtype=torch.float64)
        taps = _lanczos(offsets + (shift - whole)).to(torch.float32)
        taps = (taps / taps.sum()).to(x.device)
        pads = [LANCZOS_A + whole, LANCZOS_A - 1 - whole]
        z = upfirdn2d(z, taps[None, :], padding=[*pads, 0, 0]) if axis == 0 else \
            upfirdn2d(z, taps[:, None], padding=[0, 0, *pads])
        first, last = whole + LANCZOS_A, size - 1 + whole - (LANCZOS_A - 1)
        index = torch.arange(size, device=x.device)
        inside = (index >= first) & (index <= last)
        mask = mask * (inside[None, :] if axis == 0 else inside[:, None])
    return z, mask.expand_as(x)


def rotate_fractional(x: torch.Tensor, angle: float) -> ImageAndMask:
    """Turn images [N, C, H, W] counterclockwise by `angle` radians about their centre.

    The image is interpolated with a filter that passes only those frequencies that both the old and the new pixel grid
    can hold. Returns image and mask [N, C, H, W].
    """
    _, _, h, w = x.shape
    taps = _rotation_filter(angle, ROTATE_UP, x.device)
    # Without a border of zeros, pixels just outside of the image would miss the ringing of those inside.
    border = ROTATE_A
    fine = upsample2d(torch.nn.functional.pad(x, [border] * 4), taps, up=ROTATE_UP)

    # Where each output pixel comes from, in samples of the fine image, whose pixel i stands at sample 4 i + 2.
    gy = torch.arange(h, device=x.device, dtype=torch.float64)[:, None] - (h - 1) / 2
    gx = torch.arange(w, device=x.device, dtype=torch.float64)[None, :] - (w - 1) / 2
    c, s = cos(angle), sin(angle)
    column = (c * gx - s * gy + (w - 1) / 2) * ROTATE_UP + ROTATE_UP // 2  # [H, W]
    row = (s * gx + c * gy + (h - 1) / 2) * ROTATE_UP + ROTATE_UP // 2

    offset = border * ROTATE_UP
    grid = torch.stack([_normalized(column + offset, fine.shape[3]), _normalized(row + offset, fine.shape[2])], dim=2)
    z = grid_sample(fine, grid.to(x.dtype).expand(len(x), -1, -1, -1))

    margin = ROTATE_A * ROTATE_UP
    inside = torch.ones_like(column, dtype=torch.bool)
    for place, size in ((column, w), (row, h)):
        nearest = place.round()
        inside &= (nearest >= margin) & (nearest <= size * ROTATE_UP - margin - 1)
    return z, inside.to(x.dtype).expand_as(x)


def pseudo_rotate_fractional(x: torch.Tensor, angle: float) -> ImageAndMask:
    """Filter images [N, C, H, W] as `rotate_fractional` by the same angle would have filtered them, without turning.

    What a generator draws turned by `angle` is compared with rotate_fractional(x, angle) after this, so that both have
    gone through a filter for the same two pixel grids: seen from the turned one, the other is turned by -angle. With
    one tap per pixel the filter is a rough one, which raises frequencies near Nyquist by up to a third; it is the
    original's. Returns image and mask [N, C, H, W].
    """
    _, _, h, w = x.shape
    z = filter2d(x, _rotation_filter(-angle, 1, x.device))
    margin = ROTATE_A - 1
    mask = x.new_zeros(h, w)
    mask[margin : max(h - margin, margin), margin : max(w - margin, margin)] = 1
    return z, mask.expand_as(x)


def _rotation_filter(angle: float, up: int, device: torch.device) -> torch.Tensor:
    """Low-pass filter [taps, taps], `up` taps per pixel, for a grid and one turned by `angle` (Appendix E.3).

    Its ideal is the convolution of two square low-pass filters, sinc(x) sinc(y), one of them turned: the product of
    their spectra is the intersection of the squares. The window is the convolution of their Lanczos windows, so that
    either of the filters sees the one it would have alone.
    """
    ticks = torch.arange(-SINC_REACH * up, SINC_REACH * up, dtype=torch.float64, device=device) / up
    x, y = ticks[None, :], ticks[:, None]
    turned_x, turned_y = cos(angle) * x + sin(angle) * y, cos(angle) * y - sin(angle) * x
    ideal = _convolve(torch.sinc(x) * torch.sinc(y), torch.sinc(turned_x) * torch.sinc(turned_y))
    window = _convolve(_window(x) * _window(y), _window(turned_x) * _window(turned_y))

    reach = ROTATE_A * up  # the taps at exactly this distance are zero
    middle = SINC_REACH * up
    taps = (ideal * window)[middle - reach : middle + reach, middle - reach : middle + reach]
    # Each of the up * up sub-grids of taps makes pixels of its own: all must keep the brightness.
    phases = taps.reshape(2 * ROTATE_A, up, 2 * ROTATE_A, up)
    taps = (phases / (phases.sum(dim=(0, 2), keepdim=True) * up**2)).reshape(2 * reach, 2 * reach)
    return taps[1:, 1:].to(torch.float32)


def _convolve(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Circular convolution of two arrays [n, n] whose origin is element [n / 2, n / 2]."""
    product = torch.fft.rfft2(torch.fft.ifftshift(a)) * torch.fft.rfft2(torch.fft.ifftshift(b))
    return torch.fft.fftshift(torch.fft.irfft2(product, s=list(a.shape)))


def _window(x: torch.Tensor) -> torch.Tensor:
    return torch.sinc(x / LANCZOS_A) * (x.abs() < LANCZOS_A)


def _lanczos(x: torch.Tensor) -> torch.Tensor:
    return torch.sinc(x) * _window(x)


def _normalized(sample: torch.Tensor, size: int) -> torch.Tensor:
    """Sample numbers -> -1..1, the outer edges of the first and last sample."""
    return (2 * sample + 1) / size - 1
