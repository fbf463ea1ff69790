"""Average power spectra of images, as Karras et al. 2021 (Alias-Free GAN) compare networks with their data.

    P(f) = mean over images and channels of | FFT( window * (x - mean) / std ) |^2

x are pixels 0..255; mean and std are two numbers for the whole set, so that sets whitened by the same two can be
compared. The window is a Kaiser window in each direction, without which the borders of the image would leak over the
whole spectrum, scaled to a sum of squares of 1: white noise of variance 1 has P = 1, 0 dB, everywhere. Zeros are
appended up to `interp` times the size, which shows the spectrum at more points between the same frequencies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from sg3.canvas import Size, is_possible
from sg3.errors import DataError, UsageError
from sg3.run_folder import snapshots
from sg3.tools.files import Pixels, load_arrays, save_arrays
from sg3.transparency import has_alpha

Reals = NDArray[np.float64]


@dataclass(frozen=True)
class PixelStats:
    """Mean and standard deviation of pixels, 0..255: over all channels, and of each."""

    images: int
    mean: float
    std: float
    channel_mean: list[float]
    channel_std: list[float]


@dataclass(frozen=True)
class Spectrum:
    """`power` [S, S], float64, for frequencies in the order of `numpy.fft`: zero first, rows vertical. `image_size` is
    the side of the images in pixels; neighbouring entries are image_size / S cycles per image apart.

    Of images that are not square, `image_size` is height and width, and frequencies are in cycles per pixel: an image
    is of two lengths."""

    power: Reals
    image_size: int | Size

    @property
    def is_square(self) -> bool:
        """Whether the images are."""
        return isinstance(self.image_size, int)

    def decibels(self) -> Reals:
        """10 log10 of the power."""
        level: Reals = 10 * np.log10(np.maximum(self.power, np.finfo(np.float64).tiny))
        return level

    def smoothed(self, sigma: float) -> Spectrum:
        """The spectrum blurred, in decibels, by a Gaussian of `sigma` entries; the ends of the axes meet."""
        if sigma == 0:
            return self
        down, across = (np.exp(-2 * (np.pi * sigma * np.fft.fftfreq(side)) ** 2) for side in self.power.shape)
        level = np.fft.ifft2(np.fft.fft2(self.decibels()) * np.outer(down, across)).real
        return Spectrum(10 ** (level / 10), self.image_size)

    def slice(self, degrees: Literal[0, 45]) -> tuple[Reals, Reals]:
        """Frequencies in cycles per image and power in decibels, from zero outwards along the horizontal or diagonal.

        The horizontal ends at image_size / 2, the diagonal at image_size / sqrt(2). For square images.
        """
        assert isinstance(self.image_size, int)
        index = np.arange(len(self.power) // 2 + 1)
        frequency = (index * (self.image_size / len(self.power))).astype(np.float64)
        if degrees == 0:
            return frequency, self.decibels()[0, index]
        return frequency * sqrt(2), self.decibels()[index, index]

    def per_pixel(self, along: Literal["x", "y", "radius"]) -> tuple[Reals, Reals]:
        """Frequencies in cycles per pixel, 0 to 1/2, and power in decibels along an axis, or its mean over circles."""
        high, wide = self.power.shape
        if along != "radius":
            side = wide if along == "x" else high
            index = np.arange(side // 2 + 1)
            return index / side, self.decibels()[0, index] if along == "x" else self.decibels()[index, 0]
        radius = np.hypot(np.fft.fftfreq(high)[:, None], np.fft.fftfreq(wide)[None, :])
        rings = min(high, wide)
        ring = np.rint(radius * rings).astype(np.int64).ravel()
        count = np.bincount(ring)[: rings // 2 + 1]
        total = np.bincount(ring, self.power.ravel())[: rings // 2 + 1]
        level: Reals = 10 * np.log10(np.maximum(total / count, np.finfo(np.float64).tiny))
        return np.arange(rings // 2 + 1) / rings, level


def pixel_stats(images: Iterable[Pixels]) -> PixelStats:
    """Mean and standard deviation of uint8 images [H, W, C], with exact sums. Raises DataError without any."""
    count = pixels = 0
    sums: list[int] = []
    squares: list[int] = []
    for image in images:
        if count and image.shape[2] != len(sums):
            raise DataError(f"image {count} has {image.shape[2]} channels, the first has {len(sums)}")
        values = image.reshape(-1, image.shape[2]).astype(np.int64)
        sums = [a + b for a, b in zip(sums or [0] * image.shape[2], values.sum(axis=0).tolist(), strict=True)]
        square = (values**2).sum(axis=0).tolist()
        squares = [a + b for a, b in zip(squares or [0] * image.shape[2], square, strict=True)]
        pixels += len(values)
        count += 1
    if count == 0:
        raise DataError("no images to take statistics of")

    def std(total: int, square: int, n: int) -> float:
        return sqrt(n * square - total * total) / n  # integers up to the root: nothing cancels

    return PixelStats(
        images=count,
        mean=sum(sums) / (pixels * len(sums)),
        std=std(sum(sums), sum(squares), pixels * len(sums)),
        channel_mean=[total / pixels for total in sums],
        channel_std=[std(total, square, pixels) for total, square in zip(sums, squares, strict=True)],
    )


def power_spectrum(
    images: Iterable[Pixels],
    mean: float,
    std: float,
    *,
    beta: float = 8.0,
    interp: int = 4,
    device: torch.device | str = "cpu",
) -> Spectrum:
    """Average power spectrum of images [H, W, C], as described above; sides of the spectrum: H and W * interp.

    beta: shape of the Kaiser window, 0 for none, more for less leakage and less resolution. One image is in memory at
    a time; transform and average are float64. Raises DataError without images or for unequal ones, UsageError for
    std <= 0.
    """
    if not (std > 0 and np.isfinite([mean, std]).all()):
        raise UsageError(f"--mean={mean:g}, --std={std:g}: expected numbers as from `sg3 spectra stats`, std above 0")
    shape: tuple[int, ...] = ()
    window = total = torch.zeros(0)
    count = 0
    for count, image in enumerate(images, start=1):
        if count == 1:
            shape = image.shape
            window = _window(shape[0], shape[1], beta).to(device)
            total = torch.zeros(shape[0] * interp, shape[1] * interp // 2 + 1, dtype=torch.float64, device=device)
        if image.shape != shape or not (shape[0] == shape[1] or is_possible((shape[0], shape[1]))):
            others = "" if shape[0] == shape[1] else " or those of a size that networks have"
            raise DataError(f"image {count - 1}: {image.shape}, expected square images{others} like the first, {shape}")
        x = torch.from_numpy(image).to(device).permute(2, 0, 1).double()  # [C, H, W]
        x = (x - mean) / std * window
        half = torch.fft.rfft2(x, s=(shape[0] * interp, shape[1] * interp))  # [C, S, S' // 2 + 1]
        total += half.abs().square().mean(dim=0)
    if count == 0:
        raise DataError("no images to take the spectrum of")
    size = shape[0] if shape[0] == shape[1] else (shape[0], shape[1])
    return Spectrum(_whole_plane((total / count).cpu().numpy(), shape[1] * interp), size)


def _window(height: int, width: int, beta: float) -> torch.Tensor:
    down, across = (line / np.linalg.norm(line) for line in (np.kaiser(height, beta), np.kaiser(width, beta)))
    return torch.from_numpy(np.outer(down, across))


def _whole_plane(half: Reals, width: int) -> Reals:
    """The other half of a spectrum of real images: P(-f) = P(f)."""
    height = len(half)
    mirrored = half[-np.arange(height) % height][:, width - np.arange(half.shape[1], width)]
    return np.concatenate([half, mirrored], axis=1)


def save_spectrum(spectrum: Spectrum, path: Path) -> None:
    """Write an .npz with the keys `spectrum` and `image_size`, a side or height and width. Raises StorageError."""
    save_arrays(path, {"spectrum": spectrum.power, "image_size": np.array(spectrum.image_size)})


def load_spectrum(path: Path) -> Spectrum:
    """Read what `save_spectrum` wrote. Raises MissingInputError, DataError, StorageError."""
    arrays = load_arrays(path)
    try:
        power, sides = np.asarray(arrays["spectrum"], dtype=np.float64), np.asarray(arrays["image_size"])
        size: int | Size = int(sides) if sides.shape != (2,) else (int(sides[0]), int(sides[1]))
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{path}: not a spectrum of `sg3 spectra calc`") from None
    height, width = (size, size) if isinstance(size, int) else size
    is_whole = power.ndim == 2 and height >= 1 and width >= 1 and power.shape[0] * width == power.shape[1] * height
    if not is_whole or not np.all(power >= 0):
        raise DataError(f"{path}: not a spectrum: expected a square of positive numbers, got {power.shape}")
    return Spectrum(power, size)


@dataclass(frozen=True)
class ImageSource:
    """Images [H, W, C] one after the other, how many there will be, and the channels of what they come from."""

    images: Iterator[Pixels]
    count: int
    channels: int


def open_images(
    source: str, num: int | None, seed: int = 0, *, class_idx: int | None = None, batch: int = 4,
    device: torch.device | str = "cpu", alpha: bool = False,
) -> ImageSource:  # fmt: skip
    """The images of a dataset (a zip, or a folder that is not a run), or of a network: anything `sg3.load` takes.

    Dataset: `num` of its images, drawn by `seed`; all if None. Network: pictures of `num` latents drawn by `seed`,
    in 8 bits like a dataset's, so that both have the same rounding noise; of a conditional one, every class in turn or
    `class_idx`. Of images with alpha their premultiplied colours, or that alone if `alpha`. Raises UsageError for a
    network without `num`, DataError for `alpha` of images without, what opening raises.
    """
    path = Path(source)
    is_run = path.is_dir() and bool(snapshots(path))
    if (path.is_dir() and not is_run) or path.suffix.lower() == ".zip":
        found = _dataset_images(path, num, seed)
    elif num is None:
        raise UsageError("--num: needed, a network can make any number of images")
    else:
        found = _network_images(source, num, seed, class_idx, batch, device)
    if alpha and not has_alpha(found.channels):
        raise DataError(f"{source}: its images have no alpha; leave out --alpha")
    return replace(found, images=map(_plane if alpha else _premultiplied, found.images))


def _dataset_images(path: Path, num: int | None, seed: int) -> ImageSource:
    from sg3.data.dataset import ImageFolderDataset

    data = ImageFolderDataset(path, max_size=num, random_seed=seed)
    return ImageSource((data[i][0].transpose(1, 2, 0) for i in range(len(data))), len(data), data.num_channels)


def _network_images(
    source: str, num: int, seed: int, class_idx: int | None, batch: int, device: torch.device | str
) -> ImageSource:
    from sg3.formats import averaged_generator, load
    from sg3.sampling import class_labels, generate

    G = averaged_generator(load(source, device), source)
    rng = np.random.RandomState(seed)

    def images() -> Iterator[Pixels]:
        for start in range(0, num, batch):
            count = min(batch, num - start)
            labels = class_labels(G, class_idx, count) if class_idx is not None else torch.zeros(count, G.c_dim)
            if class_idx is None and G.c_dim:
                labels = torch.eye(G.c_dim)[torch.arange(start, start + count) % G.c_dim]
            yield from generate(G, torch.from_numpy(rng.randn(count, G.z_dim)), labels, batch=batch)

    if class_idx is not None:
        class_labels(G, class_idx, 1)  # complain now rather than at the first image
    return ImageSource(images(), num, G.img_channels)


def _premultiplied(pixels: Pixels) -> Pixels:
    """Colours times alpha, for images that have it: what is invisible has no spectrum."""
    if not has_alpha(pixels.shape[2]):
        return pixels
    return np.rint(pixels[:, :, :-1] * (pixels[:, :, -1:] / 255)).astype(np.uint8)


def _plane(pixels: Pixels) -> Pixels:
    return pixels[:, :, -1:]
