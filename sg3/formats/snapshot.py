"""What a network file holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from sg3.canvas import Size
from sg3.errors import DataError, UsageError
from sg3.models import Generator, StyleGenerator
from sg3.terminal import printable, say


@dataclass
class Snapshot:
    """The networks of one moment of training. Anything may be None: a file for generating images has G_ema
    only."""

    G: nn.Module | None = None
    D: nn.Module | None = None
    G_ema: nn.Module | None = None  # G with averaged weights: the one to generate images with
    augment_pipe: nn.Module | None = None
    training_set_kwargs: dict[str, Any] | None = None  # class_name, path, resolution, use_labels, xflip, ...
    # What training goes on from, where a file has it: by slot what an optimizer's state_dict() gives, and counters.
    optimizers: dict[str, dict[str, Any]] | None = None
    progress: dict[str, int | float] | None = None  # cur_nimg: images shown so far
    licence: str | None = None  # of the weights, where the file says it
    origin: str | None = None  # the format of the file it was read from, in words
    notes: list[str] = field(default_factory=list)  # what of the file was not taken as it is


def visible_part(snapshot: Snapshot) -> Size | None:
    """Height and width of the middle of each image that is no black bar, where the network was trained between some."""
    value = (snapshot.training_set_kwargs or {}).get("visible")
    pair = tuple(value) if isinstance(value, (list, tuple)) else ()
    return pair if len(pair) == 2 and all(type(side) is int and side > 0 for side in pair) else None


def averaged_generator(snapshot: Snapshot, where: object) -> Generator:
    """G_ema, the one to make images with; G, with a note, where only that was saved. Raises DataError, beginning with
    `where`, if there is neither, or one whose numbers are not all finite: its images would be black."""
    slot = "G_ema" if snapshot.G_ema is not None or snapshot.G is None else "G"
    G = getattr(snapshot, slot)
    if not isinstance(G, Generator):
        raise DataError(f"{where}: holds no averaged generator (G_ema)")
    if names := not_finite(G):
        shown = printable(", ".join(names))
        raise DataError(f"{where}: {slot} has NaN or infinite numbers in {len(names)} tensors ({shown}); take another")
    if slot == "G":
        say(f"note: {where}: holds no averaged generator (G_ema); G is used, whose images are worse")
    return G


@torch.no_grad()
def not_finite(network: nn.Module) -> list[str]:
    """Names of the parameters and buffers that hold NaN or infinite numbers."""
    tensors = {name: tensor for name, tensor in [*network.named_parameters(), *network.named_buffers()]
               if tensor.is_floating_point() and tensor.numel()}  # fmt: skip
    if not tensors:
        return []
    flags = torch.stack([tensor.isfinite().all() for tensor in tensors.values()]).tolist()
    return [name for name, is_finite in zip(tensors, flags, strict=True) if not is_finite]


def style_generator(snapshot: Snapshot, where: object) -> StyleGenerator:
    """G_ema of a StyleGAN, for what moves in w. Raises DataError if there is none, UsageError if it has no w."""
    G = averaged_generator(snapshot, where)
    if not isinstance(G, StyleGenerator):
        raise UsageError(f"{where}: has no w, in which this command works; StyleGAN2 and StyleGAN3 networks have it")
    return G
