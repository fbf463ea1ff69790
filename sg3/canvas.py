"""Sizes of images: which ones the StyleGANs can make, and which square network each of them is kin to.

A network for a rectangle, or for a square whose side is no power of two, has the names and shapes of a square one,
whose side is its `img_resolution`; only the configuration, `img_size`, knows the canvas. Sizes are (height, width) in
pixels; people read and write W x H.

StyleGAN3   its layers are sampled at rates per unit of length, and the image of a square network is one unit wide:
            R pixels, its sampling rate. Another canvas is W / R x H / R units, at the same rates.
StyleGAN2   begins with a constant of h0 x w0, which k blocks double; squares begin with 4 x 4. The blocks have the
            names and channels of those of a square of 4 * 2^k pixels. The discriminator ends where StyleGAN2 begins.

No torch in here.
"""

from __future__ import annotations

from math import log2, sqrt
from typing import Any

Size = tuple[int, int]  # height, width

LOWEST = 16  # sampling rate of StyleGAN3's first layer, in samples per unit, whatever R
CONSTANT = 3  # pixels that the shorter side of StyleGAN2's constant has at least
SMALLEST = 16  # pixels of a side


def is_power(side: int) -> bool:
    """Whether it is a power of two."""
    return side > 0 and side & (side - 1) == 0


def is_plain(size: Size) -> bool:
    """Whether the size is a square of 2^n pixels, which every system trains on."""
    return size[0] == size[1] and is_power(size[0])


def sampling_rate(size: Size) -> int | None:
    """R of a StyleGAN3 that makes this size: the power of two nearest to its mean side, else half of that, of which
    both sides are multiples of R / 16; None if there is none."""
    nearest = _nearest_power(size)
    for rate in (nearest, nearest // 2):
        if rate >= LOWEST and all(side * LOWEST % rate == 0 for side in size):
            return rate
    return None


def doublings(size: Size) -> int:
    """k, how often StyleGAN2 doubles its constant: as often as leaves that a shorter side of 3 pixels at least."""
    k = 0
    while all(side % 2 ** (k + 1) == 0 and side >= CONSTANT * 2 ** (k + 1) for side in size):
        k += 1
    return k


def constant(size: Size) -> Size:
    """What StyleGAN2 begins with and the discriminator ends with: h0, w0."""
    k = doublings(size)
    return size[0] >> k, size[1] >> k


def nominal(size: Size) -> int:
    """Side of the square StyleGAN2 or discriminator whose layers this size takes."""
    return 4 << doublings(size)


def is_possible(size: Size) -> bool:
    """Whether the StyleGANs can be trained on images of this size: squares or rectangles whose sides are multiples of
    R / 16, of which StyleGAN2 makes at least as many doublings as of the smallest square."""
    return obstacle(size) is None


def obstacle(size: Size) -> str | None:
    """Why the StyleGANs cannot be trained on images of this size; None if they can.

    Halving R more than once would let more sizes in, but leave StyleGAN2's constant and the discriminator's end with
    thousands of places: 80 x 45 of 1280 x 720, whose matrix there would have 944 million numbers.
    """
    if min(size) < SMALLEST:
        return f"StyleGAN2 and 3 want sides of at least {SMALLEST} pixels"
    if sampling_rate(size) is not None and nominal(size) >= SMALLEST:
        return None
    step = max(_nearest_power(size) // 2 // LOWEST, SMALLEST // 4)
    return f"StyleGAN2 and 3 want sides that are multiples of {step} pixels at about this size"


def _nearest_power(size: Size) -> int:
    return 2 ** round(log2(sqrt(size[0] * size[1])))


def nearest_possible(size: Size) -> Size:
    """A possible size close to this one, of many doublings where that makes no side an eighth longer or shorter."""
    if is_possible(size):
        return size
    size = max(size[0], 1), max(size[1], 1)
    rate = 2 ** round(log2(max(sqrt(size[0] * size[1]), SMALLEST)))
    found = [(rate, rate)]
    for step in (max(rate // part, 4) for part in (4, 8, 16)):
        height, width = (max(SMALLEST, round(side / step) * step) for side in size)
        if is_possible((height, width)):
            found.append((height, width))
    changes = {near: max(abs(log2(a / b)) for a, b in zip(near, size, strict=True)) for near in found}
    close = [near for near in found if changes[near] <= log2(9 / 8)]
    return close[0] if close else min(found, key=changes.__getitem__)


def size_of(network: Any) -> Size:
    """Height and width of a network's images."""
    side = network.img_resolution
    return getattr(network, "img_size", None) or (side, side)


def shown_part(network: Any, visible: Size | None) -> Size | None:
    """Height and width `visible` of a network's images, None if that is all of them."""
    height, width = size_of(network)
    part = None if visible is None else (min(visible[0], height), min(visible[1], width))
    return None if part == (height, width) else part


def units_of(network: Any) -> tuple[float, float]:
    """Width and height of a StyleGAN3 network's images in its units, of which a square has one a side."""
    height, width = size_of(network)
    return width / network.img_resolution, height / network.img_resolution


def is_canvas(network: Any) -> bool:
    """Whether its images are another canvas than the square of its img_resolution."""
    size = getattr(network, "img_size", None)
    return size is not None and size != (network.img_resolution, network.img_resolution)


def middle(whole: Size, part: Size) -> tuple[slice, slice]:
    """Rows and columns of the part of this size, or of the whole if that is smaller, in the middle."""
    first = [max(all_of_it - wanted, 0) // 2 for all_of_it, wanted in zip(whole, part, strict=True)]
    return slice(first[0], first[0] + part[0]), slice(first[1], first[1] + part[1])


def spelled(size: Size) -> str:
    """W x H, as in `512 x 384`."""
    return f"{size[1]} x {size[0]}"


def checked(img_resolution: int, img_size: Any) -> Size | None:
    """The argument `img_size` of a network: a pair of whole numbers, None for a square of `img_resolution`.

    Raises ValueError for anything else.
    """
    if img_size is None:
        return None
    pair = list(img_size) if isinstance(img_size, (list, tuple)) else []
    if len(pair) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in pair):
        raise ValueError(f"img_size: got {img_size!r}, expected height and width in pixels")
    return None if pair == [img_resolution] * 2 else (pair[0], pair[1])
