"""Statistics of the real images, kept from one run to the next.

What is kept is found by what the images are, not where they are or how old: the dataset's content hash, plus, for a
folder, whose hash does not read every file, the size and change times of all files. A dataset replaced in place is
therefore computed anew, a zip that was moved is not. A file that is damaged counts as not there.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from sg3.atomic import write_atomic
from sg3.cache import cache_folder
from sg3.data.dataset import ImageFolderDataset
from sg3.data.folder_or_zip import FolderStore, open_store
from sg3.errors import Sg3Error, StorageError
from sg3.metrics.detectors import Detector
from sg3.metrics.gather import Gathered, Statistics, Want
from sg3.metrics.moments import Moments
from sg3.metrics.real import RealImages
from sg3.metrics.samples import chunks
from sg3.metrics.watch import Watch
from sg3.processes import World

CACHE_VERSION = 1  # of what is kept and how; another number makes all of it unknown


class RealStatistics:
    """Computes or finds the statistics that metrics ask for."""

    def __init__(
        self, real: RealImages, detectors: Mapping[str, Detector], world: World, watch: Watch, device: torch.device,
        *, batch: int, workers: int, cache: bool,
    ) -> None:  # fmt: skip
        self.real = real
        self.detectors = detectors
        self.world = world
        self.watch = watch
        self.device = device
        self.batch = batch
        self.workers = workers
        self.folder = cache_folder("metrics") if cache else None
        self.key = world.on_main(lambda: _identity(real)) if cache else ""

    def get(self, wants: set[Want]) -> dict[Want, Statistics | None]:
        """All of them; features in the first process only. Images are read once for all that are not kept."""
        order = sorted(wants, key=repr)
        found = {want: self._kept(want) for want in order} if self.world.is_main else {}
        missing = self.world.on_main(lambda: [want for want in order if found[want] is None])
        for mirrored in (False, True):
            due = [want for want in missing if want.mirrored == mirrored]
            if due:
                found.update(self._compute(due))
        return {want: found.get(want) for want in wants}

    def _compute(self, wants: list[Want]) -> dict[Want, Statistics | None]:
        data = self.world.together(lambda: self.real.open(wants[0].mirrored))
        gathered = {want: Gathered(self.detectors[want.detector], want.kind, want.count, self.device) for want in wants}
        parts = self.world.mine(chunks(max(want.count for want in wants), self.batch))

        def read() -> None:
            loader = torch.utils.data.DataLoader(
                _Images(data), batch_sampler=[list(part) for part in parts], num_workers=self.workers,
                collate_fn=_stack,
            )  # fmt: skip
            batches = iter(loader)
            for part in self.watch.each(f"real images of {data.name}", parts):
                images = next(batches)
                if isinstance(images, Sg3Error):
                    raise images
                for name in {want.detector for want in wants}:
                    features = self.detectors[name].features(images.to(self.device))
                    for want in wants:
                        if want.detector == name:
                            gathered[want].add(part, features)

        with torch.no_grad():
            self.world.together(read)
        results = {want: each.result(self.world) for want, each in gathered.items()}
        if self.world.is_main:
            for want, result in results.items():
                self._keep(want, result)
        return results

    def _file(self, want: Want) -> Path | None:
        if self.folder is None:
            return None
        detector = self.detectors[want.detector]
        parts = (CACHE_VERSION, self.key, detector.name, detector.sha256, want.kind, want.mirrored, want.count)
        digest = hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:24]
        return self.folder / f"{detector.name}-{want.kind}-{digest}.npz"

    def _kept(self, want: Want) -> Statistics | None:
        path, dim = self._file(want), self.detectors[want.detector].dim
        if path is None or not path.is_file():
            return None
        names = ("total", "outer") if want.kind == "moments" else ("features",)
        try:
            with zipfile.ZipFile(path) as archive:  # a compressed one is not ours, and might be a bomb
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    return None
            with np.load(path, allow_pickle=False) as file:
                tensors = {name: torch.from_numpy(file[name]) for name in names}
        except Exception:  # whatever is wrong with it, the answer is to compute it anew
            return None
        shapes = {"total": [dim], "outer": [dim, dim], "features": [want.count, dim]}
        for name, tensor in tensors.items():
            if list(tensor.shape) != shapes[name] or not tensor.is_floating_point() or not tensor.isfinite().all():
                return None
        if want.kind == "features":
            return tensors["features"].to(self.device)
        moments = Moments(dim, self.device)
        moments.count = want.count
        moments.total.copy_(tensors["total"])
        moments.outer.copy_(tensors["outer"])
        return moments

    def _keep(self, want: Want, result: Statistics | None) -> None:
        path = self._file(want)
        if path is None or result is None:
            return
        tensors = {"features": result} if isinstance(result, torch.Tensor) else \
            {"total": result.total, "outer": result.outer}
        arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
        with suppress(StorageError, OSError):  # a full disk costs the next run time, not this one its numbers
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


class _Images(torch.utils.data.Dataset[torch.Tensor | Sg3Error]):
    """The images of a dataset without their labels. An error is handed over as an item: raised in a worker process, it
    would arrive buried under that one's traceback."""

    def __init__(self, data: ImageFolderDataset) -> None:
        self.data = data

    def __getitem__(self, index: int) -> torch.Tensor | Sg3Error:
        try:
            return torch.from_numpy(self.data[index][0])
        except Sg3Error as error:
            return error


def _stack(items: list[torch.Tensor | Sg3Error]) -> torch.Tensor | Sg3Error:
    images: list[torch.Tensor] = []
    for item in items:
        if isinstance(item, Sg3Error):
            return item
        images.append(item)
    return torch.stack(images)


def _identity(real: RealImages) -> str:
    store = open_store(real.path)
    digest = hashlib.sha256(store.content_hash().encode())
    if isinstance(store, FolderStore):
        for name in store.names:
            status = (store.path / name).stat()
            digest.update(f"{name}/{status.st_size}/{status.st_mtime_ns}/{status.st_ctime_ns}\n".encode())
    return digest.hexdigest()
