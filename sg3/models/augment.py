"""The augmentation pipeline of adaptive discriminator augmentation (ADA).

Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", Appendix B. What the discriminator
sees, real or generated, passes through

    pixel blitting -> geometry -> colour -> image-space filter -> noise -> cutout

each operation happening to a sample with probability multiplier * p. The parameters are drawn on the host, so shapes
are known there and nothing waits for the device; see `augment_draws`, `augment_geometry` and `augment_color`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite, pi, sqrt
from typing import Any

import numpy as np
import torch
from torch import nn

from sg3.device import upload
from sg3.errors import UsageError
from sg3.kernels import setup_filter
from sg3.kernels.arguments import check_image, no_autocast
from sg3.models import augment_color as color
from sg3.models import augment_geometry as geometry
from sg3.models.augment_draws import BANDS, Draws
from sg3.transparency import has_alpha

__all__ = ["SPECS", "AugmentPipe", "Augmentations"]

_BLIT = {"xflip": 1.0, "rotate90": 1.0, "xint": 1.0}
_GEOM = {"scale": 1.0, "rotate": 1.0, "aniso": 1.0, "xfrac": 1.0}
_COLOR = {"brightness": 1.0, "contrast": 1.0, "lumaflip": 1.0, "hue": 1.0, "saturation": 1.0}
_FILTER, _NOISE, _CUTOUT = {"imgfilter": 1.0}, {"noise": 1.0}, {"cutout": 1.0}

SPECS: dict[str, dict[str, float]] = {
    "blit": _BLIT,
    "geom": _GEOM,
    "color": _COLOR,
    "filter": _FILTER,
    "noise": _NOISE,
    "cutout": _CUTOUT,
    "bg": {**_BLIT, **_GEOM},
    "bgc": {**_BLIT, **_GEOM, **_COLOR},
    "bgcf": {**_BLIT, **_GEOM, **_COLOR, **_FILTER},
    "bgcfn": {**_BLIT, **_GEOM, **_COLOR, **_FILTER, **_NOISE},
    "bgcfnc": {**_BLIT, **_GEOM, **_COLOR, **_FILTER, **_NOISE, **_CUTOUT},
    "r3gan": {**_BLIT, **_GEOM, **dict.fromkeys(_COLOR, 0.5), **_CUTOUT},
}
"""Multipliers by the paper's names for sets of operations; `bgc` is what ADA trains with, `r3gan` R3GAN."""


@dataclass(frozen=True)
class Augmentations:
    """What `AugmentPipe.draw` decided for a batch. A part is None where it would leave every sample as it is.

    shape      (N, C, H, W) of the images it is for
    inverse    [N, 2, 3] float32, where the output's pixels come from, see `augment_geometry.sampling_matrices`
    margins    pixels that the batch needs beyond its borders: left, top, right, bottom
    color      [N, K, K + 1] float32, linear part and offset of the K colours
    bands      [N, 4] float32, gains of the frequency bands
    noise      [N] float32, standard deviations
    cutout     [N, 4] int64, the boxes' left, top, right, bottom; right and bottom exclusive
    """

    shape: tuple[int, int, int, int]
    inverse: torch.Tensor | None = None
    margins: geometry.Margins = (0, 0, 0, 0)
    color: torch.Tensor | None = None
    bands: torch.Tensor | None = None
    noise: torch.Tensor | None = None
    cutout: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> Augmentations:
        """The same on a device; copies to a GPU are asynchronous."""
        device = torch.device(device)
        return replace(
            self,
            inverse=_moved(self.inverse, device),
            color=_moved(self.color, device),
            bands=_moved(self.bands, device),
            noise=_moved(self.noise, device),
            cutout=_moved(self.cutout, device),
        )


class AugmentPipe(nn.Module):
    """Augments images; differentiable any number of times with respect to them.

    The first argument of each operation multiplies the probability `p` (a buffer, 1 at first); 0 disables it.

        xflip, rotate90                   mirror; turn by a multiple of 90 degrees, of 180 what is not square
        xint, xint_max                    shift by whole pixels, up to this part of the size
        scale, scale_std                  zoom, standard deviation of log2
        rotate, rotate_max                turn, up to this part of 180 degrees
        aniso, aniso_std                  stretch along x by what y shrinks, log2
        xfrac, xfrac_std                  shift, standard deviation as a part of the size
        brightness, brightness_std        add to all channels
        contrast, contrast_std            multiply all channels, log2
        lumaflip                          reflect brightness, keep hues
        hue, hue_max                      turn hues, up to this part of 180 degrees
        saturation, saturation_std        scale the distance from grey, log2
        imgfilter, _bands, _std           amplify frequency bands, log2; `imgfilter_bands` multiplies each one's
                                          probability
        noise, noise_std                  add white noise, of a half-normal strength
        cutout, cutout_size               set a box to 0, this part of the size

    One channel is grey: hue and saturation do nothing. Two channels are grey and alpha, four RGB and alpha, both
    premultiplied (`sg3.transparency`): geometry and filter act on all channels, colour and noise as they would on the
    straight colours and leave alpha alone, and what is cut out or beyond the image is transparent. With more channels,
    colour is refused.

    A batch that an operation happens to leave alone skips it. For geometry and filter the original computes even then
    what gives the same images back, up to float32 rounding.
    """

    p: torch.Tensor
    Hz_geom: torch.Tensor
    Hz_fbank: torch.Tensor

    def __init__(
        self,
        xflip: float = 0,
        rotate90: float = 0,
        xint: float = 0,
        xint_max: float = 0.125,
        scale: float = 0,
        rotate: float = 0,
        aniso: float = 0,
        xfrac: float = 0,
        scale_std: float = 0.2,
        rotate_max: float = 1,
        aniso_std: float = 0.2,
        xfrac_std: float = 0.125,
        brightness: float = 0,
        contrast: float = 0,
        lumaflip: float = 0,
        hue: float = 0,
        saturation: float = 0,
        brightness_std: float = 0.2,
        contrast_std: float = 0.5,
        hue_max: float = 1,
        saturation_std: float = 1,
        imgfilter: float = 0,
        imgfilter_bands: Sequence[float] = (1, 1, 1, 1),
        imgfilter_std: float = 1,
        noise: float = 0,
        cutout: float = 0,
        noise_std: float = 0.1,
        cutout_size: float = 0.5,
    ) -> None:
        super().__init__()
        if len(imgfilter_bands) != BANDS:
            raise ValueError(f"imgfilter_bands: got {len(imgfilter_bands)} values, expected {BANDS}")
        settings: dict[str, float] = {
            "xflip": xflip, "rotate90": rotate90, "xint": xint, "xint_max": xint_max,
            "scale": scale, "rotate": rotate, "aniso": aniso, "xfrac": xfrac,
            "scale_std": scale_std, "rotate_max": rotate_max, "aniso_std": aniso_std, "xfrac_std": xfrac_std,
            "brightness": brightness, "contrast": contrast, "lumaflip": lumaflip, "hue": hue, "saturation": saturation,
            "brightness_std": brightness_std, "contrast_std": contrast_std, "hue_max": hue_max,
            "saturation_std": saturation_std, "imgfilter": imgfilter, "imgfilter_std": imgfilter_std,
            "noise": noise, "cutout": cutout, "noise_std": noise_std, "cutout_size": cutout_size,
        }  # fmt: skip
        for name, value in [*settings.items(), *(("imgfilter_bands", value) for value in imgfilter_bands)]:
            if not (isfinite(value) and value >= 0):
                raise ValueError(f"{name}: got {value}, expected a finite number >= 0")
        self.init_args: tuple[Any, ...] = ()
        self.init_kwargs: dict[str, Any] = {**settings, "imgfilter_bands": list(imgfilter_bands)}

        self.xflip, self.rotate90 = float(xflip), float(rotate90)
        self.xint, self.xint_max = float(xint), float(xint_max)
        self.scale, self.scale_std = float(scale), float(scale_std)
        self.rotate, self.rotate_max = float(rotate), float(rotate_max)
        self.aniso, self.aniso_std = float(aniso), float(aniso_std)
        self.xfrac, self.xfrac_std = float(xfrac), float(xfrac_std)
        self.brightness, self.brightness_std = float(brightness), float(brightness_std)
        self.contrast, self.contrast_std = float(contrast), float(contrast_std)
        self.lumaflip = float(lumaflip)
        self.hue, self.hue_max = float(hue), float(hue_max)
        self.saturation, self.saturation_std = float(saturation), float(saturation_std)
        self.imgfilter, self.imgfilter_std = float(imgfilter), float(imgfilter_std)
        self.imgfilter_bands = list(imgfilter_bands)
        self.noise, self.noise_std = float(noise), float(noise_std)
        self.cutout, self.cutout_size = float(cutout), float(cutout_size)

        self.register_buffer("p", torch.ones([]))
        self.register_buffer("Hz_geom", setup_filter(geometry.SYM6))
        self.register_buffer("Hz_fbank", color.filter_bank())

    def draw(
        self, rngs: Sequence[np.random.Generator], height: int, width: int, channels: int, p: float
    ) -> Augmentations:
        """Augmentations for len(rngs) images [channels, height, width], on the CPU.

        Sample i depends on rngs[i] alone, from which it takes the same count of numbers whatever is enabled; `p`
        decides only which operations happen. Raises UsageError for a number of channels that colour is not defined
        for, ValueError for a p that is no probability.
        """
        if not 0 <= p <= 1:
            raise ValueError(f"p: got {p}, expected a probability")
        return self._decide(Draws.random(rngs, p), height, width, channels)

    def forward(
        self,
        images: torch.Tensor,
        augmentations: Augmentations | None = None,
        debug_percentile: float | None = None,
    ) -> torch.Tensor:
        """images [N, C, H, W] in -1..1 -> the same shape and dtype; half precision is computed in float32.

        Without `augmentations` (from `draw`) draws them itself, with the buffer `p` (on a GPU, reading it waits for
        the device) and from torch's default CPU generator. With `debug_percentile`, between 0 and 1, all enabled
        operations happen, each parameter at this percentile (see `Draws.at_percentile`), and nothing is drawn but the
        noise: its numbers always come from torch's default generator of the images' device.

        Raises ValueError or TypeError for images that the augmentations are not for, UsageError as `draw` does.
        """
        check_image("images", images)
        n, c, h, w = images.shape
        if debug_percentile is not None:
            if augmentations is not None:
                raise ValueError("debug_percentile: replaces drawn augmentations; pass one of the two")
            if not 0 < debug_percentile < 1:
                raise ValueError(f"debug_percentile: got {debug_percentile}, expected a number between 0 and 1")
            augmentations = self._decide(Draws.at_percentile(n, debug_percentile), h, w, c)
        elif augmentations is None:
            seeds = torch.randint(2**63 - 1, [n]).tolist()
            rngs = [np.random.Generator(np.random.Philox(seed)) for seed in seeds]
            augmentations = self.draw(rngs, h, w, c, min(float(self.p), 1.0))
        elif augmentations.shape != images.shape:
            raise ValueError(f"images: got shape {list(images.shape)}, augmentations for {list(augmentations.shape)}")

        with no_autocast(images):
            dtype = torch.promote_types(images.dtype, torch.float32)
            return self._augment(images.to(dtype), augmentations.to(images.device)).to(images.dtype)

    def _augment(self, x: torch.Tensor, chosen: Augmentations) -> torch.Tensor:
        """x: [N, C, H, W], float32 or float64."""
        if chosen.inverse is not None:
            matrices, margins = chosen.inverse.to(x.dtype), chosen.margins
            if has_alpha(x.shape[1]):  # what lies far outside is transparent: -1, not 0
                x = geometry.warp(x + 1, matrices, margins, self.Hz_geom) - 1
            else:
                x = geometry.warp(x, matrices, margins, self.Hz_geom)
        if chosen.color is not None:
            x = color.recolor(x, chosen.color.to(x.dtype))
        if chosen.bands is not None:
            x = color.filter_bands(x, chosen.bands.to(x.dtype), self.Hz_fbank)
        if chosen.noise is not None:
            x = color.add_noise(x, chosen.noise.to(x.dtype))
        if chosen.cutout is not None:
            left, top, right, bottom = chosen.cutout[:, :, None].unbind(dim=1)  # each [N, 1]
            columns, rows = (torch.arange(size, device=x.device) for size in (x.shape[3], x.shape[2]))
            inside_x = (columns >= left) & (columns < right)  # [N, W]
            inside_y = (rows >= top) & (rows < bottom)  # [N, H]
            nothing = -1 if has_alpha(x.shape[1]) else 0
            x = x.masked_fill((inside_y[:, :, None] & inside_x[:, None, :])[:, None], nothing)
        return x

    def _decide(self, draws: Draws, height: int, width: int, channels: int) -> Augmentations:
        """From random numbers to what the device needs."""
        result = Augmentations((draws.count, channels, height, width))
        inverse = self.inverse_geometry(draws, height, width)
        if not np.array_equal(inverse, _identities(inverse)):
            margins = geometry.margins(inverse, height, width)
            matrices = geometry.sampling_matrices(inverse, height, width, margins)
            result = replace(result, inverse=_float32(matrices), margins=margins)

        matrix = self.color_matrices(draws, channels)
        if not np.array_equal(matrix, _identities(matrix)):
            if channels <= 2:  # grey is (g, g, g), and the result's mean
                rows = matrix[:, :3].mean(axis=1, keepdims=True)
                matrix = np.concatenate([rows[:, :, :3].sum(axis=2, keepdims=True), rows[:, :, 3:]], axis=2)
            result = replace(result, color=_float32(matrix[:, :3]))

        gains = self.band_gains(draws)
        if not np.all(gains == 1):
            result = replace(result, bands=_float32(gains))

        if self.noise > 0 and draws.count > 0:  # drawn even if it is 0 for all: torch's generator moves on alike
            strength = draws.half_normal("noise", self.noise_std)
            result = replace(result, noise=_float32(draws.where("noise", self.noise, strength, 0)))

        boxes = self.cutout_boxes(draws, height, width)
        if np.any(boxes):
            result = replace(result, cutout=torch.from_numpy(boxes))
        return result

    def inverse_geometry(self, draws: Draws, height: int, width: int) -> np.ndarray:
        """Where output pixels come from, [N, 3, 3] in pixels from the centre: the product of all inverse operations."""
        still = np.zeros(draws.count)
        inverse = np.tile(np.eye(3), [draws.count, 1, 1])
        if self.xflip > 0:
            flipped = draws.where("xflip", self.xflip, draws.choice("xflip", 2), 0)
            inverse = inverse @ geometry.scale(1 - 2 * flipped, still + 1)
        if self.rotate90 > 0:
            quarters = draws.choice("rotate90", 4) if height == width else 2 * draws.choice("rotate90", 2)
            quarters = draws.where("rotate90", self.rotate90, quarters, 0)
            inverse = inverse @ geometry.rotate(quarters * (pi / 2))
        if self.xint > 0:
            x, y = (
                draws.where("xint", self.xint, np.round(draws.uniform(f"xint_{axis}", self.xint_max) * size), 0)
                for axis, size in (("x", width), ("y", height))
            )
            inverse = inverse @ geometry.translate(-x, -y)
        if self.scale > 0:
            factor = draws.where("scale", self.scale, draws.log2_normal("scale", self.scale_std), 1)
            inverse = inverse @ geometry.scale(1 / factor, 1 / factor)
        inverse = inverse @ self._inverse_rotation(draws, "rotate_before")
        if self.aniso > 0:
            factor = draws.where("aniso", self.aniso, draws.log2_normal("aniso", self.aniso_std), 1)
            inverse = inverse @ geometry.scale(1 / factor, factor)
        inverse = inverse @ self._inverse_rotation(draws, "rotate_after")
        if self.xfrac > 0:
            x, y = (
                draws.where("xfrac", self.xfrac, draws.normal(f"xfrac_{axis}", self.xfrac_std) * size, 0)
                for axis, size in (("x", width), ("y", height))
            )
            inverse = inverse @ geometry.translate(-x, -y)
        return inverse

    def _inverse_rotation(self, draws: Draws, name: str) -> np.ndarray:
        """One of the two rotations; that at least one of them happens has the probability rotate * p."""
        probability = 1 - sqrt(max(1 - self.rotate * draws.p, 0))
        angle = draws.where_probability(name, probability, draws.uniform(name, pi * self.rotate_max), 0)
        return geometry.rotate(angle)

    def color_matrices(self, draws: Draws, channels: int) -> np.ndarray:
        """The product of all colour operations, [N, 4, 4] on (r, g, b, 1)."""
        matrix = np.tile(np.eye(4), [draws.count, 1, 1])
        if max(self.brightness, self.contrast, self.lumaflip, self.hue, self.saturation) == 0:
            return matrix
        if not 1 <= channels <= 4:
            raise UsageError(
                f"images with {channels} channels: colour augmentations need 1 (grey) or 3 (RGB), and one more for "
                "alpha; leave them out (for example with the set 'bg')"
            )
        if self.brightness > 0:
            amount = draws.normal("brightness", self.brightness_std)
            matrix = color.brighten(draws.where("brightness", self.brightness, amount, 0)) @ matrix
        if self.contrast > 0:
            factor = draws.log2_normal("contrast", self.contrast_std)
            matrix = color.contrast(draws.where("contrast", self.contrast, factor, 1)) @ matrix
        if self.lumaflip > 0:
            flipped = draws.where("lumaflip", self.lumaflip, draws.choice("lumaflip", 2), 0)
            matrix = color.flip_luma(flipped) @ matrix
        if self.hue > 0 and channels > 2:
            angle = draws.where("hue", self.hue, draws.uniform("hue", pi * self.hue_max), 0)
            matrix = color.turn_hue(angle) @ matrix
        if self.saturation > 0 and channels > 2:
            factor = draws.log2_normal("saturation", self.saturation_std)
            matrix = color.saturate(draws.where("saturation", self.saturation, factor, 1)) @ matrix
        return matrix

    def band_gains(self, draws: Draws) -> np.ndarray:
        """Gains of the frequency bands, [N, 4]: for each band in turn, it is amplified and the power restored."""
        gains = np.ones([draws.count, BANDS])
        if self.imgfilter > 0:
            for band, multiplier in enumerate(self.imgfilter_bands):
                name = f"band{band}"
                step = np.ones([draws.count, BANDS])
                factor = draws.log2_normal(name, self.imgfilter_std)
                step[:, band] = draws.where(name, self.imgfilter * multiplier, factor, 1)
                gains = gains * color.normalise_power(step)
        return gains

    def cutout_boxes(self, draws: Draws, height: int, width: int) -> np.ndarray:
        """The boxes to cut, [N, 4] int64: left, top, right, bottom; zeros for none."""
        boxes = np.zeros([draws.count, 4])
        if self.cutout > 0:
            for axis, (name, size) in enumerate((("cutout_x", width), ("cutout_y", height))):
                for column, side in ((axis, -0.5), (axis + 2, 0.5)):
                    edge = np.round((draws.values[name] + side * self.cutout_size) * size).clip(0, size)
                    boxes[:, column] = draws.where("cutout", self.cutout, edge, 0)
        return boxes.astype(np.int64)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={self.init_kwargs[name]:g}" for name in SPECS["bgcfnc"] if self.init_kwargs[name] > 0)


def _identities(matrices: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.eye(matrices.shape[1]), matrices.shape)


def _float32(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))


def _moved(tensor: torch.Tensor | None, device: torch.device) -> torch.Tensor | None:
    return None if tensor is None else upload(tensor, device)
