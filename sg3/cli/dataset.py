"""`sg3 dataset`: turn images into a dataset zip."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any

import rich_click as click

from sg3.cli import options
from sg3.cli.options import switch
from sg3.progress import Progress
from sg3.terminal import say, show

if TYPE_CHECKING:
    from sg3.data.prepare import Prepared

LISTED = 10  # messages of one kind; the rest is counted


def _parse_size(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """`256x256` or `256` -> (256, 256)."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is not a size like 256x256")
    return int(match[1]), int(match[2] or match[1])


@click.command(name="dataset")
@click.option("--source", type=options.NAME, metavar="PATH|openmoji", required=True,
              help="Folder, zip, *_lmdb folder, cifar-10-python.tar.gz or cifar-100, *-images-idx3-ubyte.gz, "
                   "openmoji[:SUBSET][:alpha|:white].")
@click.option("--dest", type=options.OUTPUT, metavar="ZIP|FOLDER", required=True,
              help="Where to write: a .zip, or an empty or new folder.")
@click.option("--max-images", type=click.IntRange(min=1), help="Use only the first so many images.")
@click.option("--transform", type=click.Choice(["center-crop", "center-crop-wide"]),
              help="Cut out the middle before scaling: a window of the shape of --resolution, or one put between black "
                   "bars in a square.")
@click.option("--resolution", metavar="WxH", callback=_parse_size,
              help="Scale to this size in pixels: a square of a power of two, or what else StyleGAN2 and 3 make "
                   "(docs/rectangles.md).")
@click.option("--resize-filter", type=click.Choice(["lanczos", "box"]), default="lanczos", show_default=True,
              help="How to scale.")
@click.option("--convert", type=click.Choice(["keep", "rgb", "gray", "rgba", "la"]), default="keep",
              show_default=True, help="Channels of the result (rgba and la with alpha); keep wants all images alike.")
@click.option("--background", metavar="COLOUR", default="white", show_default=True,
              help="Laid under transparent pixels when --convert removes alpha; a name or #rrggbb.")
@click.option("--labels", type=click.Choice(["auto", "folders", "json", "none"]), default="auto",
              show_default=True,
              help="Take labels from the first-level folders, or those stored with the source (json); "
                   "auto takes stored ones if there are any.")
@click.option("--on-error", type=click.Choice(["fail", "skip"]), default="fail", show_default=True,
              help="If images cannot be used: name them and write nothing, or leave them out.")
@switch("--force", help="Replace an existing dataset.")
@options.as_json
def command(
    source: str,
    dest: str,
    max_images: int | None,
    transform: Any,
    resolution: tuple[int, int] | None,
    resize_filter: Any,
    convert: Any,
    background: str,
    labels: Any,
    on_error: str,
    force: bool,
    as_json: bool,
) -> None:
    """Turn images into a dataset: equal images, squares whose side is a power of two, or for StyleGAN2 and 3 others,
    like 512x384.

    PNG, JPEG, WebP and BMP are read, by content and not by name, of animations the first frame; others (GIF, TIFF,
    AVIF, HEIF, ...) are refused. All images are looked at first; nothing is written unless all of them can be used, and
    files that are no images are counted with the reason.

    Examples:

        sg3 dataset --source=photos --dest=data/photos.zip --transform=center-crop --resolution=256x256

        sg3 dataset --source=cars --dest=data/cars.zip --transform=center-crop --resolution=512x384

        sg3 dataset --source=pets --dest=data/pets.zip --resolution=128x128 --convert=rgb --labels=folders

        sg3 dataset --source=openmoji:faces --dest=data/faces.zip --resolution=64x64
    """
    from sg3.data.prepare import prepare
    from sg3.data.scan import UnusableImages
    from sg3.data.transforms import SMALLEST, ImagePlan

    plan = ImagePlan(transform, resolution, resize_filter, convert, background)
    try:
        with Progress() as progress:
            result = prepare(source, dest, plan, labels, max_images, on_error == "skip", force, progress.show)
    except UnusableImages as error:
        _list("unusable", error.messages)
        raise
    _list("left out", result.skipped)
    _list("note", result.notes)
    if result.resolution == SMALLEST:
        say(f"note: images of {SMALLEST} x {SMALLEST} are for --cfg=r3gan; the other systems take larger ones")
    _print_result(result, as_json)


def _list(what: str, messages: list[str]) -> None:
    for message in messages[:LISTED]:
        say(f"{what}: {message}")
    if len(messages) > LISTED:
        say(f"{what}: {len(messages) - LISTED} more")


def _print_result(result: Prepared, as_json: bool) -> None:
    if as_json:
        facts = dataclasses.asdict(result)
        if result.width == result.height:  # which "resolution" says
            del facts["width"], facts["height"]
        show(json.dumps(facts, default=str))
        return
    channels = "1 channel" if result.channels == 1 else f"{result.channels} channels"
    labels = f"labels of width {result.label_dim}" if result.label_dim else "no labels"
    skipped = f", {len(result.skipped)} left out" if result.skipped else ""
    size = f"{result.width}x{result.height}"
    show(f"{result.path}: {result.num_images} images{skipped}, {size}, {channels}, {labels}")
