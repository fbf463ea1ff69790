"""`sg3 metrics`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rich_click as click

from sg3 import limits
from sg3.cli import options
from sg3.cli.options import switch
from sg3.progress import Progress
from sg3.terminal import say, show

DETECTORS = ("inception", "vgg16", "efflite", "lite1", "dinov2", "dinov2b")  # a test compares with those that there are


def _named_weights(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """NAME=FILE -> the two."""
    pairs = [tuple(value.split("=", 1)) for value in values]
    for value, pair in zip(values, pairs, strict=True):
        if len(pair) < 2 or pair[0] not in DETECTORS or not pair[1]:
            raise click.BadParameter(f"{value}: expected NAME=FILE, where NAME is one of {', '.join(DETECTORS)}")
    return tuple((pair[0], pair[1]) for pair in pairs)


@click.command("metrics")
@options.network
@click.option("--metrics", "names", metavar="LIST", help="Names, separated by commas.  [default: fid50k_full]")
@click.option("--data", type=options.INPUT, metavar="PATH",
              help="Real images, a folder or zip.  [default: what the network was trained on]")
@click.option("--test-data", type=options.INPUT, metavar="PATH",
              help="Real images that training has not seen, for auth and ct.  [default: what --holdout left out]")
@click.option("--sheet", type=options.OUTPUT_FILE, metavar="FILE",
              help="PNG of generated images beside their nearest training images; adds auth_lite1 if no auth is named.")
@switch("--mirror", default=None, help="Real images also mirrored, for fid50k, kid50k and pr50k3, not for the *_full "
        "ones.  [default: as trained]")
@switch("--all", "every", help="All snapshots of the run folder.")
@switch("--again", help="Also what the run folder holds results of.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of latents and transforms.")
@click.option("--gpus", type=click.IntRange(min=1), metavar="N",
              help="Processes that share the work; those of torchrun and srun do so by themselves.  [default: 1]")
@click.option("--batch", type=click.IntRange(min=1), default=32, show_default=True, help="Images at a time.")
@click.option("--workers", type=click.IntRange(0, limits.LOADERS),
              help="Processes that decode real images, for each of --gpus.  [default: 3, or as many as there are CPUs]")
@click.option("--detector-dir", type=options.INPUT_FOLDER, metavar="DIR",
              help="Folder with the weights of Inception-v3, VGG16 and DINOv2.")
@click.option("--detector", "weights", multiple=True, metavar="NAME=FILE", callback=_named_weights,
              help="Weights of one detector, a file or an address: dinov2=https://..., inception=my/copy.pth.")
@switch("--intervals", help="With 95 % confidence intervals, which take longer.")
@click.option("--against", type=options.NAME, metavar="NETWORK",
              help="Another network: also how much larger each value is than its, with an interval.")
@click.option("--background", metavar="COLOUR", default="white", show_default=True,
              help="Detectors see images with alpha over this colour; over another one it is another metric.")
@switch("--bars", help="Networks trained between black bars: measure whole squares, real and generated, as the "
        "original does.  [default: what lies between]")
@switch("--cache", default=True, help="Keep statistics of the real images for the next time (default: yes).")
@click.option("--plot", "plot_path", type=options.OUTPUT_FILE, metavar="FILE",
              help="Draw the run folder's metrics against kimg; without --metrics, only that.")
@switch("--json", "as_json", help="Print each result as a line of JSON, the one that metric-NAME.jsonl gets.")
@options.no_graphs
@options.device
def command(
    network: str,
    names: str | None,
    data: Path | None,
    test_data: Path | None,
    sheet: Path | None,
    mirror: bool | None,
    every: bool,
    again: bool,
    seed: int,
    gpus: int | None,
    batch: int,
    workers: int | None,
    detector_dir: Path | None,
    weights: tuple[tuple[str, str], ...],
    intervals: bool,
    against: str | None,
    background: str,
    bars: bool,
    cache: bool,
    plot_path: Path | None,
    as_json: bool,
    no_graphs: bool,
    device: str,
) -> None:
    """Measure how good a network's images are.

    fid50k_full kid50k_full pr50k3_full is50k ppl2_wend eqt50k_int eqt50k_frac eqr50k are defined as in the original;
    any of them takes another number of images, as in fid5k_full. fd_efflite needs no download, fwd5k_full no network;
    docs/metrics.md says what each number means. Of images with alpha, NAME_alpha is of their alpha alone. In a run
    folder, results are added to metric-NAME.jsonl as they come; an interrupted command goes on when it is repeated.

    Examples:

        sg3 metrics --network=runs/00000-... --metrics=fid5k_full,eqt1k_int

        sg3 metrics --network=a.pkl --against=b.pkl --data=photos.zip --metrics=fd_lite1,fwd5k_full

        sg3 metrics --network=net.pkl --data=photos.zip --metrics=fid50k_full,kid50k_full,pr50k3_full --gpus=8 --json

        sg3 metrics --network=runs/00000-... --all --metrics=fd_efflite --plot=fd.png
    """
    from sg3.cli.ranks import may_be_one_of_several, ranks
    from sg3.errors import UsageError
    from sg3.named_paths import nothing_at
    from sg3.published import is_remote

    if plot_path is not None and not Path(network).is_dir():
        raise UsageError(f"--plot: needs a run folder, which {network} is not")
    if not (may_be_one_of_several() or Path(network).exists() or is_remote(network)):
        raise nothing_at(network)  # now rather than after PyTorch's import
    import os
    from dataclasses import replace

    from sg3.metrics import parse
    from sg3.metrics.network_files import Job, find_snapshots, measure, measure_in_processes
    from sg3.metrics.plot import plot
    from sg3.plotting import check_plot
    from sg3.processes import find_place
    from sg3.resources import loaders
    from sg3.run_folder import going_on
    from sg3.transparency import colour

    colour(background)
    if plot_path is not None:
        check_plot(plot_path, "--plot")  # now rather than after the work
    if sheet is not None and (every or against is not None):
        raise UsageError("--sheet: shows one network; leave --all and --against out")
    if sheet is not None and not any(name.strip().startswith("auth") for name in (names or "").split(",")):
        names = f"{names},auth_lite1" if names else "auth_lite1"
    if names is None and plot_path is None:
        names = "fid50k_full"
    chosen = tuple(dict.fromkeys(parse(name.strip()) for name in (names or "").split(",") if name.strip()))
    if names is not None and not chosen:
        raise UsageError("--metrics: names none, expected a list such as fid50k_full,kid50k_full")
    if against is not None and not chosen:
        raise UsageError("--against: needs --metrics")
    if chosen:
        other = () if against is None else find_snapshots(against, False)
        found = find_snapshots(network, every)
        if Path(network).is_dir() and (note := going_on(found[-1])):
            say(f"note: {note}")
        job = Job(
            other + found, chosen, data, mirror, device, seed, batch,
            loaders() if workers is None else workers, detector_dir, cache, again, not no_graphs,
            intervals or against is not None, weights=weights, background=background, bars=bars, test=test_data,
            sheet=sheet,
        )  # fmt: skip
        display = Display(as_json, len(job.snapshots) > 1, against)
        if gpus is not None and gpus > 1 and find_place(os.environ) is None:
            measure_in_processes(job, display, gpus)
        else:
            with ranks(device, gpus) as world:
                measure(replace(job, device=str(world.device)), display)
            if not world.is_main:
                return
    if sheet is not None:
        (say if as_json else show)(f"{sheet}: nearest training images")
    if plot_path is not None:
        count = plot(Path(network), plot_path, [metric.name for metric in chosen])
        (say if as_json else show)(f"{plot_path}: {count} metric{'s' if count > 1 else ''}")


@dataclass
class Display:
    """Results on stdout, progress on stderr."""

    as_json: bool
    named: bool  # whether to say which snapshot a result is of
    against: str | None = None  # the network whose results come first, and from which differences are shown
    _first: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    _progress: Progress = field(default_factory=Progress, repr=False)

    def progress(self, what: str, done: int, total: int) -> None:
        """Show how far a part of the work is, and how long it will take."""
        self._progress.show(what, done, total)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._progress.hide()

    def result(self, line: dict[str, Any], known: bool) -> None:
        """Print a result."""
        import json

        self._progress.hide()
        for note in line["recipe"].get("notes", ()):
            say(f"{line['metric']}: {note}")
        differences = self._differences(line)
        if self.as_json:
            show(json.dumps({**line, "difference": differences} if differences else line))
            return
        intervals = line.get("intervals", {})
        classes = line["recipe"].get("real_images_of_class", {})
        of_classes = {name: [_of_class(name, index) for index in classes] for name in line["results"]}
        in_table = {name for names in of_classes.values() for name in names}
        means = [name for name in line["results"] if name not in in_table]
        values = "  ".join(f"{name} {_number(line['results'][name])}{_around(intervals.get(name))}" for name in means)
        where = f"{line['snapshot_pkl']}: " if self.named else ""
        time_taken = "known" if known else line["total_time_str"]
        show(f"{where}{values}  ({time_taken})")
        for index in classes:
            names = [_of_class(name, index) for name in means]
            numbers = "".join(f"  {'alpha' if name.endswith('_alpha') else ''}{_number(line['results'][name]):>10s}"
                              f"{_around(intervals.get(name))}" for name in names)  # fmt: skip
            show(f"  class {index:>4s}  {classes[index]:7d} real images{numbers}")
        for name, interval in differences.items():
            show(f"  {name} minus that of {self.against}: {_number(interval['value'])}{_around(interval)}")

    def _differences(self, line: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """By name, how much larger values are than those of the network that came first."""
        from sg3.metrics.intervals import differences

        first = self._first.setdefault(line["metric"], line)
        return {} if self.against is None or first is line else differences(line, first, say)


def _of_class(name: str, index: str) -> str:
    """What the number `name`, a mean over classes, is called for one of them."""
    of_image = name.removesuffix("_alpha")
    return f"{of_image}_{index}{name[len(of_image):]}"


def _number(value: float | None, digits: int = 6) -> str:
    return "nan" if value is None else format(value, f".{digits}g")


def _around(interval: dict[str, Any] | None) -> str:
    """` [low, high]`, if there is an interval."""
    return "" if interval is None else f" [{_number(interval['low'], 5)}, {_number(interval['high'], 5)}]"
