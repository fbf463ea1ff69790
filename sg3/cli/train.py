"""`sg3 train`. Its options are declared in `sg3.train.options` and in the recipes; here they become click's."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from click.shell_completion import CompletionItem

from sg3.cli.options import INPUT_FILE, NAME, OUTPUT_FOLDER
from sg3.cli.ranks import may_be_one_of_several
from sg3.errors import UsageError
from sg3.run_folder import find_run
from sg3.terminal import console, show
from sg3.train.config import TrainConfig, check_data
from sg3.train.option_file import layered
from sg3.train.options import GRID, PANELS, RUN, Option, check_value, read_value, typed
from sg3.train.recipes import known_options, presets, recipe_of

if TYPE_CHECKING:
    from sg3.train.spawn import Ended

OPTIONS = known_options()


class Value(click.ParamType[Any]):
    """A value of one of the declared options."""

    def __init__(self, option: Option) -> None:
        self.option = option
        kinds = {bool: "BOOL", int: "INTEGER", float: "FLOAT", str: "TEXT", GRID: "WxH"}
        self.name = "|".join(option.choices).join("[]") if option.choices else option.metavar or kinds[option.kind]
        if option.bounds:
            self.name += f" [{option.bounds}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return (read_value if isinstance(value, str) else check_value)(self.option, value)
        except ValueError as error:
            self.fail(f"{value or repr(value)}: {error}", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(choice) for choice in self.option.choices if choice.startswith(incomplete)]


def with_declared_options(function: Any) -> Any:
    """Give a command the options of all systems. Switches work as --mirror and as --mirror=1."""
    for option in reversed(OPTIONS.values()):
        kind = Value(option)
        text = f"{option.help}  [default: {option.shown_default}]" if option.shown_default else option.help
        switch: dict[str, Any] = {"is_flag": False, "flag_value": "true"} if option.kind is bool else {}
        function = click.option(option.flag, option.name, type=kind, metavar=kind.name, help=text, **switch)(function)
    return function


def panels() -> list[Any]:
    """The help's panels: the declared options, and in the first panel also the command's own."""
    names = {panel: [o.flag for o in OPTIONS.values() if o.panel == panel] for panel in PANELS}
    own = ["--preset", "--config", "--continue", "--dry-run", "--list-presets", "--help"]
    names[RUN] = ["--outdir", *names[RUN], *own]
    return [{"name": panel, "options": options} for panel, options in names.items()]


click.rich_click.OPTION_GROUPS["sg3 train"] = panels()


@click.command("train")
@click.option("--outdir", type=OUTPUT_FOLDER, help="Where the numbered run folder goes.", metavar="DIR")
@click.option("--preset", help="Ready-made options; what you say yourself wins.", metavar="NAME")
@click.option("--config", "config_file", type=INPUT_FILE, metavar="FILE",
              help="Options from .toml or .json (also a run's training_options.json); what you say yourself wins.")
@click.option("--continue", "continue_", type=NAME, metavar="RUN",
              help="Go on with a run folder, exactly; 'latest' for the newest in --outdir.")
@click.option("-n", "--dry-run", is_flag=True, help="Print the configuration, layers and memory needed; do not train.")
@click.option("--list-presets", is_flag=True, help="List the presets and what they set.")
@with_declared_options
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
        for name, known in presets().items():
            show(f"{name}: {known.title}", f"  {' '.join(known.options.as_flags())}")
        return 0
    words = {name: value for name, value in said.items() if value is not None}
    if continue_ is not None:
        if preset is not None or config_file is not None or dry_run:
            raise UsageError("--continue: takes its options from the run; leave out --preset, --config and --dry-run")
        if not may_be_one_of_several():
            find_run(continue_, outdir)  # now rather than after PyTorch's import
        if continue_ != "latest" and outdir is not None and outdir.resolve() != Path(continue_).resolve().parent:
            raise UsageError(f"--outdir={outdir}: the run goes on where it is, in {continue_}; leave out --outdir, or "
                             "copy the folder and continue the copy")
        from sg3.train.spawn import run_on

        return _say_where(run_on(continue_, outdir, words))

    options, where = layered(words, config_file, preset)
    if outdir is None:
        raise UsageError("--outdir: needed, the folder that will hold the run folder")
    if not may_be_one_of_several():
        check_data(options.data)
    from sg3.train.sharing import shared_out

    shared = shared_out(options)
    if dry_run:
        from sg3.train.launch import configure, preview

        config = configure(shared, outdir)
        lines = preview(config)
        _print_plan(config, where)
        show(*lines)
        return 0
    from sg3.train.spawn import run_new

    return _say_where(run_new(shared, outdir, chosen=sorted(shared.said().keys() - options.said().keys())))


def _say_where(ended: Ended) -> int:
    """Print the run folder, unless processes of the run have; returns the exit code."""
    from sg3.processes import find_place
    from sg3.train.spawn import INTERRUPTED

    if ended.elsewhere and ended.code == INTERRUPTED:
        raise KeyboardInterrupt
    place = find_place(os.environ)
    if not ended.elsewhere and (place is None or place.rank == 0):
        try:
            show(ended.run_dir)
            sys.stdout.flush()
        except BrokenPipeError:  # nobody wants to know, and the run is as it is
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ended.code


def _print_plan(config: TrainConfig, where: dict[str, str]) -> None:
    from rich.table import Table

    from sg3.train.summary import summarize

    show(*json.dumps(config.to_dict(), indent=2).splitlines())
    summary = summarize(config)
    tables = console(width=None if sys.stdout.isatty() else 120)
    sources = Table("option", "value", title="Options", title_justify="left")
    sources.add_column("from", overflow="fold")
    declared = recipe_of(config.cfg).options.declared()
    for name, source in where.items():
        sources.add_row(declared[name].flag, typed(config.value_of(name)), source)
    tables.print(sources)
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
        tables.print(table)
    gib = 2**30
    show(
        f"memory for training, estimated: {summary.total_bytes / gib:.2f} GiB ({summary.weight_bytes / gib:.2f} "
        f"weights, gradients, optimiser; {summary.activation_bytes / gib:.2f} activations of {config.batch_gpu} images)"
    )
    if config.is_half and config.device != "cpu":
        show("that is for float32; on a GPU this configuration has layers in 16 bits, whose activations take half")
