"""`sg3 generate`."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from sg3.cli import options
from sg3.terminal import show


@click.command("generate")
@options.network
@click.option("--seeds", type=options.IntRangeList(), required=True, help="Seeds, such as 0-7,12.")
@options.outdir
@options.trunc
@options.one_class
@options.noise_mode
@click.option("--translate", type=options.FloatPair(), default="0,0", show_default=True,
              help="Move the image by these fractions of its size (StyleGAN3).")
@click.option("--rotate", type=options.Finite(), default=0.0, show_default=True, metavar="DEG",
              help="Rotate the image (StyleGAN3).")
@click.option("--grid", type=options.GridSize(), help="Also write grid.png, columns x rows.")
@options.batch
@options.no_graphs
@options.device
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
    no_graphs: bool,
    device: str,
) -> None:
    """Make images, one PNG for each seed, with seed and settings in its metadata.

    Examples:

        sg3 generate --network=runs/00000-... --seeds=0-15 --outdir=out --grid=4x4

        sg3 generate --network=net.pkl --seeds=2 --trunc=0.7 --rotate=30 --translate=0.1,0 --outdir=out
    """
    import numpy as np

    import sg3
    from sg3.cli.network import note_truncation, open_generator
    from sg3.cli.progress import track
    from sg3.errors import UsageError
    from sg3.models import StyleGenerator
    from sg3.sampling import class_labels, generate, seed_latents, set_transform
    from sg3.tools.files import make_folder, save_png, sheet

    if grid is not None and not len(seeds) <= grid[0] * grid[1] <= 10**5:
        raise UsageError(f"--grid={grid[0]}x{grid[1]}: expected room for {len(seeds)} images (and at most 100000)")
    G = open_generator(network, device, class_idx)
    note_truncation(isinstance(G, StyleGenerator), truncation_psi)
    labels = class_labels(G, class_idx, len(seeds))
    set_transform(G, translate, rotate)
    make_folder(outdir)
    pictures = generate(
        G, seed_latents(seeds, G.z_dim), labels, truncation_psi=truncation_psi, noise_mode=noise_mode, batch=batch,
        graphs=not no_graphs,
    )  # fmt: skip
    settings = {
        "network": Path(network).name, "trunc": truncation_psi, "class": class_idx if G.c_dim else None,
        "noise_mode": noise_mode, "translate": list(translate), "rotate": rotate, "sg3": sg3.__version__,
    }  # fmt: skip

    def save(pixels: np.ndarray, name: str, **more: object) -> None:
        save_png(outdir / name, pixels, {**more, **settings})
        show(outdir / name)

    kept: list[np.ndarray | None] = []
    for seed, pixels in track(zip(seeds, pictures, strict=True), "images", len(seeds)):
        save(pixels, f"seed{seed:04d}.png", seed=seed)
        if grid is not None:
            kept.append(pixels)
    if grid is not None:
        columns, rows = grid
        kept += [None] * (columns * rows - len(kept))
        save(sheet([kept[row * columns : (row + 1) * columns] for row in range(rows)]), "grid.png", seeds=seeds)
