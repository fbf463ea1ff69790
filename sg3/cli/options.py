"""Options and their types, as far as several subcommands have them.

    from sg3.cli import options

    @click.command("generate")
    @options.network
    @options.switch("--force", help="...")
    def command(network: str, force: bool) -> None: ...
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import rich_click as click

from sg3 import limits
from sg3.errors import UsageError
from sg3.named_paths import Kind, to_read, to_write

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def switch(*names: str, default: bool | None = False, help: str) -> Decorator:
    """A boolean that works as `--mirror`, `--mirror=1`, `--mirror=false` (the original's scripts use all of them)."""
    return click.option(*names, type=click.BOOL, is_flag=False, flag_value="true", default=default,
                        metavar="BOOL", help=help)


class SwitchesAnywhere(click.RichCommand):
    """For commands with arguments: `--verify a.pkl b.pkl` means `--verify=1 a.pkl b.pkl`. By itself, a switch takes
    the next word for its value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        options = [p for p in self.params if isinstance(p, click.Option) and p.type is click.BOOL]
        switches = {name for option in options for name in option.opts}
        words = []
        for word, after in zip_longest(args, args[1:], fillvalue=""):
            alone = word in switches and after.lower() not in click.BOOL.bool_states
            words.append(f"{word}=true" if alone else word)
        return super().parse_args(ctx, words)


class Finite(click.ParamType[float]):
    """A number that float32 holds, neither infinite nor NaN."""

    name = "FLOAT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = click.FLOAT.convert(value, param, ctx)
        if not abs(number) <= limits.FLOAT:  # (NaN is not, either)
            self.fail(f"{value!r} is not a finite number of 32 bits", param, ctx)
        return number


class FiniteRange(click.FloatRange):
    """A number within bounds. NaN, which compares with nothing, is not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not abs(number) <= limits.FLOAT:  # (NaN is not, either)
            self.fail(f"{value!r} is not a finite number of 32 bits", param, ctx)
        return number


class IntRangeList(click.ParamType[list[int]]):
    """`1,2,5-8` -> [1, 2, 5, 6, 7, 8]."""

    name = "LIST"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        numbers: list[int] = []
        for part in str(value).split(","):
            match = re.fullmatch(r"\s*(-?\d+)(?:-(-?\d+))?\s*", part)
            if match is None:
                self.fail(f"{part!r} is neither a number nor a range like 5-8", param, ctx)
            ends = [word.lstrip("0") or "0" for word in (match[1], match[2] or match[1])]
            for word in ends:
                if len(word) > 10 or not 0 <= int(word) < 2**32:  # int() itself takes only so many digits
                    self.fail(f"{word[:20]} is out of range, numbers go from 0 to {2**32 - 1}", param, ctx)
            first, last = int(ends[0]), int(ends[1])
            if last - first >= 10**6:
                self.fail(f"range {part!r} has more than a million numbers", param, ctx)
            if last < first:
                self.fail(f"range {part!r} runs backwards", param, ctx)
            numbers.extend(range(first, last + 1))
        return numbers


class FloatPair(click.ParamType[tuple[float, float]]):
    """`0.1,-0.2` -> (0.1, -0.2)."""

    name = "X,Y"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        if isinstance(value, tuple):
            return value
        try:
            x, y = (float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not two numbers separated by a comma", param, ctx)
        if not (abs(x) <= limits.FLOAT and abs(y) <= limits.FLOAT):
            self.fail(f"{value!r} is not two finite numbers", param, ctx)
        return x, y


class GridSize(click.ParamType[tuple[int, int]]):
    """`8x4` -> (8, 4): columns, rows."""

    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,9})x(\d{1,9})", str(value))
        if match is None or int(match[1]) < 1 or int(match[2]) < 1:
            self.fail(f"{value!r} is not columns x rows, like 8x4", param, ctx)
        return int(match[1]), int(match[2])


class NamedPath(click.Path):
    """A path that is checked before the command begins, by one of `sg3.named_paths`. Whether an input is there at all,
    the command says."""

    def __init__(self, kind: Kind, check: Callable[[str | os.PathLike[str], Kind, str], Path]) -> None:
        super().__init__(path_type=Path)
        self.kind, self.check = kind, check

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> Path:
        if "\0" in os.fspath(value):
            self.fail("a path holds a null character, which no file's name does", param, ctx)
        return self.check(value, self.kind, _spelled(param))


class Named(click.ParamType[str]):
    """A text that names something, so is not empty: a network, a run, a source of images."""

    name = "TEXT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not value:
            argument = "" if param is None else param.make_metavar(ctx or click.Context(click.Command(None)))
            raise UsageError(f"{_spelled(param) or argument}: names nothing")
        return str(value)


def _spelled(param: click.Parameter | None) -> str:
    """An option as one writes it, nothing for an argument."""
    return param.opts[0] if isinstance(param, click.Option) else ""


INPUT_FILE, INPUT_FOLDER, INPUT = (NamedPath(kind, to_read) for kind in Kind)
OUTPUT_FILE, OUTPUT_FOLDER, OUTPUT = (NamedPath(kind, to_write) for kind in Kind)
NAME = Named()
SEED = click.IntRange(0, 2**32 - 1)

network = click.option(
    "--network", type=NAME, required=True, metavar="PATH",
    help="A network file, a run folder (its newest), an address, or the name of a published network.",
)  # fmt: skip
outdir = click.option(
    "--outdir", type=OUTPUT_FOLDER, required=True, metavar="DIR", help="Where the files go."
)
trunc = click.option(
    "--trunc", "truncation_psi", type=Finite(), default=1.0, show_default=True,
    help="Truncation psi: 0 is the mean image, 1 the full variety.",
)  # fmt: skip
one_class = click.option(
    "--class", "class_idx", type=click.IntRange(min=0), metavar="N", help="Class of a conditional network."
)
noise_mode = click.option(
    "--noise-mode", type=click.Choice(["const", "random", "none"]), default="const", show_default=True,
    help="Noise of StyleGAN2 and FastGAN; the others have none.",
)  # fmt: skip
background = click.option(
    "--background", metavar="COLOUR", help="Lay images with alpha on this colour, a name or #rrggbb."
)
bars = switch("--bars", help="Leave the black bars of a network trained on --transform=center-crop-wide.")

batch = click.option(
    "--batch", "--batch-size", type=click.IntRange(min=1), default=4, show_default=True, help="Images at a time."
)
device = click.option(
    "--device", default="auto", show_default=True, metavar="DEVICE", help="auto, cpu, cuda or cuda:N."
)
no_graphs = click.option(
    "--no-graphs", is_flag=True, help="On a GPU, do without CUDA graphs, which save the host's time and take memory."
)
scale = click.option(
    "--scale", type=click.IntRange(1, 64), metavar="N",
    help="Enlarge the pictures of sheets by this whole factor.  [default: 1; with --captions as much as they need]",
)  # fmt: skip
captions = switch("--captions", help="Write above each picture of a sheet what it shows.")
as_json = switch("--json", "as_json", help="Print JSON, for programs.")
