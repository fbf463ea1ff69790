"""`sg3 generate`."""

from __future__ import annotations

import sys
from pathlib import Path

import rich_click as click

from sg3.cli.options import FloatPair, GridSize, IntRangeList


@click.command("generate")
@click.option("--network", required=True, help="A .pkl, or a run folder: its newest.", metavar="PATH")
@click.option("--seeds", type=IntRangeList(), required=True, help="Seeds, such as 0-7,12.")
@click.option("--outdir", type=click.Path(path_type=Path), required=True, help="Where the images go.", metavar="DIR")
@click.option("--trunc", "truncation_psi", type=float, default=1.0, show_default=True,
              help="Truncation psi: 0 is the mean image, 1 the full variety.")
@click.option("--class", "class_idx", type=click.IntRange(min=0), help="Class of a conditional network.", metavar="N")
@click.option("--noise-mode", type=click.Choice(["const", "random", "none"]), default="const", show_default=True,
              help="StyleGAN2's noise; StyleGAN3 has none.")
@click.option("--translate", type=FloatPair(), default="0,0", show_default=True,
              help="Move the image by these fractions of its size (StyleGAN3).")
@click.option("--rotate", type=float, default=0.0, show_default=True, metavar="DEG",
              help="Rotate the image (StyleGAN3).")
@click.option("--grid", type=GridSize(), help="Also write grid.png, columns x rows.")
@click.option("--batch", type=click.IntRange(min=1), default=4, show_default=True, help="Images at a time.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
def command(
    network: str,
    seeds: list[int],
    outdir: Path,
    truncation_psi: float,
    class_idx: int | None,
    noise_mode: str,
    translate: tuple[float, float],
    rotate: float,
    grid: tuple[int, int] | None,
    batch: int,
    device: str,
) -> None:
    """Make images, one PNG for each seed, with seed and settings in its metadata.

    Examples:

        sg3 generate --network=runs/00000-... --seeds=0-15 --outdir=out --grid=4x4

        sg3 generate --network=net.pkl --seeds=2 --trunc=0.7 --rotate=30 --translate=0.1,0 --outdir=out
    """
    import json
    from math import isfinite

    import numpy as np
    from PIL import Image, PngImagePlugin
    from rich.progress import track

    import sg3
    from sg3.device import choose_device
    from sg3.errors import DataError, StorageError, UsageError
    from sg3.formats.atomic import write_atomic
    from sg3.models import Generator
    from sg3.sampling import class_labels, generate, seed_latents, set_transform

    if grid is not None and not len(seeds) <= grid[0] * grid[1] <= 10**5:
        raise UsageError(f"--grid={grid[0]}x{grid[1]}: expected room for {len(seeds)} images (and at most 100000)")
    if not all(isfinite(number) for number in (truncation_psi, rotate, *translate)):
        raise UsageError("--trunc, --rotate, --translate: expected finite numbers")
    G = sg3.load(network, device=choose_device(device)).G_ema
    if not isinstance(G, Generator):
        raise DataError(f"{network}: holds no averaged generator (G_ema)")
    labels = class_labels(G, class_idx, len(seeds))
    if G.c_dim == 0 and class_idx is not None:
        click.echo(f"note: --class={class_idx} has no effect, the network is unconditional", err=True)
    set_transform(G, translate, rotate)
    try:
        outdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"--outdir={outdir}: cannot be made: {error.strerror}") from error

    pictures = generate(
        G, seed_latents(seeds, G.z_dim), labels, truncation_psi=truncation_psi, noise_mode=noise_mode, batch=batch
    )
    settings = {
        "network": Path(network).name, "trunc": truncation_psi, "class": class_idx if G.c_dim else None,
        "noise_mode": noise_mode, "translate": list(translate), "rotate": rotate, "sg3": sg3.__version__,
    }  # fmt: skip

    def save(pixels: np.ndarray, name: str, **more: object) -> None:
        info = PngImagePlugin.PngInfo()
        info.add_text("sg3", json.dumps({**more, **settings}))
        picture = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
        write_atomic(outdir / name, lambda file: picture.save(file, format="PNG", pnginfo=info))
        click.echo(outdir / name)

    kept = []
    hidden = not sys.stderr.isatty()
    for seed, pixels in zip(track(seeds, "images", disable=hidden, transient=True), pictures, strict=True):
        save(pixels, f"seed{seed:04d}.png", seed=seed)
        if grid is not None:
            kept.append(pixels)
    if grid is not None:
        columns, rows = grid
        h, w, channels = kept[0].shape
        sheet = np.zeros((rows * h, columns * w, channels), dtype=np.uint8)
        for i, pixels in enumerate(kept):
            y, x = i // columns * h, i % columns * w
            sheet[y : y + h, x : x + w] = pixels
        save(sheet, "grid.png", seeds=seeds)
