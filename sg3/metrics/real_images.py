"""The real images that a network was trained on, and which of them a metric takes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sg3.canvas import Size, spelled
from sg3.data.dataset import ImageFolderDataset, subset_indices
from sg3.data.dataset_json import read_manifest
from sg3.data.image_files import open_images
from sg3.errors import DataError, UsageError


@dataclass(frozen=True)
class RealSelection:
    """The first `most` real images, or all of them (None), of a data set that has `least` of them at least.

    `mirrored`: where training saw mirrored images, they follow the others; else they never count.
    """

    mirrored: bool
    most: int | None
    least: int = 2


@dataclass(frozen=True)
class RealImages:
    """A dataset as training saw it. The original's metrics take all of it; `max_size` and `random_seed` say which part
    training saw, for those that ask what it has memorised. `visible`: the part of each that metrics look at, in height
    and width, for those between black bars.
    """

    path: Path
    use_labels: bool = False
    xflip: bool = False
    resolution: int | Size | None = None
    max_size: int | None = None
    random_seed: int = 0
    visible: Size | None = None

    @classmethod
    def from_kwargs(cls, kwargs: Mapping[str, Any]) -> RealImages:
        """From a snapshot's `training_set_kwargs`. Raises DataError if they name no path."""
        path, resolution = kwargs.get("path"), kwargs.get("resolution")
        if not isinstance(path, str | Path):
            raise DataError("the network file does not say what it was trained on; name it with --data")
        return cls(
            Path(path), bool(kwargs.get("use_labels", False)), bool(kwargs.get("xflip", False)),
            _resolution(resolution), _number(kwargs.get("max_size")), _number(kwargs.get("random_seed")) or 0,
        )  # fmt: skip

    def split(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of `count` images, those that training saw and those that it did not see, ascending."""
        seen = subset_indices(count, self.max_size or None, self.random_seed)
        return seen, np.setdiff1d(np.arange(count), seen)

    def open(self, mirrored: bool = False) -> ImageFolderDataset:
        """The whole dataset, mirrored images appended if asked for and trained with."""
        return ImageFolderDataset(
            self.path, resolution=self.resolution, use_labels=self.use_labels, xflip=mirrored and self.xflip
        )

    def is_mirrored(self, selection: RealSelection) -> bool:
        """Whether mirrored images are among those selected."""
        return self.xflip and selection.mirrored

    def count(self, dataset: ImageFolderDataset, selection: RealSelection) -> int:
        """How many images are selected of `dataset`, which is this one opened without mirroring."""
        available = len(dataset) * (2 if self.is_mirrored(selection) else 1)
        return available if selection.most is None else min(selection.most, available)

    def facts(self, dataset: ImageFolderDataset) -> dict[str, Any]:
        """For the record: what the images are, and how `sg3 dataset` scaled them."""
        record: dict[str, Any] = {}
        with suppress(DataError):  # labels that are not in use may be broken
            record = (read_manifest(open_images(self.path)) or {}).get("sg3") or {}
        known = record if isinstance(record, dict) else {}
        bars = {} if dataset.visible is None else {"letterboxed": spelled(dataset.visible)}
        return {
            **bars, "name": dataset.name, "sha256": dataset.content_hash(),
            "resolution": dataset.resolution if dataset.size[0] == dataset.size[1] else list(dataset.size),
            "channels": dataset.num_channels, "resize_filter": known.get("resize_filter"),
            "resize_library": known.get("resize_library"),
        }  # fmt: skip


def check_fits(dataset: ImageFolderDataset, channels: int, size: Size, path: Path) -> None:
    """Raise UsageError unless the images are like those that the network makes, `size` being their height and width."""
    if (dataset.num_channels, dataset.size) != (channels, size):
        theirs, ours = (f"{w if h == w else f'{w} x {h}'} px" for h, w in (dataset.size, size))
        raise UsageError(
            f"{path}: images of {theirs} with {dataset.num_channels} channels, the network makes "
            f"{ours} with {channels}; name the dataset it was trained on with --data"
        )


def _resolution(value: Any) -> int | Size | None:
    """As a file says it: the side of squares, or height and width; None for anything else."""
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(side, int) for side in value):
        return value[0], value[1]
    return value if isinstance(value, int) else None


def _number(value: Any) -> int | None:
    """As a file says it; None for anything else."""
    return value if type(value) is int and 0 <= value < 2**63 else None
