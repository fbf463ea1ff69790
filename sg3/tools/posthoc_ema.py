"""A network with averaged weights of any length, from what a run has kept (`sg3.train.power_ema`)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch

from sg3 import run_folder
from sg3.errors import DataError, MissingInputError, UsageError
from sg3.formats import Snapshot, averaged_generator, load
from sg3.named_paths import Kind, nothing_at
from sg3.train.power_ema import WIDEST, combine, read_averages


@dataclass(frozen=True)
class Reconstruction:
    """A snapshot whose G_ema is the average of `width` after `nimg` images; `distance` is how far its profile is from
    the true one, relative to that, `files` how many were used."""

    snapshot: Snapshot
    nimg: int
    files: int
    distance: float


def reconstruct(run: Path, width: float, kimg: float | None = None) -> Reconstruction:
    """The averaged generator of a run folder, with a relative width of 0 to 0.28, as of `kimg` thousand images: what is
    kept must be of then or, if it is not said, of the newest file.

    Raises MissingInputError (no such run, or nothing kept), UsageError (a width or time that cannot be), DataError.
    """
    if not 0 < width <= WIDEST:
        raise UsageError(f"--width={width:g}: expected more than 0 and at most {WIDEST}, a share of the training")
    if not run.is_dir():
        raise nothing_at(run, Kind.FOLDER)
    paths = run_folder.averages(run)
    if not paths:
        raise MissingInputError(f"{run}: holds no {run_folder.AVERAGES}; train with --posthoc-ema to have them")
    kept = [read_averages(path) for path in paths]
    nimg = kept[-1].nimg if kimg is None else round(kimg * 1000)
    times = [each.nimg for each in kept]
    if not times[0] <= nimg <= times[-1]:
        raise UsageError(f"--kimg={nimg / 1000:g}: the run has averages from {times[0] / 1000:g} to "
                         f"{times[-1] / 1000:g} kimg")  # fmt: skip
    template = run_folder.newest_snapshot(run)
    snapshot = load(template)
    G = copy.deepcopy(averaged_generator(snapshot, template))
    parameters, distance = combine(kept, width, nimg)
    closest = min(kept, key=lambda each: abs(each.nimg - nimg))  # whose running means are of then
    try:
        with torch.no_grad():
            G.load_state_dict({**G.state_dict(), **closest.buffers, **parameters})
    except RuntimeError as error:
        raise DataError(f"{paths[-1]}: is of another network than {template} ({error})") from None
    made = Snapshot(G_ema=G, training_set_kwargs=snapshot.training_set_kwargs, licence=snapshot.licence)
    return Reconstruction(made, nimg, len(kept), distance)
