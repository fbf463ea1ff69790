"""What a network file holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from sg3.errors import DataError
from sg3.models import Generator


@dataclass
class Snapshot:
    """The networks of one moment of training. Anything may be None: a file for generating images has G_ema
    only."""

    G: nn.Module | None = None
    D: nn.Module | None = None
    G_ema: nn.Module | None = None  # G with averaged weights: the one to generate images with
    augment_pipe: nn.Module | None = None
    training_set_kwargs: dict[str, Any] | None = None  # class_name, path, resolution, use_labels, xflip, ...
    licence: str | None = None  # of the weights, where the file says it
    origin: str | None = None  # the format of the file it was read from, in words


def averaged_generator(snapshot: Snapshot, where: object) -> Generator:
    """G_ema, the one to make images with. Raises DataError, which begins with `where`, if there is none."""
    if not isinstance(snapshot.G_ema, Generator):
        raise DataError(f"{where}: holds no averaged generator (G_ema)")
    return snapshot.G_ema
