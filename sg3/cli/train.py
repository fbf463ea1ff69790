"""`sg3 train`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import rich_click as click

from sg3.cli.options import GridSize, switch
from sg3.errors import UsageError
from sg3.train.config import CFGS, Options, TrainConfig
from sg3.train.option_file import CHOICES, origins, read_options
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


at_least_1 = click.IntRange(min=1)
not_negative = click.FloatRange(min=0)


@click.command("train")
@click.option("--outdir", type=click.Path(path_type=Path), help="Where the numbered run folder goes.", metavar="DIR")
@click.option("--data", help="Images: a folder, a zip, or openmoji[:SUBSET][:SIZE], rendered here.", metavar="PATH")
@click.option("--preset", help="Ready-made options; what you say yourself wins.", metavar="NAME")
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE",
              help="Options from .toml or .json (also a run's training_options.json); what you say yourself wins.")
@click.option("--cfg", type=click.Choice(CFGS), help="Network and training recipe.  [default: stylegan3-t]")
@click.option("--continue", "continue_", help="Go on with a run folder, exactly; 'latest' for the newest in --outdir.",
              metavar="RUN")
@click.option("-n", "--dry-run", is_flag=True, help="Print the configuration, layers and memory needed; do not train.")
@click.option("--list-presets", is_flag=True, help="List the presets and what they set.")
@click.option("--batch", type=at_least_1, help="Images per step.  [default: 32]")
@click.option("--gamma", type=not_negative, help="R1 regularisation weight.  [default: 0.0002 * resolution^2 / batch]")
@click.option("--gpus", type=at_least_1, help="Number of GPUs; the CPU counts as one.  [default: 1]")
@click.option("--kimg", type=at_least_1, help="Length in thousands of images.  [default: 25000]", metavar="KIMG")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True),
              help="End after this much training time, should that come first.", metavar="MIN")
@switch("--mirror", default=None, help="Also show each image mirrored.")
@switch("--cond", default=None, help="Condition on the dataset's labels.")
@click.option("--resume", help="Start from another network's weights (not the way to continue a run).", metavar="PKL")
@click.option("--cbase", type=at_least_1, help="Channels: cbase / resolution, ...  [default: 32768]")
@click.option("--cmax", type=at_least_1, help="... but at most this many.  [default: 512]")
@click.option("--latent", type=at_least_1, help="Dimensions of z and w.  [default: 512]")
@click.option("--layers", type=at_least_1, help="StyleGAN3: layers without ToRGB.  [default: 14]")
@click.option("--margin", type=click.IntRange(min=0), help="StyleGAN3: pixels beyond the border.  [default: 10]")
@click.option("--map-depth", type=at_least_1, help="Layers of G's mapping network.  [default: 2; stylegan2: 8]")
@click.option("--d-map-depth", type=at_least_1, help="Layers of D's mapping network, with --cond.  [default: 8]")
@click.option("--d-arch", type=click.Choice(CHOICES["d_arch"]), help="Connections of D's blocks.  [default: resnet]")
@click.option("--mbstd-group", type=at_least_1, help="Group size of D's minibatch statistics.  [default: 4]")
@click.option("--freezed", type=click.IntRange(min=0), help="Freeze the first layers of D.  [default: 0]", metavar="N")
@click.option("--batch-gpu", type=at_least_1, help="Images at a time, accumulated to a batch.  [default: batch / gpus]")
@click.option("--glr", type=not_negative, help="Learning rate of G.  [default: 0.0025; stylegan2: 0.002]")
@click.option("--dlr", type=not_negative, help="Learning rate of D.  [default: 0.002]")
@click.option("--ema-kimg", type=not_negative, help="Half-life of the weight average.  [default: batch * 10 / 32]",
              metavar="KIMG")
@click.option("--ema-rampup", type=not_negative,
              help="Shorter half-life early on: this share of the images so far; 0 for none.  [default: 0.05]")
@click.option("--pl-weight", type=not_negative, help="Path length regularisation of G.  [default: 0; stylegan2: 2]")
@click.option("--style-mix", type=click.FloatRange(0, 1),
              help="Style mixing probability.  [default: 0; stylegan2: 0.9]")
@click.option("--aug", type=click.Choice(CHOICES["aug"]),
              help="Augment what D sees: by its overfitting, with fixed --p, or not.  [default: ada]")
@click.option("--augpipe", type=click.Choice(CHOICES["augpipe"]), help="What to augment by.  [default: bgc]")
@click.option("--p", type=click.FloatRange(0, 1), help="Probability of --aug=fixed.  [default: 0.2]")
@click.option("--target", type=click.FloatRange(0, 1),
              help="--aug=ada: share of D's right guesses on real images, from 0 to 1.  [default: 0.6]")
@click.option("--seed", type=click.IntRange(min=0), help="Everything random derives from it.  [default: 0]")
@click.option("--subset", type=at_least_1, help="Use only this many images.", metavar="N")
@click.option("--tick", type=at_least_1, help="Report progress this often.  [default: 4]", metavar="KIMG")
@click.option("--snap", type=at_least_1, help="Save images, networks and state this often.  [default: 50]",
              metavar="TICKS")
@click.option("--grid", type=GridSize(), help="Images per grid.  [default: as many as fit 7680 x 4320]")
@click.option("--metrics", metavar="LIST",
              help="Quality metrics for each snapshot, such as fid50k_full; see sg3 metrics.  [default: none]")
@click.option("--detector-dir", help="Folder of the metrics' feature networks.", metavar="DIR")
@click.option("--keep-snapshots", type=at_least_1, help="Keep the newest N networks and the best.  [default: all]",
              metavar="N")
@click.option("--desc", help="Added to the run folder's name.", metavar="TEXT")
@click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: auto]")
@click.option("--workers", type=click.IntRange(min=0), help="Processes that load images.  [default: 3]")
@click.option("--on-error", type=click.Choice(CHOICES["on_error"]),
              help="An image that cannot be read ends the run, or is named and passed over.  [default: fail]")
@click.option("--timeout", type=click.FloatRange(min=1), metavar="SEC",
              help="Several GPUs: give up when one hangs for so long.  [default: 300]")
@click.option("--profile", type=at_least_1, help="Write a trace of so many steps.", metavar="STEPS")
@switch("--fp32", default=None, help="No half precision.")
@switch("--bf16", default=None, help="bfloat16 where float16 would be used.")
@switch("--tf32", default=None, help="Allow TensorFloat-32 in float32 layers.")
@switch("--nhwc", default=None, help="Channels last in layers with 16 bits (D, and StyleGAN2's G).")
@click.option("--compile", type=click.Choice(CHOICES["compile"]),
              help="torch.compile for the main phases; graphs: and CUDA graphs.  [default: off]")
@switch("--nobench", default=None, help="Do not let cuDNN time its algorithms.")
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

    from sg3.train.distributed import find_place

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
    from sg3.train.distributed import find_place
    from sg3.train.launch import continue_run, find_run, read_run

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
    from sg3.train.distributed import find_place

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
