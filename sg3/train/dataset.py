"""The dataset of a run: drawn if it is a built-in one, looked at before the run begins, opened when it does."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from sg3.data.dataset import ImageFolderDataset
from sg3.errors import DataError, StorageError, UsageError
from sg3.terminal import say
from sg3.train.config import BUILTIN, DatasetFacts, TrainConfig, check_data
from sg3.train.options import Options


def render_builtin(data: str | None, outdir: Path) -> str | None:
    """`openmoji[:SUBSET][:alpha|:white][:RESOLUTION]` -> the path of that dataset under `outdir`, rendered now if it
    is not there.

    Any other `data` comes back as it is.
    """
    if data is None or data.split(":")[0] != BUILTIN or Path(data).exists():
        return data
    words = data.split(":")[1:]
    sizes = [int(word) for word in words if re.fullmatch("[0-9]{1,6}", word)]
    from sg3.data.openmoji import ATTRIBUTION, GROUNDS

    grounds = [word for word in words if word in GROUNDS]
    subsets = [word for word in words if word not in GROUNDS and not re.fullmatch("[0-9]{1,6}", word)]
    if max(len(sizes), len(subsets), len(grounds)) > 1:
        raise UsageError(f"--data={data}: expected openmoji, openmoji:64, openmoji:faces:64 or openmoji:faces:alpha:64")
    from sg3.data.prepare import prepare_openmoji

    resolution, subset = (sizes or [32])[0], (subsets or ["faces"])[0]
    kind = "-".join(["openmoji", subset, *grounds])
    path = outdir / f"{kind}-{resolution}x{resolution}.zip"
    if not path.exists():
        try:
            outdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"--outdir={outdir}: cannot be made: {error.strerror}") from error
        made = prepare_openmoji(path, resolution, subset, "".join(grounds))
        say(f"{made.path}: {made.num_images} images drawn from {ATTRIBUTION}")
    return str(path)


def with_holdout(options: Options) -> Options:
    """With --holdout in images: --subset is what is left. Raises UsageError where both are said, or nothing is left,
    and what the dataset raises."""
    if options.holdout is None or options.data is None:
        return options
    if options.subset is not None:
        raise UsageError("--holdout and --subset: both say how many images are used; leave one out")
    count = len(ImageFolderDataset(options.data))
    kept = count - max(round(options.holdout * count), 1)
    if kept < 1:
        raise UsageError(f"--holdout={options.holdout}: leaves none of {count} images")
    return dataclasses.replace(options, subset=kept)


def probe_dataset(options: Options) -> DatasetFacts:
    """Open the dataset once and note what the configuration needs to know; say what the user may not know.

    Raises what the dataset raises.
    """
    data_path = check_data(options.data)
    cond = bool(options.cond)
    data = ImageFolderDataset(data_path, max_size=options.subset, use_labels=cond, xflip=bool(options.mirror))
    for note in data.notes():
        say(f"note: {options.data}: {note}")
    height, width = data.size
    return DatasetFacts(
        path=str(Path(data_path).resolve()), name=data.name, resolution=data.resolution, channels=data.num_channels,
        size=len(data), label_dim=data.label_dim if cond and data.has_labels else 0, has_labels=data.labels_available,
        content=data.training_hash(), height=None if height == width else height,
        width=None if height == width else width, visible_height=data.visible[0] if data.visible else None,
    )  # fmt: skip


def open_dataset(config: TrainConfig) -> ImageFolderDataset:
    """The images that the configuration speaks of. Raises DataError if they have changed, and what opening raises."""
    facts = config.dataset
    dataset = ImageFolderDataset(
        facts.path, max_size=config.subset, use_labels=config.cond, xflip=config.mirror, random_seed=config.seed
    )
    found, wanted = (
        f"{count} images of {channels} channels, {width}x{height}"
        for count, channels, (height, width) in (
            (len(dataset), dataset.num_channels, dataset.size), (facts.size, facts.channels, facts.image_size)
        )
    )  # fmt: skip
    if found != wanted:
        raise DataError(f"{facts.path}: has changed since the run began, {found} instead of {wanted}; give the old one "
                        "with --data, or start a new run")
    if dataset.training_hash() != facts.content != dataset.content_hash():  # the latter: runs of earlier versions
        raise DataError(
            f"{facts.path}: has changed since the run began, other images or labels under the same names; give the old "
            "one with --data, or start a new run"
        )
    return dataset
