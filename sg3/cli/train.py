"""`sg3 train`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import rich_click as click

from sg3.cli.options import GridSize, switch
from sg3.errors import UsageError
from sg3.train.config import CFGS, PRESETS, Options, TrainConfig

PANELS = {
    "Run": ["--outdir", "--data", "--preset", "--cfg", "--continue", "--dry-run", "--list-presets", "--help"],
    "Most important": ["--batch", "--gamma", "--gpus", "--kimg", "--minutes", "--mirror", "--cond", "--resume"],
    "Networks": ["--cbase", "--cmax", "--latent", "--layers", "--margin", "--map-depth", "--mbstd-group", "--freezed"],
    "Optimisation": ["--batch-gpu", "--glr", "--dlr", "--ema-kimg", "--aug", "--p", "--target", "--seed", "--subset"],
    "Output": ["--tick", "--snap", "--grid", "--metrics", "--desc"],
    "Machine": ["--device", "--workers", "--fp32", "--nobench"],
}
click.rich_click.OPTION_GROUPS["sg3 train"] = [{"name": k, "options": v} for k, v in PANELS.items()]


at_least_1 = click.IntRange(min=1)
not_negative = click.FloatRange(min=0)


@click.command("train")
@click.option("--outdir", type=click.Path(path_type=Path), help="Where the numbered run folder goes.", metavar="DIR")
@click.option("--data", help="Images: a folder, a zip, or openmoji[:SUBSET][:SIZE], rendered here.", metavar="PATH")
@click.option("--preset", help="Ready-made options; what you say yourself wins.", metavar="NAME")
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
@click.option("--mbstd-group", type=at_least_1, help="Group size of D's minibatch statistics.  [default: 4]")
@click.option("--freezed", type=click.IntRange(min=0), help="Freeze the first layers of D.  [default: 0]", metavar="N")
@click.option("--batch-gpu", type=at_least_1, help="Images at a time, accumulated to a batch.  [default: batch / gpus]")
@click.option("--glr", type=not_negative, help="Learning rate of G.  [default: 0.0025; stylegan2: 0.002]")
@click.option("--dlr", type=not_negative, help="Learning rate of D.  [default: 0.002]")
@click.option("--ema-kimg", type=not_negative, help="Half-life of the weight average.  [default: batch * 10 / 32]",
              metavar="KIMG")
@click.option("--aug", type=click.Choice(["noaug", "ada", "fixed"]), help="Augmentation.  [default: noaug]")
@click.option("--p", type=click.FloatRange(0, 1), help="Probability for --aug=fixed.")
@click.option("--target", type=click.FloatRange(0, 1), help="Target of --aug=ada.")
@click.option("--seed", type=click.IntRange(min=0), help="Everything random derives from it.  [default: 0]")
@click.option("--subset", type=at_least_1, help="Use only this many images.", metavar="N")
@click.option("--tick", type=at_least_1, help="Report progress this often.  [default: 4]", metavar="KIMG")
@click.option("--snap", type=at_least_1, help="Save images, networks and state this often.  [default: 50]",
              metavar="TICKS")
@click.option("--grid", type=GridSize(), help="Images per grid.  [default: as many as fit 7680 x 4320]")
@click.option("--metrics", help="Quality metrics for each snapshot.  [default: none]", metavar="LIST")
@click.option("--desc", help="Added to the run folder's name.", metavar="TEXT")
@click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: auto]")
@click.option("--workers", type=click.IntRange(min=0), help="Processes that load images.  [default: 3]")
@switch("--fp32", default=None, help="No half precision.")
@switch("--nobench", default=None, help="Do not let cuDNN time its algorithms.")
def command(
    outdir: Path | None,
    preset: str | None,
    continue_: str | None,
    dry_run: bool,
    list_presets: bool,
    p: float | None,
    target: float | None,
    **said: Any,
) -> None:
    """Train a generator.

    Examples:

        sg3 train --preset=demo --outdir=runs

        sg3 train --outdir=runs --data=photos.zip --cfg=stylegan3-t --batch=32 --gamma=2 --mirror=1

        sg3 train --continue=runs/00000-stylegan3-t-photos-gpus1-batch32-gamma2
    """
    if list_presets:
        for name, (line, preset_options) in PRESETS.items():
            click.echo(f"{name}: {line}\n  {_as_flags(preset_options)}")
        return
    options = Options(**said)
    if (p is not None or target is not None) and options.aug in (None, "noaug"):
        raise UsageError("--p and --target: belong to --aug=fixed and --aug=ada, which are not built yet")
    if continue_ is not None:
        if preset is not None or dry_run:
            raise UsageError("--continue: takes its options from the run; leave out --preset and --dry-run")
        from sg3.train.launch import continue_run

        click.echo(continue_run(continue_, outdir, options))
        return
    if preset is not None:
        if preset not in PRESETS:
            raise UsageError(f"--preset={preset}: unknown, there is {', '.join(PRESETS)}")
        options = options.over(PRESETS[preset][1])
    if outdir is None:
        raise UsageError("--outdir: needed, the folder that will hold the run folder")

    from dataclasses import replace

    from sg3.train.launch import configure, render_builtin, start

    options = replace(options, data=render_builtin(options.data, outdir))
    config = configure(options)
    if dry_run:
        _print_plan(config)
        return
    if options.gamma is None:
        click.echo(f"gamma: {config.gamma:g} (0.0002 * resolution^2 / batch; --gamma sets it)", err=True)
    click.echo(start(config, outdir))


def _as_flags(options: Options) -> str:
    from dataclasses import asdict

    said = {k.replace("_", "-"): v for k, v in asdict(options).items() if v is not None}
    return " ".join(f"--{k}={'x'.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in said.items())


def _print_plan(config: TrainConfig) -> None:
    from rich.console import Console
    from rich.table import Table

    from sg3.train.summary import summarize

    click.echo(json.dumps(config.to_dict(), indent=2))
    summary = summarize(config)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
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
