"""Figures of matplotlib, which is optional: what would fail is found before the work, files are written whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sg3.atomic import write_atomic
from sg3.errors import MissingInputError, UsageError
from sg3.extras import install

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".pdf", ".svg")


def check_plot(path: Path, option: str) -> None:
    """Raise what would keep a figure from being written to `path`, which `option` has named: UsageError (no suffix of
    SUFFIXES), MissingInputError (no folder, no matplotlib)."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{option}={path}: expected a name ending in {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise MissingInputError(f"{option}={path}: there is no folder {path.parent}; make it first")
    new_figure((1, 1))


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure, size in inches. Raises MissingInputError."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingInputError(f"plots need matplotlib, which is not installed; {install('plot')}") from None
    return Figure(figsize=size, layout="constrained")


def save_figure(figure: Figure, path: Path, dpi: float = 100) -> None:
    """Write a figure in the format of the suffix. Raises StorageError."""
    write_atomic(path, lambda file: figure.savefig(file, format=path.suffix.lower()[1:], dpi=dpi))
