"""Option types shared by the subcommands."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import rich_click as click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def switch(*names: str, default: bool | None = False, help: str) -> Decorator:
    """A boolean that works as `--mirror`, `--mirror=1`, `--mirror=false` (the original's scripts use all of them)."""
    return click.option(*names, type=click.BOOL, is_flag=False, flag_value="true", default=default,
                        metavar="BOOL", help=help)


class IntRangeList(click.ParamType[list[int]]):
    """`1,2,5-8` -> [1, 2, 5, 6, 7, 8]."""

    name = "LIST"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        numbers: list[int] = []
        for part in str(value).split(","):
            match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
            if match is None:
                self.fail(f"{part!r} is neither a number nor a range like 5-8", param, ctx)
            first, last = int(match[1]), int(match[2] or match[1])
            if last >= 2**32:
                self.fail(f"{last} is too large, seeds go up to {2**32 - 1}", param, ctx)
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
        return x, y


class GridSize(click.ParamType[tuple[int, int]]):
    """`8x4` -> (8, 4): columns, rows."""

    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)x(\d+)", str(value))
        if match is None or int(match[1]) < 1 or int(match[2]) < 1:
            self.fail(f"{value!r} is not columns x rows, like 8x4", param, ctx)
        return int(match[1]), int(match[2])
