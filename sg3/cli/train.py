"""`sg3 train`."""

from __future__ import annotations

import json
import os
import sys
from math import inf
from pathlib import Path
from typing import Any

import rich_click as click

from sg3.cli.options import Decorator, FiniteRange, GridSize, switch
from sg3.errors import UsageError
from sg3.train.config import Options, TrainConfig
from sg3.train.option_file import CHOICES, KINDS, RANGES, origins, read_options
from sg3.train.presets import PRESETS

PANELS = {
    "Run": ["--outdir", "--data", "--preset", "--config", "--cfg", "--continue", "--dry-run", "--list-presets",
            "--help"],
    "Most important": ["--batch", "--gamma", "--gpus", "--kimg", "--minutes", "--mirror", "--cond", "--resume"],
    "Augmentation": ["--aug", "--augpipe", "--target", "--p"],
    "Networks": ["--cbase", "--cmax", "--latent", "--layers", "--margin", "--map-depth", "--d-map-depth", "--d-arch",
                 "--mbstd-group", "--freezed"],
    "Optimisation": ["--batch-gpu", "--glr", "--dlr", "--ema-kimg", "--ema-rampup", "--pl-weight", "--style-mix",
                     "--seed", "--subset"],
    "Output": ["--tick", "--snap", "--grid", "--metrics", "--detector-dir", "--keep-snapshots", "--desc"],
    "Machine": ["--device", "--workers", "--on-error", "--fp32", "--bf16", "--tf32", "--nhwc", "--compile", "--nobench",
                "--timeout", "--profile"],
}  # fmt: skip
click.rich_click.OPTION_GROUPS["sg3 train"] = [{"name": k, "options": v} for k, v in PANELS.items()]


def option(flag: str, **shown: Any) -> Decorator:
    """One of `Options`, with the type and the bounds that it has in an option file, too."""
    name = flag.removeprefix("--").replace("-", "_")
    kind = KINDS[name]
    if kind is bool:
        return switch(flag, default=None, **shown)
    if name in RANGES:
        low, high = RANGES[name]
        bounded: Any = click.IntRange if kind is int else FiniteRange
        return click.option(flag, type=bounded(low, None if high == inf else high), **shown)
    chosen = click.Choice(CHOICES[name]) if name in CHOICES else GridSize() if name == "grid" else kind
    return click.option(flag, type=chosen, **shown)


@click.command("train")
@click.option("--outdir", type=click.Path(path_type=Path), help="Where the numbered run folder goes.", metavar="DIR")
@option("--data", help="Images: a folder, a zip, or openmoji[:SUBSET][:SIZE], rendered here.", metavar="PATH")
@click.option("--preset", help="Ready-made options; what you say yourself wins.", metavar="NAME")
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE",
              help="Options from .toml or .json (also a run's training_options.json); what you say yourself wins.")
@option("--cfg", help="Network and training recipe.  [default: stylegan3-t]")
@click.option("--continue", "continue_", help="Go on with a run folder, exactly; 'latest' for the newest in --outdir.",
              metavar="RUN")
@click.option("-n", "--dry-run", is_flag=True, help="Print the configuration, layers and memory needed; do not train.")
@click.option("--list-presets", is_flag=True, help="List the presets and what they set.")
@option("--batch", help="Images per step.  [default: 32]")
@option("--gamma", help="R1 regularisation weight.  [default: 0.0002 * resolution^2 / batch]")
@option("--gpus", help="Number of GPUs; the CPU counts as one.  [default: 1]")
@option("--kimg", help="Length in thousands of images.  [default: 25000]", metavar="KIMG")
@option("--minutes", help="End after this much training time, should that come first.", metavar="MIN")
@option("--mirror", help="Also show each image mirrored.")
@option("--cond", help="Condition on the dataset's labels.")
@option("--resume", help="Start from another network's weights (not the way to continue a run).", metavar="PKL")
@option("--cbase", help="Channels: cbase / resolution, ...  [default: 32768]")
@option("--cmax", help="... but at most this many.  [default: 512]")
@option("--latent", help="Dimensions of z and w.  [default: 512]")
@option("--layers", help="StyleGAN3: layers without ToRGB.  [default: 14]")
@option("--margin", help="StyleGAN3: pixels beyond the border.  [default: 10]")
@option("--map-depth", help="Layers of G's mapping network.  [default: 2; stylegan2: 8]")
@option("--d-map-depth", help="Layers of D's mapping network, with --cond.  [default: 8]")
@option("--d-arch", help="Connections of D's blocks.  [default: resnet]")
@option("--mbstd-group", help="Group size of D's minibatch statistics.  [default: 4]")
@option("--freezed", help="Freeze the first layers of D.  [default: 0]", metavar="N")
@option("--batch-gpu", help="Images at a time, accumulated to a batch.  [default: batch / gpus]")
@option("--glr", help="Learning rate of G.  [default: 0.0025; stylegan2: 0.002]")
@option("--dlr", help="Learning rate of D.  [default: 0.002]")
@option("--ema-kimg", help="Half-life of the weight average.  [default: batch * 10 / 32]", metavar="KIMG")
@option("--ema-rampup",
        help="Shorter half-life early on: this share of the images so far; 0 for none.  [default: 0.05]")
@option("--pl-weight", help="Path length regularisation of G.  [default: 0; stylegan2: 2]")
@option("--style-mix", help="Style mixing probability.  [default: 0; stylegan2: 0.9]")
@option("--aug", help="Augment what D sees: by its overfitting, with fixed --p, or not.  [default: ada]")
@option("--augpipe", help="What to augment by.  [default: bgc]")
@option("--p", help="Probability of --aug=fixed.  [default: 0.2]")
@option("--target", help="--aug=ada: share of D's right guesses on real images, from 0 to 1.  [default: 0.6]")
@option("--seed", help="Everything random derives from it.  [default: 0]")
@option("--subset", help="Use only this many images.", metavar="N")
@option("--tick", help="Report progress this often.  [default: 4]", metavar="KIMG")
@option("--snap", help="Save images, networks and state this often.  [default: 50]", metavar="TICKS")
@option("--grid", help="Images per grid.  [default: as many as fit 7680 x 4320]")
@option("--metrics", metavar="LIST",
        help="Quality metrics for each snapshot, such as fid50k_full; see sg3 metrics.  [default: none]")
@option("--detector-dir", help="Folder of the metrics' feature networks.", metavar="DIR")
@option("--keep-snapshots", help="Keep the newest N networks and the best.  [default: all]", metavar="N")
@option("--desc", help="Added to the run folder's name.", metavar="TEXT")
@option("--device", help="auto, cpu, cuda or cuda:N.  [default: auto]")
@option("--workers", help="Processes that load images.  [default: 3]")
@option("--on-error", help="An image that cannot be read ends the run, or is named and passed over.  [default: fail]")
@option("--timeout", metavar="SEC", help="Several GPUs: give up when one hangs for so long.  [default: 300]")
@option("--profile", help="Write a trace of so many steps.", metavar="STEPS")
@option("--fp32", help="No half precision.")
@option("--bf16", help="bfloat16 where float16 would be used.")
@option("--tf32", help="Allow TensorFloat-32 in float32 layers.")
@option("--nhwc", help="Channels last in layers with 16 bits (D, and StyleGAN2's G).")
@option("--compile", help="torch.compile for the main phases; graphs: and CUDA graphs.  [default: off]")
@option("--nobench", help="Do not let cuDNN time its algorithms.")
def command(
    outdir: Path | None,
    preset: str | None,
    config_file: Path | None,
    continue_: str | None,
    dry_run: bool,
    list_presets: bool,
    **said: Any,
) -> int:
    """Train a generator.

    Examples:

        sg3 train --preset=demo --outdir=runs

        sg3 train --outdir=runs --data=photos.zip --cfg=stylegan3-t --batch=32 --gamma=2 --mirror=1

        sg3 train --continue=runs/00000-stylegan3-t-photos-gpus1-batch32-gamma2
    """
    if list_presets:
        for name, known in PRESETS.items():
            click.echo(f"{name}: {known.title}\n  {' '.join(_as_flags(known.options))}")
        return 0
    words = Options(**said)
    if continue_ is not None:
        if preset is not None or config_file is not None or dry_run:
            raise UsageError("--continue: takes its options from the run; leave out --preset, --config and --dry-run")
        return _continue(continue_, outdir, words)

    layers = [("command line", words)]
    if config_file is not None:
        from_file, named = read_options(config_file)
        layers.append((str(config_file), from_file))
        preset = preset or named
    if preset is not None:
        if preset not in PRESETS:
            raise UsageError(f"--preset={preset}: unknown{_suggest(preset)}; see sg3 train --list-presets")
        layers.append((f"preset {preset}", PRESETS[preset].options))
    options, where = origins(layers)
    if outdir is None:
        raise UsageError("--outdir: needed, the folder that will hold the run folder")

    from sg3.processes import find_place

    if dry_run:
        from sg3.train.launch import configure

        _print_plan(configure(options, outdir), where)
        return 0
    if (options.gpus or 1) > 1 and find_place(os.environ) is None:
        from sg3.train.spawn import run_processes

        return run_processes(options.gpus or 1, ["train", f"--outdir={outdir}", *_as_flags(options)])
    from sg3.train.launch import start

    _say_where(start(options, outdir))
    return 0


def _continue(run: str, outdir: Path | None, changes: Options) -> int:
    from sg3.processes import find_place
    from sg3.run_folder import find_run
    from sg3.train.launch import continue_run, read_run

    if find_place(os.environ) is None:
        config, _ = read_run(find_run(run, outdir))
        gpus = changes.gpus or config.gpus
        if gpus > 1:
            from sg3.train.spawn import run_processes

            flags = [f"--outdir={outdir}"] if outdir is not None else []
            return run_processes(gpus, ["train", f"--continue={run}", *flags, *_as_flags(changes)])
    _say_where(continue_run(run, outdir, changes))
    return 0


def _say_where(run_dir: Path) -> None:
    from sg3.processes import find_place

    place = find_place(os.environ)
    if place is None or place.rank == 0:
        click.echo(run_dir)


def _suggest(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, PRESETS, n=1)
    return f", did you mean {close[0]}?" if close else ""


def _as_flags(options: Options) -> list[str]:
    return [
        f"--{name.replace('_', '-')}={'x'.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in options.said().items()
    ]


def _print_plan(config: TrainConfig, where: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from sg3.train.summary import summarize

    click.echo(json.dumps(config.to_dict(), indent=2))
    summary = summarize(config)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    sources = Table("option", "value", title="Options", title_justify="left")
    sources.add_column("from", overflow="fold")
    values = {**config.to_dict(), "data": config.dataset.path, "latent": config.z_dim, "fp32": not config.is_half,
              "style_mix": config.style_mixing_prob}  # fmt: skip
    for name, source in where.items():
        sources.add_row("--" + name.replace("_", "-"), str(values[name]), source)
    console.print(sources)
    for name, rows in (("G", summary.G), ("D", summary.D)):
        table = Table("layer", title=name, title_justify="left")
        for column in ("parameters", "buffers"):
            table.add_column(column, justify="right")
        table.add_column("output")
        table.add_column("type")
        for row in rows:
            shape = ", ".join(map(str, row.output))
            table.add_row(row.name, f"{row.parameters:,}", f"{row.buffers:,}", shape, row.dtype)
        total = [f"{sum(getattr(r, kind) for r in rows):,}" for kind in ("parameters", "buffers")]
        table.add_row("total", *total, "", "")
        console.print(table)
    gib = 2**30
    click.echo(
        f"memory for training, estimated: {summary.total_bytes / gib:.2f} GiB ({summary.weight_bytes / gib:.2f} "
        f"weights, gradients, optimiser; {summary.activation_bytes / gib:.2f} activations of {config.batch_gpu} images)"
    )
