"""`sg3 generate`."""

from __future__ import annotations

import sys
from pathlib import Path

import rich_click as click

from sg3.cli.options import FloatPair, GridSize, IntRangeList


@click.command("generate")
@click.option("--network", required=True, metavar="PATH",
              help="A network file, a run folder (its newest), an address, or the name of a published network.")
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
    from math import isfinite

    import numpy as np
    from rich.progress import track

    import sg3
    from sg3.cli.network import open_generator
    from sg3.errors import UsageError
    from sg3.sampling import class_labels, generate, seed_latents, set_transform
    from sg3.tools.files import make_folder, save_png, sheet

    if grid is not None and not len(seeds) <= grid[0] * grid[1] <= 10**5:
        raise UsageError(f"--grid={grid[0]}x{grid[1]}: expected room for {len(seeds)} images (and at most 100000)")
    if not all(isfinite(number) for number in (truncation_psi, rotate, *translate)):
        raise UsageError("--trunc, --rotate, --translate: expected finite numbers")
    G = open_generator(network, device, class_idx)
    labels = class_labels(G, class_idx, len(seeds))
    set_transform(G, translate, rotate)
    make_folder(outdir)
    pictures = generate(
        G, seed_latents(seeds, G.z_dim), labels, truncation_psi=truncation_psi, noise_mode=noise_mode, batch=batch
    )
    settings = {
        "network": Path(network).name, "trunc": truncation_psi, "class": class_idx if G.c_dim else None,
        "noise_mode": noise_mode, "translate": list(translate), "rotate": rotate, "sg3": sg3.__version__,
    }  # fmt: skip

    def save(pixels: np.ndarray, name: str, **more: object) -> None:
        save_png(outdir / name, pixels, {**more, **settings})
        click.echo(outdir / name)

    kept: list[np.ndarray | None] = []
    hidden = not sys.stderr.isatty()
    for seed, pixels in zip(track(seeds, "images", disable=hidden, transient=True), pictures, strict=True):
        save(pixels, f"seed{seed:04d}.png", seed=seed)
        if grid is not None:
            kept.append(pixels)
    if grid is not None:
        columns, rows = grid
        kept += [None] * (columns * rows - len(kept))
        save(sheet([kept[row * columns : (row + 1) * columns] for row in range(rows)]), "grid.png", seeds=seeds)
