"""`sg3 spectra`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import rich_click as click

from sg3.cli import options
from sg3.progress import track
from sg3.terminal import show

HEATMAP, SLICES = "-heatmap.png", "-slices.png"  # ends of the names of plots


def _source_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of the subcommands that look at images."""
    for option in reversed((
        click.option("--source", type=options.NAME, required=True, metavar="PATH",
                     help="Dataset (zip or folder), or network: a file, a run folder (its newest), an address, or a "
                          "published network's name."),
        click.option("--num", type=click.IntRange(min=1), help="How many images; all of a dataset if not given."),
        click.option("--seed", type=options.SEED, default=0, show_default=True,
                     help="Which images of the dataset, or which latents."),
        click.option("--class", "class_idx", type=click.IntRange(min=0), metavar="N",
                     help="Class of a conditional network; every class in turn if not given."),
        options.switch("--alpha", help="Of images with alpha: that alone, instead of their premultiplied colours."),
        options.batch,
        options.device,
    )):  # fmt: skip
        function = option(function)
    return function


def _plot_options(smooth: float, ending: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed((
            click.option("--save", type=options.OUTPUT_FILE, metavar="FILE",
                         help=f"Where the plot goes: .png, .pdf or .svg.  [default: beside the first, NAME{ending}]"),
            click.option("--dpi", type=options.FiniteRange(min=10, max=2000), default=100, show_default=True,
                         help="Pixels per inch."),
            click.option("--smooth", type=options.FiniteRange(min=0, max=1000), default=smooth, show_default=True,
                         help="Standard deviation of a Gaussian blur, in entries of the spectrum."),
        )):  # fmt: skip
            function = option(function)
        return function

    return decorate


@click.group("spectra")
def command() -> None:
    """Average power spectra of datasets and networks.

    First the mean and standard deviation of the dataset's pixels, then with these the spectra of the dataset and of
    networks trained on it, then plots.

    Examples:

        sg3 spectra stats --source=photos-256.zip

        sg3 spectra calc --source=photos-256.zip --dest=photos.npz --mean=112.684 --std=69.509

        sg3 spectra calc --source=net.pkl --num=10000 --dest=net.npz --mean=112.684 --std=69.509

        sg3 spectra heatmap net.npz --save=net.png

        sg3 spectra slices photos.npz net.npz --save=slices.png
    """


@command.command("stats")
@_source_options
@options.as_json
def stats(
    source: str, num: int | None, seed: int, class_idx: int | None, alpha: bool, batch: int, device: str, as_json: bool
) -> None:
    """Mean and standard deviation of pixels, 0 to 255.

    Examples:

        sg3 spectra stats --source=photos-256.zip --num=10000
    """
    import dataclasses
    import json

    from sg3.device import device_for_work
    from sg3.tools.spectra import open_images, pixel_stats

    on = device_for_work(device)
    found = open_images(source, num, seed, class_idx=class_idx, batch=batch, device=on, alpha=alpha)
    result = pixel_stats(track(found.images, "images", found.count))
    if as_json:
        show(json.dumps(dataclasses.asdict(result)))
        return
    show(f"images {result.images}", f"mean {result.mean:.6g}", f"std {result.std:.6g}")
    show(f"channel_mean {' '.join(f'{value:.6g}' for value in result.channel_mean)}")
    show(f"channel_std {' '.join(f'{value:.6g}' for value in result.channel_std)}")


@command.command("calc")
@_source_options
@click.option("--dest", type=options.OUTPUT_FILE, required=True, metavar="NPZ",
              help="Where the spectrum goes; its folder is made.")
@click.option("--mean", type=options.Finite(), required=True,
              help="Subtracted from pixels; the dataset's, from `stats`.")
@click.option("--std", type=options.Finite(), required=True,
              help="Divides pixels; the dataset's, from `stats`.")
@click.option("--beta", type=options.FiniteRange(min=0, max=100), default=8, show_default=True,
              help="Shape of the Kaiser window.")
@click.option("--interp", type=click.IntRange(min=1, max=16), default=4, show_default=True,
              help="Entries of the spectrum for each pixel of the image's side.")
def calc(
    source: str,
    num: int | None,
    seed: int,
    class_idx: int | None,
    alpha: bool,
    batch: int,
    device: str,
    dest: Path,
    mean: float,
    std: float,
    beta: float,
    interp: int,
) -> None:
    """Average power spectrum of images, as an .npz with the keys spectrum and image_size.

    Examples:

        sg3 spectra calc --source=photos-256.zip --dest=photos.npz --mean=112.684 --std=69.509
    """
    from sg3.device import device_for_work
    from sg3.errors import UsageError
    from sg3.tools.files import make_folder
    from sg3.tools.spectra import open_images, power_spectrum, save_spectrum

    if dest.suffix.lower() != ".npz":
        raise UsageError(f"--dest={dest}: expected a name ending in .npz")
    on = device_for_work(device)
    found = open_images(source, num, seed, class_idx=class_idx, batch=batch, device=on, alpha=alpha)
    make_folder(dest.parent)  # now rather than after the work
    images = track(found.images, "images", found.count)
    transform_on = "cpu" if on.type == "mps" else on  # which has no float64
    save_spectrum(power_spectrum(images, mean, std, beta=beta, interp=interp, device=transform_on), dest)
    show(dest)


def _place(save: Path | None, npz: Path, ending: str) -> Path:
    """Where a plot goes, known to be possible: --save, or beside the first file, which is missed when it is read."""
    from sg3.plotting import check_plot

    place = save or npz.with_name(npz.stem + ending)
    if save is not None or npz.is_file():
        check_plot(place, "--save")
    return place


@command.command("heatmap")
@click.argument("npz", type=options.INPUT_FILE)
@_plot_options(smooth=1.25, ending=HEATMAP)
def heatmap(npz: Path, save: Path | None, dpi: float, smooth: float) -> None:
    """Plot the spectrum of one .npz over both frequencies, and print where the picture is.

    Examples:

        sg3 spectra heatmap net.npz --save=net.png
    """
    from sg3.plotting import save_figure
    from sg3.tools import spectra_plots
    from sg3.tools.spectra import load_spectrum

    save = _place(save, npz, HEATMAP)
    save_figure(spectra_plots.heatmap(load_spectrum(npz), npz.stem, smooth), save, dpi)
    show(save)


@command.command("slices")
@click.argument("npz", type=options.INPUT_FILE, nargs=-1, required=True)
@_plot_options(smooth=0.0, ending=SLICES)
def slices(npz: tuple[Path, ...], save: Path | None, dpi: float, smooth: float) -> None:
    """Plot horizontal and diagonal slices of several .npz together, and print where the picture is.

    Examples:

        sg3 spectra slices photos.npz net.npz --save=slices.png
    """
    from sg3.plotting import save_figure
    from sg3.tools import spectra_plots
    from sg3.tools.spectra import load_spectrum

    save = _place(save, npz[0], SLICES)
    stems = [path.stem for path in npz]
    names = stems if len(set(stems)) == len(stems) else [str(path) for path in npz]
    spectra = {name: load_spectrum(path) for name, path in zip(names, npz, strict=True)}
    save_figure(spectra_plots.slices(spectra, smooth), save, dpi)
    show(save)
