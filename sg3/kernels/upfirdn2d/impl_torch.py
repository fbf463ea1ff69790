"""upfirdn2d on plain PyTorch (impl='torch'): depthwise convolutions without inserted zeros and discarded samples.

On a CPU the planes of a batch go in portions that its caches hold, many enough to fill the vector units, and with the
channels last, the form in which oneDNN takes them as they are.
A separable filter of few taps runs as its outer product, one pass instead of two. (Measured on a CPU with AVX-512, as
were products with banded matrices, which are slower.)

filtered_lrelu's impl_torch resamples with the same functions. Nothing here is differentiable; the ops that use it are
registered with derivatives of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from sg3.kernels.memory_format import is_channels_last, new_image

MOST_TAPS_2D = 8            # of a separable filter, up to which one two-dimensional pass is faster than two
SAMPLES_AT_ONCE_CPU = 2**20  # at the higher of the rates, so as to stay in cache
SAMPLES_AT_ONCE_GPU = 2**27  # a bound on memory
LANES = 16                  # of float32 in a vector: portions are multiples of it


def forward(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip_filter: bool,
    gain: float,
    size: tuple[int, int],
    channels_last: bool,
) -> torch.Tensor:
    """[N, C, H, W] -> [N, C, *size], dense, channels_last or contiguous; the arguments as in the op."""
    steps = passes(f, up, down, padding, flip_filter, gain, x)
    area = max(x.shape[2] * up[1] * x.shape[3] * up[0], size[0] * size[1])
    y = new_image(x, *size, channels_last=channels_last)
    for place in portions(x, area):
        planes = place.read(x)
        if len(steps) > 1:  # what one pass wins by a format of its own is lost in changing it
            planes = prepared(planes)
        place.write(y, resample(planes, steps))
    return y


@dataclass(frozen=True)
class Portion:
    """Some channels of one image, or several whole images, of [N, C, H, W].

    `merged`: they are worked on as the channels of a single image, [1, P, H, W].
    """

    images: slice
    channels: slice
    merged: bool

    def read(self, x: torch.Tensor) -> torch.Tensor:
        """This portion of x; a view where the memory format allows."""
        part = x[self.images, self.channels]
        return part.reshape(1, -1, *x.shape[2:]) if self.merged else part

    def write(self, y: torch.Tensor, planes: torch.Tensor) -> None:
        """The opposite: y's portion becomes `planes`."""
        part = y[self.images, self.channels]
        part.copy_(planes.reshape(part.shape))

    def of_channels(self, values: torch.Tensor) -> torch.Tensor:
        """What [C] values have for this portion, to be broadcast."""
        values = values[self.channels]
        images = self.images.stop - self.images.start
        return (values.repeat(images) if self.merged else values)[:, None, None]


def portions(x: torch.Tensor, area: int) -> Iterator[Portion]:
    """Which planes of x [N, C, H, W] to work on together, one portion after the other. `area` is how many samples a
    plane comes to have at the highest rate."""
    n, c = x.shape[:2]
    count = max(SAMPLES_AT_ONCE_GPU // area, 1) if x.is_cuda else max(SAMPLES_AT_ONCE_CPU // area // LANES, 1) * LANES
    images, channels = max(count // c, 1), min(count, c)
    merged = c < LANES or not is_channels_last(x)
    for image in range(0, n, images):
        for channel in range(0, c, channels):
            yield Portion(
                slice(image, min(image + images, n)), slice(channel, min(channel + channels, c)), merged
            )


def prepared(planes: torch.Tensor) -> torch.Tensor:
    """The memory format in which the convolutions are fast."""
    return planes if planes.is_cuda else planes.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Pass:
    """One convolution of a resampling: a 2-D kernel as `resample` wants it, and upfirdn2d's geometry, [x, y]."""

    kernel: torch.Tensor  # [taps_y, taps_x]
    up: tuple[int, int]
    down: tuple[int, int]
    padding: tuple[int, int, int, int]


def passes(
    f: torch.Tensor | None,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip_filter: bool,
    gain: float,
    like: torch.Tensor,
    post_gain: float = 1.0,
) -> list[Pass]:
    """upfirdn2d as one pass, or as one along x and one along y, for images of `like`'s dtype.

    `gain` scales the filter in its own precision, as the reference does, `post_gain` in `like`'s.
    """
    if f is None:
        f = torch.ones([1, 1], dtype=torch.float32, device=like.device)
    f = (f * gain ** (f.ndim / 2)).to(like.dtype)
    if flip_filter:
        f = f.flip(list(range(f.ndim)))
    if f.ndim == 2 or f.shape[0] <= MOST_TAPS_2D:
        steps = [Pass((torch.outer(f, f) if f.ndim == 1 else f) * post_gain, up, down, padding)]
    else:
        x0, x1, y0, y1 = padding
        steps = [
            Pass(f[None, :], (up[0], 1), (down[0], 1), (x0, x1, 0, 0)),
            Pass(f[:, None] * post_gain, (1, up[1]), (1, down[1]), (0, 0, y0, y1)),
        ]
    return [  # conv2d correlates, its transpose convolves
        step if step.up != (1, 1) else replace(step, kernel=step.kernel.flip([0, 1]).contiguous()) for step in steps
    ]


def resample(planes: torch.Tensor, steps: list[Pass]) -> torch.Tensor:
    """upfirdn2d of a portion, [1, P, H, W] or [images, channels, H, W]."""
    for step in steps:
        if step.kernel.numel() == 1 and step.up == step.down == (1, 1):
            planes = _pad_or_crop(planes * step.kernel.reshape([]), step.padding)
        elif step.up == (1, 1):
            planes = _correlate(planes, step)
        else:
            planes = _spread(planes, step)
    return planes


def _correlate(x: torch.Tensor, step: Pass) -> torch.Tensor:
    """Without upsampling: a strided convolution."""
    taps_y, taps_x = step.kernel.shape
    x, inner_x, columns = _before_conv(x, 3, step.padding[:2], taps_x, step.down[0])
    x, inner_y, rows = _before_conv(x, 2, step.padding[2:], taps_y, step.down[1])
    kernel = step.kernel.expand(x.shape[1], 1, -1, -1)
    x = F.conv2d(x, kernel, stride=(step.down[1], step.down[0]), padding=(inner_y, inner_x), groups=x.shape[1])
    return x[:, :, rows, columns]


def _spread(x: torch.Tensor, step: Pass) -> torch.Tensor:
    """With upsampling: a transposed convolution, which spreads every sample over the taps.

    So its output begins taps - 1 samples before the first one of an unpadded upfirdn2d and ends at the last sample's
    last tap. The difference has to go; the convolution leaves some of it out itself.
    """
    taps_y, taps_x = step.kernel.shape
    up, (x0, x1, y0, y1) = step.up, step.padding
    x, left, right = _without_unseen(x, 3, taps_x - 1 - x0, taps_x - up[0] - x1, taps_x, up[0])
    x, top, bottom = _without_unseen(x, 2, taps_y - 1 - y0, taps_y - up[1] - y1, taps_y, up[1])
    # More than half a kernel has no fast code in oneDNN.
    inner_x, inner_y = max(min(left, right, taps_x // 2), 0), max(min(top, bottom, taps_y // 2), 0)
    kernel = step.kernel.expand(x.shape[1], 1, -1, -1)
    x = F.conv_transpose2d(x, kernel, stride=(up[1], up[0]), padding=(inner_y, inner_x), groups=x.shape[1])
    x = _pad_or_crop(x, (inner_x - left, inner_x - right, inner_y - top, inner_y - bottom))
    return x[:, :, :: step.down[1], :: step.down[0]]


def _without_unseen(
    x: torch.Tensor, dim: int, low: int, high: int, taps: int, up: int
) -> tuple[torch.Tensor, int, int]:
    """x without samples whose taps all lie in what goes at either end, and what is left of that to go."""
    first, last = (max((cut - taps) // up + 1, 0) for cut in (low, high))
    first = min(first, x.shape[dim] - 1)
    last = min(last, x.shape[dim] - 1 - first)
    if first or last:
        x = x.narrow(dim, first, x.shape[dim] - first - last)
    return x, low - first * up, high - last * up


def _before_conv(
    x: torch.Tensor, dim: int, padding: tuple[int, ...], taps: int, down: int
) -> tuple[torch.Tensor, int, slice]:
    """Prepare one axis for a convolution of stride `down`, whose own padding is the same on both sides.

    Returns x, cropped or padded only if need be, the convolution's padding, and which of its outputs to keep: a copy of
    x with a margin costs more than some outputs too many.
    """
    low, high = padding
    count = (x.shape[dim] + low + high - taps) // down + 1
    skip = max(-((low - high) // down), 0)  # whole steps that bring the left margin to at least the right one
    inner = low + skip * down
    if low >= 0 and inner <= taps // 2 and inner >= high:  # beyond half a kernel, oneDNN is slow
        return x, inner, slice(skip, skip + count)
    margins = (low, high, 0, 0) if dim == 3 else (0, 0, low, high)
    return _pad_or_crop(x, margins), 0, slice(0, count)


def _pad_or_crop(x: torch.Tensor, padding: tuple[int, int, int, int]) -> torch.Tensor:
    """As in the reference, but without a copy where nothing is padded."""
    x0, x1, y0, y1 = padding
    if max(padding) > 0:
        x = F.pad(x, [max(x0, 0), max(x1, 0), max(y0, 0), max(y1, 0)])
    return x[:, :, max(-y0, 0) : x.shape[2] - max(-y1, 0), max(-x0, 0) : x.shape[3] - max(-x1, 0)]
