"""The training set: a folder or zip of equal images, squares or rectangles, with labels in an optional dataset.json.

Which pixels a file gives is the policy of `sg3.data.decode`: palettes become their real colours, EXIF
orientation is applied, 16 bits are cut to 8, alpha is kept as the last channel, straight. The first image
(names sorted) decides size and channels; every other one must agree.
"""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from sg3 import limits
from sg3.canvas import Size
from sg3.data.dataset_json import RawLabels, label_array, labels_by_name, notes_on, read_manifest
from sg3.data.decode import decode
from sg3.data.image_files import LABELS_FILE, open_images, refuse_other_formats
from sg3.data.transforms import is_trainable_size, nearest_side
from sg3.errors import DataError, UsageError

Item = tuple[NDArray[np.uint8], NDArray[np.float32]]


@dataclass(frozen=True)
class ImageDetails:
    """Where an item comes from: the image's index among the sorted names, mirrored or not, stored label."""

    raw_idx: int
    xflip: bool
    raw_label: Any  # int64 scalar, or float32 [L]


class ImageFolderDataset(Dataset[Item]):
    """Items are (uint8 image [C, H, W], float32 label [label_dim]).

    path: folder or zip. resolution: checked against the images if given, a side or height and width. max_size: use a
    subset of this many images, drawn by `random_seed`, in sorted order. use_labels: read dataset.json. xflip: append a
    mirrored copy of the set, so that item i + N is item i mirrored.

    Raises MissingInputError (no such path), DataError (images or labels that cannot be used; from
    `__getitem__` too), StorageError (reading failed), UsageError (max_size < 1).
    """

    def __init__(
        self,
        path: str | Path,
        resolution: int | Size | None = None,
        max_size: int | None = None,
        use_labels: bool = False,
        xflip: bool = False,
        random_seed: int = 0,
    ) -> None:
        self._path = Path(path)
        self._files = open_images(self._path)
        refuse_other_formats(self._files)
        self._names = self._files.names
        self._use_labels = use_labels
        self._max_bytes = limits.IMAGE_BYTES
        self._shape = self._checked_shape(resolution)  # (C, H, W)
        self._max_bytes = min(limits.IMAGE_BYTES, 4 * int(np.prod(self._shape)) + (1 << 20))
        self._raw_labels = self._load_labels()
        self._label_dim = _width(self._raw_labels)

        chosen = subset_indices(len(self._names), max_size, random_seed)
        self._raw_idx = np.concatenate([chosen, chosen]) if xflip else chosen
        self._xflip = np.arange(len(self._raw_idx)) >= len(chosen)

    def _checked_shape(self, resolution: int | Size | None) -> tuple[int, int, int]:
        first = self._names[0]
        height, width, channels = self._decode(first).shape
        size = f"{self._files.where(first)}: {width}x{height}"
        if height != width and not is_trainable_size((width, height)):
            side = nearest_side(min(height, width))
            fix = self._fix(f"--transform=center-crop --resolution={side}x{side}")
            raise DataError(f"{size} is not square; {fix} makes them square")
        wanted = (resolution, resolution) if isinstance(resolution, int) else resolution
        if wanted is not None and (height, width) != wanted:
            expected = f"{wanted[1]}x{wanted[0]}"
            raise DataError(f"{size}, expected {expected}; {self._fix(f'--resolution={expected}')} resizes them")
        return channels, height, width

    def _load_labels(self) -> RawLabels | None:
        manifest = read_manifest(self._files) if self._use_labels else None
        where = self._files.where(LABELS_FILE)
        labels = None if manifest is None else labels_by_name(manifest, where)
        return None if labels is None else label_array(labels, self._names, where)

    def __len__(self) -> int:
        return len(self._raw_idx)

    def __getitem__(self, index: int) -> Item:
        name = self._names[int(self._raw_idx[index])]
        image = self._decode(name).transpose(2, 0, 1)  # [C, H, W]
        if image.shape != self._shape:
            raise self._unlike_first(name, image.shape)
        if self._xflip[index]:
            image = image[:, :, ::-1]
        return np.ascontiguousarray(image), self.get_label(index)

    def _decode(self, name: str) -> NDArray[np.uint8]:
        data = self._files.read(name, self._max_bytes)
        return decode(data, self._files.where(name), intact=self._files.intact)

    def _unlike_first(self, name: str, shape: tuple[int, ...]) -> DataError:
        same_size = shape[1:] == self._shape[1:]
        options = "--convert=rgb" if same_size else f"--resolution={self._shape[2]}x{self._shape[1]}"
        return DataError(f"{self._files.where(name)}: {_describe(shape)}, expected {_describe(self._shape)} "
                         f"like {self._names[0]}; {self._fix(options)} makes them alike")

    def _fix(self, options: str) -> str:
        return f"`sg3 dataset --source={shlex.quote(str(self._path))} --dest=DATA.zip {options}`"

    def get_label(self, index: int) -> NDArray[np.float32]:
        """Label of an item, float32 [label_dim]; one-hot for class indices, empty without labels."""
        label = np.zeros(self._label_dim, dtype=np.float32)
        if self._raw_labels is not None:
            raw = self._raw_labels[self._raw_idx[index]]
            if self.has_onehot_labels:
                label[raw] = 1
            else:
                label[:] = raw
        return label

    def get_details(self, index: int) -> ImageDetails:
        """Where an item comes from."""
        raw_idx = int(self._raw_idx[index])
        labels = self._raw_labels
        raw_label = np.zeros(0, dtype=np.float32) if labels is None else labels[raw_idx].copy()
        return ImageDetails(raw_idx, bool(self._xflip[index]), raw_label)

    def notes(self) -> list[str]:
        """What the user may not know: files that are not used, and why; oddities of labels in use."""
        return self._files.unused.lines() + ([] if self._raw_labels is None else notes_on(self._raw_labels))

    def content_hash(self) -> str:
        """Hex digest that tells whether any file has changed, wherever they lie; from `folder_or_zip`."""
        return self._files.content_hash()

    def training_hash(self) -> str:
        """Hex digest that tells whether images or labels in use have changed, but not who made the set when, from which
        folder and with which versions, as dataset.json has it."""
        digest = hashlib.sha256(self._files.images_hash().encode())
        if self._raw_labels is not None:
            digest.update(str(self._raw_labels.dtype).encode() + self._raw_labels.tobytes())
        return digest.hexdigest()

    def close(self) -> None:
        """Close this process's handle on the zip; reading opens it again."""
        self._files.close()

    @property
    def name(self) -> str:
        """Name of the folder, or of the zip without its suffix."""
        return dataset_name(self._path)

    @property
    def image_shape(self) -> list[int]:
        """[C, H, W]"""
        return list(self._shape)

    @property
    def num_channels(self) -> int:
        """1 (gray), 2 (gray with alpha), 3 (RGB) or 4 (RGB with alpha)."""
        return self._shape[0]

    @property
    def resolution(self) -> int:
        """Side of the images, in pixels; of rectangles the longer one."""
        return max(self.size)

    @property
    def size(self) -> Size:
        """Height and width of the images, in pixels."""
        return self._shape[1], self._shape[2]

    @property
    def visible(self) -> Size | None:
        """Height and width of the part of each image that is no black bar, where `sg3 dataset` put them there
        (--transform=center-crop-wide)."""
        try:
            record = (read_manifest(self._files) or {}).get("sg3")
        except DataError:  # labels that are not in use may be broken
            return None
        scaled = record.get("scaled_to") if isinstance(record, dict) else None
        has_bars = isinstance(record, dict) and record.get("transform") == "center-crop-wide"
        if not has_bars or not isinstance(scaled, list):
            return None
        size = tuple(scaled[::-1])
        height, width = self.size
        is_pair = len(size) == 2 and all(isinstance(side, int) and not isinstance(side, bool) for side in size)
        return size if is_pair and 0 < size[0] < height and size[1] == width else None

    @property
    def label_shape(self) -> list[int]:
        """[label_dim]"""
        return [self._label_dim]

    @property
    def label_dim(self) -> int:
        """Number of classes, or length of the label vectors; 0 without labels."""
        return self._label_dim

    @property
    def has_labels(self) -> bool:
        """Whether labels are in use (asked for, and there)."""
        return self._raw_labels is not None

    @property
    def has_onehot_labels(self) -> bool:
        """Whether the labels are class indices, returned one-hot."""
        return self._raw_labels is not None and self._raw_labels.dtype == np.int64

    @property
    def labels_available(self) -> bool:
        """Whether dataset.json has labels, in use or not. Reads the file unless labels are in use."""
        if self._use_labels:
            return self.has_labels
        try:
            manifest = read_manifest(self._files)
        except DataError:  # the file is not in use, so it may be anything
            return False
        return manifest is not None and bool(manifest.get("labels"))


def dataset_name(path: Path) -> str:
    """Name of the folder, or of the zip without its suffix."""
    path = path.absolute()
    return path.name if path.is_dir() else path.stem


def _width(labels: RawLabels | None) -> int:
    """Length of a label. Taken over all images: a subset must not change the width of the networks."""
    if labels is None:
        return 0
    return int(labels.max()) + 1 if labels.ndim == 1 else labels.shape[1]


def subset_indices(count: int, max_size: int | None, seed: int) -> NDArray[np.int64]:
    """Indices of the images to use, of `count`, ascending. Raises UsageError for max_size < 1."""
    if max_size is not None and max_size < 1:
        raise UsageError(f"max_size={max_size}: at least one image is needed")
    if max_size is None or max_size >= count:
        return np.arange(count, dtype=np.int64)
    # The legacy generator, because its shuffle is frozen: a seed means the same subset for good.
    shuffled = np.random.RandomState(seed % (1 << 32)).permutation(count)
    return np.sort(shuffled[:max_size]).astype(np.int64)


def _describe(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{width}x{height} with {channels} channel{'s' if channels > 1 else ''}"
