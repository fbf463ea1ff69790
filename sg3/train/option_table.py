"""docs/options.md, from the declarations: `python -m sg3.train.option_table > docs/options.md`."""

from __future__ import annotations

from itertools import groupby

from sg3.terminal import show
from sg3.train import recipes
from sg3.train.options import GRID, Option

HEAD = """# Options of `sg3 train`

Made from the declarations in `sg3/train/options.py` and `sg3/train/recipes/*/options.py` by
`python -m sg3.train.option_table > docs/options.md`; not to be edited.

Each can be said on the command line, in a file (`--config`; without the dashes) or from Python (with underscores). The
last column is about `sg3 train --continue`: what cannot change there, and what a change does to the numbers. How to
start, continue and list presets: `sg3 train --help`.
"""
BAR = r"\|"  # within a cell
KINDS = {bool: "`1` or `0`", int: "whole number", float: "number", str: "text", GRID: "`8x4`"}


def options_page() -> str:
    """The page, as Markdown."""
    parts = [HEAD]
    for panel, options in groupby(recipes.known_options().values(), key=lambda option: option.panel):
        rows = [_row(option) for option in options]
        parts.append("\n".join([f"## {panel}", "", "| option | value | default | meaning | in a continued run |",
                                "|---|---|---|---|---|", *rows, ""]))  # fmt: skip
    return "\n".join(parts)


def _row(option: Option) -> str:
    value = " ".join(f"`{choice}`" for choice in option.choices) or KINDS[option.kind]
    value += f", {option.bounds}" if option.bounds else ""
    owners = [recipe for recipe in recipes.RECIPES if option.name in recipe.options.declared()]
    cfgs = ", ".join(cfg for recipe in owners for cfg in recipe.cfgs)
    belongs = "" if len(owners) == len(recipes.RECIPES) else f" (only {cfgs})"
    default = option.shown_default or ("0" if option.kind is bool else "")
    continued = "fixed" if option.changes is None else ": ".join(filter(None, ["may change", option.changes]))
    cells = (f"`{option.flag}`", value, default, f"{option.help}{belongs}", continued)
    return f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |"


if __name__ == "__main__":
    show(*options_page().splitlines())
