"""`sg3 style-mix`."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from sg3.cli import options
from sg3.terminal import show

MOST_PICTURES = 10_000


@click.command("style-mix")
@options.network
@click.option("--rows", type=options.IntRangeList(), required=True, help="Seeds that give the rows everything else.")
@click.option("--cols", type=options.IntRangeList(), required=True,
              help="Seeds that give the columns the layers of --styles.")
@click.option("--styles", metavar="LAYERS",
              help="Layers to take from the column: indices of w (0-6), names (L5_148_512, b8.conv0), coarse, middle "
                   "or fine.  [default: 0-6; of fewer than 14 the first half]")
@options.outdir
@options.scale
@options.captions
@options.bars
@options.trunc
@options.one_class
@options.noise_mode
@options.batch
@options.device
def command(
    network: str,
    rows: list[int],
    cols: list[int],
    styles: str | None,
    outdir: Path,
    scale: int | None,
    captions: bool,
    bars: bool,
    truncation_psi: float,
    class_idx: int | None,
    noise_mode: str,
    batch: int,
    device: str,
) -> None:
    """Mix the styles of seeds: a grid of rows by columns.

    Writes ROW-COL.png for each pair, SEED-SEED.png for each source, and grid.png: the columns' sources in the first
    line, the rows' in the first column.

    Examples:

        sg3 style-mix --network=net.pkl --rows=85,100,75 --cols=55,821 --styles=0-6 --outdir=out

        sg3 style-mix --network=net.pkl --rows=0-3 --cols=10-13 --styles=fine --trunc=0.7 --outdir=out
    """
    from sg3.cli.network import open_framed_style, require_network
    from sg3.errors import UsageError

    if len(rows) * len(cols) > MOST_PICTURES:
        raise UsageError(f"--rows, --cols: {len(rows)} x {len(cols)} pictures are more than {MOST_PICTURES}")
    require_network(network)
    import torch

    from sg3._version import __version__
    from sg3.progress import track
    from sg3.tools.files import Pixels, make_folder, save_png, seed_caption, sheet, without_bars
    from sg3.tools.latents import choose_layers
    from sg3.tools.style_mix import style_mix

    G, visible = open_framed_style(network, device, class_idx, bars)
    layers = choose_layers(G, styles or f"0-{min(6, G.num_ws // 2 - 1)}")
    pictures = style_mix(
        G, rows, cols, layers, class_idx=class_idx, truncation_psi=truncation_psi, noise_mode=noise_mode, batch=batch
    )
    settings = {
        "network": Path(network).name, "styles": layers, "trunc": truncation_psi,
        "class": class_idx if G.c_dim else None, "noise_mode": noise_mode, "sg3": __version__,
    }  # fmt: skip
    torch.manual_seed(0)  # of --noise-mode=random, so that a command repeated gives the same pictures
    made: dict[tuple[int, int], Pixels] = {}
    sources = len({*rows, *cols})
    mixes = len({(row, col) for row in rows for col in cols if row != col})
    for (row, col), whole in track(pictures, "images", sources + mixes):
        pixels = without_bars(whole, visible)
        if not made:  # only now is it certain that the options fit the network
            make_folder(outdir)
        path = outdir / f"{row}-{col}.png"
        save_png(path, pixels, {"row": row, "col": col, **settings})
        show(path)
        made[row, col] = pixels
    head = [None, *(made[col, col] for col in cols)]
    body = [[made[row, row], *(made[row, col] for col in cols)] for row in rows]
    shown_class = class_idx if G.c_dim else None
    words = [["", *(seed_caption(col, shown_class) for col in cols)]]
    words += [[seed_caption(row, shown_class), *(f"{row}-{col}" for col in cols)] for row in rows]
    picture = sheet([head, *body], words if captions else None, scale)
    save_png(outdir / "grid.png", picture, {"rows": rows, "cols": cols, **settings})
    show(outdir / "grid.png")
