"""`sg3 directions`."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from sg3.cli import options
from sg3.terminal import show


@click.command("directions")
@options.network
@options.outdir
@options.scale
@options.captions
@click.option("--method", type=click.Choice(["sefa", "pca"]), default="sefa", show_default=True,
              help="Singular vectors of the style weights, or principal components of w.")
@click.option("--num", type=click.IntRange(min=1), default=8, show_default=True, help="How many directions.")
@click.option("--degree", type=options.Finite(), default=2.0, show_default=True,
              help="How far a strip reaches to each side: length in w for sefa, standard deviations for pca.")
@click.option("--steps", type=click.IntRange(min=2, max=1000), default=7, show_default=True,
              help="Pictures in a strip; the middle one of an odd number is the unchanged one.")
@click.option("--layers", "layers_text", default="all", show_default=True, metavar="LAYERS",
              help="Layers to factorise (sefa) and to change: indices of w (0-6), names (L5_148_512, b8.conv0), "
                   "coarse, middle or fine.")
@click.option("--seeds", "--seed", type=options.IntRangeList(), default="0", show_default=True,
              help="Pictures to change, one line of a strip each.")
@options.trunc
@click.option("--samples", type=click.IntRange(min=2, max=10**7), default=10_000, show_default=True,
              help="Samples of w for the mean, and for pca.")
@options.one_class
@options.bars
@options.batch
@options.device
def command(
    network: str,
    outdir: Path,
    scale: int | None,
    captions: bool,
    method: str,
    num: int,
    degree: float,
    steps: int,
    layers_text: str,
    seeds: list[int],
    truncation_psi: float,
    samples: int,
    class_idx: int | None,
    bars: bool,
    batch: int,
    device: str,
) -> None:
    """Find directions in w that change pictures, and show each as a strip.

    Writes directionNN.png, one line for each seed, and directions.npz: directions [num, w_dim], values [num], scale
    [num] (length of a step of one degree), w_mean [w_dim], layers, and the latents at both ends of every strip, w
    [num x seeds x 2, num_ws, w_dim], which other commands take as keyframes.

    Examples:

        sg3 directions --network=net.pkl --outdir=out --seeds=0-3

        sg3 directions --network=net.pkl --method=pca --num=4 --layers=coarse --outdir=out
    """
    from sg3.cli.network import open_framed_style, require_network

    require_network(network)
    import numpy as np
    import torch

    from sg3._version import __version__
    from sg3.progress import track
    from sg3.sampling import class_labels, seed_latents
    from sg3.tools.directions import principal_components, sefa, step_labels, strip
    from sg3.tools.files import make_folder, save_arrays, save_png, seed_caption, sheet, without_bars
    from sg3.tools.latents import choose_layers, render, sample_w

    G, visible = open_framed_style(network, device, class_idx, bars)
    layers = choose_layers(G, layers_text, "--layers")
    on = next(G.parameters()).device
    labels = class_labels(G, class_idx, len(seeds))
    w = sample_w(G, labels[:1], samples)
    found = sefa(G, num, layers) if method == "sefa" else principal_components(w, num)
    with torch.no_grad():
        z = seed_latents(seeds, G.z_dim)
        bases = G.mapping(z.to(on), labels.to(on), truncation_psi=truncation_psi).cpu()  # [seeds, num_ws, w_dim]

    settings = {
        "network": Path(network).name, "method": method, "degrees": step_labels(degree, steps), "layers": layers,
        "seeds": seeds, "trunc": truncation_psi, "class": class_idx if G.c_dim else None, "sg3": __version__,
    }  # fmt: skip
    words = [
        [f"{seed_caption(seed, class_idx if G.c_dim else None)}: {amount:+g}" for amount in step_labels(degree, steps)]
        for seed in seeds
    ]
    make_folder(outdir)
    ends = []
    for k in track(range(num), "directions", num):
        length = degree * float(found.scale[k])
        strips = [strip(base, found.directions[k], length, steps, layers) for base in bases]
        lines = [[without_bars(whole, visible) for whole in render(G, ws, batch=batch)] for ws in strips]
        picture = sheet(lines, words if captions else None, scale)
        save_png(outdir / f"direction{k:02d}.png", picture, {"direction": k, **settings})
        show(outdir / f"direction{k:02d}.png")
        ends += [ws[[0, -1]] for ws in strips]
    save_arrays(outdir / "directions.npz", {
        "directions": found.directions.numpy().astype(np.float32), "values": found.values.numpy(),
        "scale": found.scale.numpy(), "w_mean": w.mean(dim=0).cpu().numpy(), "layers": np.array(layers),
        "w": torch.cat(ends).numpy(),
    })  # fmt: skip
    show(outdir / "directions.npz")
