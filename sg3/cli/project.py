"""`sg3 project`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import rich_click as click

from sg3.cli import options
from sg3.cli.options import switch
from sg3.progress import Progress
from sg3.terminal import say, show


@click.command("project")
@options.network
@click.option("--target", type=options.INPUT, required=True, metavar="PATH",
              help="An image, or a folder or zip of images; centred squares of them, scaled.")
@options.outdir
@click.option("--num-steps", type=click.IntRange(min=1), default=1000, show_default=True, help="Steps of optimisation.")
@click.option("--space", type=click.Choice(["w", "w+"]), default="w", show_default=True,
              help="One latent for all layers (pictures the network could make), or one for each (closer).")
@click.option("--features", type=click.Choice(["efflite", "vgg16"]), default="efflite", show_default=True,
              help="What distance is measured in: EfficientNet-Lite0 (in a checkout: pip install -e "
                   "'.[projected]'), or LPIPS with the original's vgg16 file.")
@click.option("--detector-dir", type=options.INPUT_FOLDER, metavar="DIR", help="Where that file is.")
@click.option("--lr", type=options.FiniteRange(min=0, min_open=True), default=0.1, show_default=True,
              help="Learning rate at its peak.")
@switch("--pose", default=True, help="StyleGAN3: also find how the picture is rotated and moved (default: yes).")
@options.one_class
@click.option("--seed", type=options.SEED, default=303, show_default=True,
              help="Of the noise while optimising.")
@options.bars
@switch("--save-video", help="Also write proj.mp4: target and picture side by side, step by step.")
@options.device
def command(
    network: str,
    target: Path,
    outdir: Path,
    num_steps: int,
    space: str,
    features: str,
    detector_dir: Path | None,
    lr: float,
    pose: bool,
    class_idx: int | None,
    seed: int,
    bars: bool,
    save_video: bool,
    device: str,
) -> None:
    """Find the latent whose picture is closest to an image.

    Writes target.png, proj.png and projected_w.npz (w [1, num_ws, w_dim]; for StyleGAN3 the input transform, for
    StyleGAN2 the noise maps), in a subfolder for each of several images.

    Examples:

        sg3 project --network=net.pkl --target=photo.jpg --outdir=out

        sg3 project --network=net.pkl --target=photos/ --space=w+ --num-steps=500 --save-video --outdir=out
    """
    from sg3.cli.network import open_framed_style, require_network

    require_network(network)
    from sg3._version import __version__
    from sg3.sampling import class_labels
    from sg3.tools import project as projection
    from sg3.tools.files import make_folder, save_arrays, save_png, without_bars
    from sg3.tools.perceptual import open_perceptual
    from sg3.tools.targets import is_collection, open_targets

    images = open_targets(target)
    G, visible = open_framed_style(network, device, class_idx, bars)
    class_labels(G, class_idx, 1)
    if save_video:
        from sg3.tools.encode import encoder_name

        encoder_name(outdir / "proj.mp4", None)  # complain now rather than after the work
    perceptual = open_perceptual(features, next(G.parameters()).device, detector_dir)
    settings = projection.Settings(
        steps=num_steps, space="w+" if space == "w+" else "w", lr=lr, seed=seed, pose_starts=3 if pose else 0
    )
    about = {
        "network": Path(network).name, "space": space, "features": features, "steps": num_steps, "lr": lr,
        "seed": seed, "class": class_idx if G.c_dim else None, "sg3": __version__,
    }  # fmt: skip
    for image in images:
        pixels = image.pixels(G.img_size, G.img_channels, visible)
        folder = outdir / image.name if is_collection(target) else outdir
        with _progress() as report:
            found = projection.project(
                G, pixels, perceptual, settings, class_idx=class_idx, report=partial(report, image.name),
                report_pose=partial(report, f"{image.name}: pose"),
            )  # fmt: skip
        proj, shown = (without_bars(one, visible) for one in (projection.picture(G, found), pixels))
        make_folder(folder)
        save_png(folder / "target.png", shown, {"target": image.name})
        save_png(folder / "proj.png", proj, {"target": image.name, **about})
        save_arrays(folder / "projected_w.npz", found.arrays())
        written = ["target.png", "proj.png", "projected_w.npz"]
        if save_video:
            from sg3.tools.encode import open_output

            with open_output(folder / "proj.mp4", fps=60) as add:
                pair = None if visible is None else (visible[0], 2 * visible[1])
                for frame in projection.frames(G, found, pixels):
                    add(without_bars(frame, pair))
            written.append("proj.mp4")
        for file in written:
            show(folder / file)
        result = f"{image.name}: distance {found.distances[-1]:.4g}, PSNR {projection.psnr(shown, proj):.2f} dB"
        say(", ".join(filter(None, [result, found.moved()])))


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int, float], None]]:
    """Steps, distance and time left, on stderr, of each part."""
    with Progress() as progress:
        yield lambda part, done, total, distance: progress.show(part, done, total, f"distance {distance:.4g}")
