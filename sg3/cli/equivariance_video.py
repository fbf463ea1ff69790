"""`sg3 equivariance-video`."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from sg3.cli import options
from sg3.cli.network import open_framed_style, require_network
from sg3.cli.video import Bitrate
from sg3.progress import track
from sg3.terminal import say, show

TRANSFORMS = {  # as typed -> as in the library and in file names
    "x_t": "x_t", "y_t": "y_t", "rotate": "rotate", "translate-x": "x_t", "translate-y": "y_t",
}  # fmt: skip


@click.command("equivariance-video")
@options.network
@click.option("--transform", type=click.Choice(list(TRANSFORMS)), default="x_t", show_default=True,
              help="Move right (x_t is translate-x), down (y_t is translate-y), or turn.")
@click.option("--seed", type=options.SEED, default=2021, show_default=True, help="Seed of the latent.")
@click.option("--outdir", type=options.OUTPUT_FOLDER, metavar="DIR",
              help="Where eq-TRANSFORM-seed-SEED.mp4 goes.  [default: here]")
@click.option("--output", type=options.OUTPUT, metavar="FILE",
              help="Another name: .mp4, .webm, .mkv, .mov, .apng, or PNGs as in `sg3 video`.")
@click.option("--num-samples", type=click.IntRange(min=1), default=60, show_default=True, help="Number of frames.")
@click.option("--translate-max", "--translate_max", type=options.FiniteRange(0, 1, min_open=True), default=0.125,
              show_default=True, help="Go this far to either side, as a fraction of the image; whole pixels.")
@click.option("--rotate-max", type=options.FiniteRange(0, 180, min_open=True), default=180.0, show_default=True,
              metavar="DEG", help="Turn this far to either side.")
@click.option("--gain", type=options.FiniteRange(0, 1000, min_open=True), default=4.0, show_default=True,
              help="Amplify the difference.")
@options.trunc
@options.one_class
@options.bars
@click.option("--fps", type=options.FiniteRange(1, 1000), default=40, show_default=True, help="Frames per second.")
@click.option("--codec", help="libx264, libvpx-vp9, libsvtav1, ...  [default: libx264; .webm: libvpx-vp9]")
@click.option("--bitrate", type=Bitrate(), default="12M", show_default=True, help="About this many bits per second.")
@options.device
def command(
    network: str,
    transform: str,
    seed: int,
    outdir: Path | None,
    output: Path | None,
    num_samples: int,
    translate_max: float,
    rotate_max: float,
    gain: float,
    truncation_psi: float,
    class_idx: int | None,
    bars: bool,
    fps: float,
    codec: str | None,
    bitrate: int,
    device: str,
) -> None:
    """Show how faithfully a StyleGAN3 moves or turns its image, from one extreme to the other.

    Each frame shows what the network draws, what it should draw (its unmoved image, moved as a continuous one), and
    the difference, gray where there is none, with the PSNR of the frame. Images with alpha lie on a gray.

    Examples:

        sg3 equivariance-video --network=net.pkl --transform=rotate --seed=3 --outdir=out

        sg3 equivariance-video --network=net.pkl --transform=translate-x --translate-max=0.25 --output=x.webm
    """
    require_network(network)
    import json

    import torch

    import sg3
    from sg3.metrics.equivariance_psnr import check_transform
    from sg3.sampling import class_labels, seed_latents
    from sg3.tools.encode import encoder_name, open_output, output_kind
    from sg3.tools.equivariance import draw_step, sweep, sweep_amounts

    transform = TRANSFORMS[transform]
    output = output or (outdir or Path()) / f"eq-{transform}-seed-{seed}.mp4"
    if output_kind(output) == "video":
        codec = encoder_name(output, codec)
    G, visible = open_framed_style(network, device, class_idx, bars)
    check_transform(G, ["--network"])
    place = G.mapping.w_avg.device
    z = seed_latents([seed], G.z_dim).to(place, torch.float32)
    with torch.no_grad():
        ws = G.mapping(z, class_labels(G, class_idx, 1).to(place), truncation_psi=truncation_psi)

    settings = {
        "network": Path(network).name, "transform": transform, "seed": seed, "trunc": truncation_psi,
        "class": class_idx if G.c_dim else None, "translate_max": translate_max, "rotate_max": rotate_max,
        "num_samples": num_samples, "gain": gain, "sg3": sg3.__version__,
    }  # fmt: skip
    amounts = sweep_amounts(transform, G.img_size, num_samples, translate_max, rotate_max)
    worst = float("inf")
    with open_output(output, fps=fps, codec=codec, bitrate=bitrate, comment=json.dumps(settings)) as add:
        for step in track(sweep(G, ws, transform, amounts), "frames", len(amounts)):
            worst = min(worst, step.psnr)
            add(draw_step(step, transform, gain, visible, class_idx if G.c_dim else None))
    say(f"lowest PSNR {worst:.1f} dB")
    show(output)
