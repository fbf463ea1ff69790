"""The images of a folder or zip, whatever else lies there.

A file is an image by its content, and by its suffix if that is an image's: a broken one is an error, not something
else. Folders that everything shares are no part of the names: `photos.zip` with `photos/cat/1.png` and
`photos/dataset.json` in it has an image `cat/1.png`, and labels. What is not used is in `unused`, with the reason.
"""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path, PurePosixPath

from sg3.data.folder_or_zip import Store, open_store
from sg3.data.image_kind import READ, image_kind
from sg3.errors import DataError, StorageError

LABELS_FILE = "dataset.json"
SUFFIXES = frozenset({".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jif", ".jfif", ".pjp", ".pjpeg", ".webp", ".bmp",
                      ".dib"})
# Known as images but not read. They are named as errors, because leaving them out unsaid would lose data.
REFUSED_SUFFIXES = frozenset({".gif", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jp2", ".jxl",
                              ".ppm", ".pgm", ".tga", ".psd", ".ico", ".exr"})


class ImageFiles:
    """Images by their names, sorted, with forward slashes; `has_labels` says whether there is a dataset.json.

    `refused`: of those in a format that is not read, the name and the format. `shared`: the folder that everything is
    in, "" or "photos/". Raises DataError if there is no image, and StorageError.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.path = store.path
        self.intact = store.intact
        self.close = store.close
        self.unused = store.passed_over
        images: list[str] = []
        refused: list[tuple[str, str]] = []
        manifests: list[str] = []
        for name in store.names:
            if name.rpartition("/")[2] == LABELS_FILE:
                manifests.append(name)
                continue
            kind = self._kind(name)
            if kind is None:
                continue
            images.append(name)
            if kind not in READ:
                refused.append((name, kind))
        if not images:
            lines = "; ".join(self.unused.lines())
            raise DataError(f"{self.path}: no images in it (looked for PNG, JPEG, WebP and BMP, by their content"
                            f"{'; ' + lines if lines else ''}); name a folder or zip that has some")
        self.shared = _shared_folder([*images, *manifests])
        strip = len(self.shared)
        self.names = [name[strip:] for name in images]
        self.refused = [(name[strip:], kind) for name, kind in refused]
        self.has_labels = self.shared + LABELS_FILE in manifests
        self.unused.add("labels of another folder than all images are in",
                        *(name for name in manifests if name != self.shared + LABELS_FILE))

    def where(self, name: str) -> str:
        """The file as messages name it."""
        return self.store.where(self.shared + name)

    def read(self, name: str, max_bytes: int) -> bytes:
        """Contents of a file. Raises DataError, StorageError."""
        return self.store.read(self.shared + name, max_bytes)

    def content_hash(self) -> str:
        """Hex digest that changes with the files; from `folder_or_zip`."""
        return self.store.content_hash()

    def images_hash(self) -> str:
        """The same of the images alone."""
        return self.store.content_hash([self.shared + name for name in self.names])

    def _kind(self, name: str) -> str | None:
        """The kind of image, by suffix if that tells: looking into a million files takes long. None if it is none."""
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in SUFFIXES:
            return "PNG"  # or any other that is read; what it really is comes out when it is
        try:
            kind = image_kind(self.store.head(name))
        except (DataError, StorageError):
            self.unused.add("unreadable, and no image by the name", name)
            return None
        if kind is None and suffix in REFUSED_SUFFIXES:
            return suffix
        if kind is None:
            self.unused.add("no image by its content", name)
        return kind


def open_images(path: Path) -> ImageFiles:
    """The images of a folder or zip. Raises MissingInputError, DataError, StorageError."""
    return ImageFiles(open_store(path))


def refuse_other_formats(files: ImageFiles) -> None:
    """Raise DataError if some of the images are in a format that is not read."""
    if files.refused:
        name, kind = files.refused[0]
        counts = Counter(kind for _, kind in files.refused)
        others = "" if len(files.refused) == 1 else f" (in all {', '.join(f'{n} {k}' for k, n in counts.items())})"
        raise DataError(f"{files.where(name)}: {kind} images are not read{others}; convert them to PNG")


def _shared_folder(names: list[str]) -> str:
    """The longest folder that all names begin with, "" or with "/" at its end."""
    first, last = min(names).split("/")[:-1], max(names).split("/")[:-1]
    common = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return "".join(f"{folder}/" for folder, _ in common)
