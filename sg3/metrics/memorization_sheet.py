"""The sheet of nearest neighbours: generated images, and beside them the training images that they are nearest to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from sg3.atomic import write_atomic
from sg3.data.dataset import ImageFolderDataset
from sg3.metrics.features import Examples
from sg3.metrics.samples import Samples
from sg3.metrics.views import framed
from sg3.transparency import has_alpha, opaque, straight

SMALLEST, LARGEST = 64, 160  # pixels of a picture on the sheet
GAP, CAPTION, TITLE = 6, 40, 44
BLACK, GRAY, WHITE = (0, 0, 0), (110, 110, 110), (255, 255, 255)


def draw_sheet(
    path: Path, examples: Sequence[Examples], samples: Samples, data: ImageFolderDataset,
    held_out: ImageFolderDataset, name: str,
) -> None:  # fmt: skip
    """Write a PNG: on the left the generated images most like training images, on the right the held-out real images
    that are, each with its nearest training images and their distances. `held_out`: where the numbers of those are.

    Raises StorageError if it cannot be written.
    """
    blocks = [(title, [example for example in examples if example.kind == kind])
              for kind, title in (("generated", "generated"), ("held out", "real, held out of training"))]  # fmt: skip
    font = ImageFont.load_default(12)
    columns = max(len(example.neighbours) for example in examples) + 1
    rows = max(len(block) for _, block in blocks)
    picture = _picture(_real(data, 0, samples))
    width, height = picture.size
    block_width = columns * (width + GAP) + 3 * GAP
    sheet = Image.new("RGB", (2 * block_width + GAP, TITLE + rows * (height + CAPTION) + GAP), WHITE)
    draw = ImageDraw.Draw(sheet)
    for number, (title, block) in enumerate(blocks):
        left = GAP + number * block_width
        draw.text((left, 4), f"{name}: {title}" if number == 0 else title, BLACK, font)
        words = "image, then the training images nearest to it" if block else "there are none: nothing to compare with"
        draw.text((left, 22), words, GRAY, font)
        for row, example in enumerate(block):
            top = TITLE + row * (height + CAPTION)
            image = _generated(samples, example.index) if example.kind == "generated" else \
                _real(held_out, example.index, samples)
            pictures = [(_picture(image), f"score {example.score:.3g}")]
            for index, mirrored, distance in example.neighbours:
                near = _real(data, index, samples)
                caption = f"{distance:.4g}" + "\nmirrored" * mirrored
                pictures.append((_picture(near.flip(2) if mirrored else near), caption))
            for column, (shown, caption) in enumerate(pictures):
                x = left + column * (width + GAP) + (GAP if column else 0)
                sheet.paste(shown, (x, top))
                draw.text((x, top + height + 2), caption, BLACK if column == 0 else GRAY, font)
    write_atomic(path, lambda file: sheet.save(file, "PNG"))


def _real(data: ImageFolderDataset, index: int, samples: Samples) -> torch.Tensor:
    """What of it is compared."""
    return framed(torch.from_numpy(data[index][0]), samples.visible)


def _generated(samples: Samples, index: int) -> torch.Tensor:
    """Image number `index`, made again: it is a function of its number."""
    start = index - index % samples.batch
    image = samples.images(range(start, start + samples.batch))[index - start].cpu()
    return image if image.dtype == torch.uint8 else straight(image[None])[0]


def _picture(image: torch.Tensor) -> Image.Image:
    """uint8 [C, H, W] with 1 to 4 channels -> an RGB picture of a size to look at; alpha lies over a checkerboard."""
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    pixels = opaque(pixels) if has_alpha(pixels.shape[2]) else pixels
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    side = max(picture.size)
    factor = LARGEST / side if side > LARGEST else max(SMALLEST // side, 1)
    size = (max(round(picture.width * factor), 1), max(round(picture.height * factor), 1))
    return picture.convert("RGB").resize(size, Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS)
