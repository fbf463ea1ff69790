"""How an image becomes a training image: channels, crop, resize. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageColor

from sg3 import limits
from sg3.canvas import is_plain, is_possible, nearest_possible, obstacle
from sg3.data.decode import Mode
from sg3.errors import UsageError

Crop = Literal["center-crop", "center-crop-wide"]
ResizeFilter = Literal["lanczos", "box"]
Convert = Literal["keep", "rgb", "gray", "rgba", "la"]

_FILTERS = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}
_MODES: dict[str, Mode] = {"rgb": "RGB", "gray": "L", "rgba": "RGBA", "la": "LA"}
Size = tuple[int, int]  # width, height


SMALLEST = 8  # pixels of R3GAN's images
SMALLEST_OF_MOST = 16  # of the other systems'
SIDES = f"powers of two from {SMALLEST} to {limits.RESOLUTION}"


def is_trainable_size(size: Size) -> bool:
    """Whether there are networks for images of this size: squares of 8, 16, ... pixels, or the StyleGANs' others."""
    return max(size) <= limits.RESOLUTION and (size == (SMALLEST, SMALLEST) or is_possible((size[1], size[0])))


def why_not(size: Size) -> str:
    """What keeps all networks from a size that `is_trainable_size` denies."""
    own = obstacle((size[1], size[0])) if size[0] != size[1] or min(size) > SMALLEST else None
    return "; ".join(filter(None, [f"the networks take {SIDES}" if size[0] == size[1] else "not square", own]))


def nearest_size(size: Size) -> Size:
    """A trainable size of about the same shape."""
    width, height = (min(max(side, 1), limits.RESOLUTION) for side in size)
    height, width = nearest_possible((height, width))
    return width, height


@dataclass(frozen=True)
class ImagePlan:
    """What is done to every image.

    crop: None stretches to `resolution`; "center-crop" first cuts the largest centred window of its shape, or the
    largest square without it; "center-crop-wide" cuts the largest centred W:H window, scales it to W x H and centres it
    on a black W x W image. resolution: (width, height), None keeps the size. convert: channels; "keep" leaves them.
    background: laid under transparent pixels where alpha is dropped, a name or #rrggbb.

    Raises UsageError for what cannot be.
    """

    crop: Crop | None = None
    resolution: Size | None = None
    resize_filter: ResizeFilter = "lanczos"
    convert: Convert = "keep"
    background: str = "white"

    def __post_init__(self) -> None:
        try:
            ImageColor.getrgb(self.background)
        except ValueError:
            raise UsageError(f"--background={self.background}: not a colour; use a name or #rrggbb") from None
        if self.resolution is None:
            if self.crop == "center-crop-wide":
                raise UsageError("--transform=center-crop-wide: needs a size, e.g. --resolution=512x384")
            return
        width, height = self.resolution
        given = f"--resolution={width}x{height}"
        if self.crop == "center-crop-wide":
            if not 0 < height <= width:
                raise UsageError(f"{given}: center-crop-wide makes wide images; give the width first")
            width, height = width, width
        if width != height and not is_trainable_size((width, height)):
            near = "x".join(map(str, nearest_size((width, height))))
            reason = obstacle((height, width)) or f"the longer side is above {limits.RESOLUTION} pixels"
            raise UsageError(f"{given}: no network has this size, {reason}, e.g. --resolution={near}; give "
                             "that, equal sides, or --transform=center-crop-wide for wide images between black bars")
        if width == height and not is_trainable_size((width, height)):
            other = nearest_size((width, height))[0]
            side = other if is_plain((other, other)) and width > SMALLEST_OF_MOST else nearest_side(width)
            others = "" if is_plain((other, other)) else f"; StyleGAN2 and 3 have --resolution={other}x{other}, too"
            raise UsageError(f"{given}: the networks take {SIDES}, e.g. --resolution={side}x{side}{others}")

    def output_size(self, width: int, height: int) -> Size:
        """Size of the result for an input of this size."""
        if self.resolution is not None and self.crop == "center-crop-wide":
            return self.resolution[0], self.resolution[0]
        if self.resolution is not None:
            return self.resolution
        side = min(width, height)
        return (side, side) if self.crop == "center-crop" else (width, height)

    def output_mode(self, mode: Mode) -> Mode:
        """Mode of the result for an input of this mode."""
        return _MODES.get(self.convert, mode)

    def enlarges(self, width: int, height: int) -> bool:
        """Whether an input of this size is smaller than what is made of it."""
        if self.resolution is None:
            return False
        cut_width, cut_height = self._window(width, height)
        return cut_width < self.resolution[0] or cut_height < self.resolution[1]

    def apply(self, image: Image.Image) -> Image.Image:
        """Image of mode L, LA, RGB or RGBA -> training image."""
        image = self._converted(image)
        width, height = self._window(*image.size)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        if (width, height) != image.size:
            image = image.crop((left, top, left + width, top + height))
        if self.resolution is not None and image.size != self.resolution:
            # Pillow weighs colours by alpha here, so transparent pixels do not bleed.
            image = image.resize(self.resolution, _FILTERS[self.resize_filter])
        size = self.output_size(*image.size)
        if image.size != size:
            canvas = Image.new(image.mode, size, 0)  # black, and transparent with alpha
            canvas.paste(image, (0, (size[1] - image.height) // 2))
            return canvas
        return image

    def _window(self, width: int, height: int) -> Size:
        """Size of the part that is used."""
        if self.crop is None:
            return width, height
        aspect_width, aspect_height = (1, 1) if self.resolution is None else self.resolution
        if width * aspect_height > height * aspect_width:  # too wide
            return max(1, round(height * aspect_width / aspect_height)), height
        return width, max(1, round(width * aspect_height / aspect_width))

    def _converted(self, image: Image.Image) -> Image.Image:
        mode = self.output_mode(image.mode)  # type: ignore[arg-type]
        if image.mode.endswith("A") and not mode.endswith("A"):
            image = self._laid_on_background(image if image.mode == "RGBA" else image.convert("RGBA"))
        return image if image.mode == mode else image.convert(mode)

    def _laid_on_background(self, image: Image.Image) -> Image.Image:
        """RGBA -> RGB, strip by strip: the largest images leave no room for three more of their size."""
        result = Image.new("RGB", image.size)
        rows = max(1, 2**22 // image.width)
        for top in range(0, image.height, rows):
            strip = image.crop((0, top, image.width, min(top + rows, image.height)))
            backdrop = Image.new("RGBA", strip.size, ImageColor.getrgb(self.background)[:3])
            result.paste(Image.alpha_composite(backdrop, strip).convert("RGB"), (0, top))
        return result


def nearest_side(side: int) -> int:
    """The largest trainable side not above `side`, or else the smallest."""
    return min(max(SMALLEST, 1 << (max(side, 1).bit_length() - 1)), limits.RESOLUTION)
