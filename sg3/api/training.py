"""`sg3.fit`: `sg3 train` from Python."""

from __future__ import annotations

import os
from typing import Any

from sg3.api.checks import path_of, text
from sg3.api.runs import Listener, Run, as_words, called_back, run_of
from sg3.named_paths import Kind, to_read, to_write
from sg3.train.option_file import layered
from sg3.train.spawn import run_new


def fit(
    data: str | os.PathLike[str] | None = None,
    *,
    outdir: str | os.PathLike[str],
    cfg: str | None = None,
    preset: str | None = None,
    config: str | os.PathLike[str] | None = None,
    on_tick: Listener | None = None,
    on_snapshot: Listener | None = None,
    **options: Any,
) -> Run:
    """Train a generator in a new run folder under `outdir`, and return the run.

    `data`: a folder or zip of images, or openmoji[:SUBSET][:SIZE]. `cfg`, `preset`, `config` and `options` are those
    of `sg3 train` with underscores, such as `batch=32, gamma=2, mirror=True, metrics=["fid5k_full"]`: docs/options.md.
    `on_tick` and `on_snapshot` get an `sg3.TrainingEvent`, whose `stop()` ends the run early, its state saved. With
    `gpus` the run gets processes of its own, in which there are no callbacks; under torchrun, where all processes call
    this, the first one has them.

    Raises what the command would end with, see `sg3.errors`: UsageError, DataError, MissingInputError, NumericalError,
    StorageError, MachineError; TrainingStopped (its state is saved) when a signal such as Ctrl-C ended the run.
    """
    folder, callbacks = path_of("outdir", outdir, "a folder", to_write, Kind.FOLDER), called_back(on_tick, on_snapshot)
    preset = None if preset is None else text("preset", preset, "a name")
    words = as_words({"data": data, "cfg": cfg, **options})
    file = None if config is None else path_of("config", config, check=to_read, kind=Kind.FILE)
    chosen, _ = layered(words, file, preset, source="fit")
    return run_of(run_new(chosen, folder, callbacks))
