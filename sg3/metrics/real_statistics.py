"""Statistics of the real images, kept from one run to the next.

What is kept is found by what the images are, not where they are or how old: the dataset's content hash, plus, for a
folder, whose hash does not read every file, the size and change times of all files. A dataset replaced in place is
therefore computed anew, a zip that was moved is not. A file that is damaged counts as not there.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import torch

from sg3 import limits
from sg3.atomic import write_atomic
from sg3.cache import cache_folder
from sg3.canvas import Size
from sg3.data.dataset import ImageFolderDataset
from sg3.data.folder_or_zip import FolderStore, open_store
from sg3.data.loader_signals import LoaderSignals
from sg3.errors import Sg3Error, StorageError
from sg3.metrics.detectors import CPU_BATCH, Detector
from sg3.metrics.progress import Progress
from sg3.metrics.real_images import RealImages
from sg3.metrics.samples import chunks
from sg3.metrics.statistics import Gathered, Statistics, StatisticsSpec, TrainingSet, empty_moments
from sg3.metrics.views import framed, seen
from sg3.processes import World
from sg3.side_by_side import side_by_side

CACHE_VERSION = 1  # of what is kept and how; another number makes all of it unknown


class RealStatistics:
    """Computes or finds the statistics that metrics ask for."""

    def __init__(
        self, real: RealImages, detectors: Mapping[str, Detector], world: World, progress: Progress,
        device: torch.device, *, batch: int, workers: int, cache: bool,
    ) -> None:  # fmt: skip
        self.real = real
        self.detectors = detectors
        self.world = world
        self.progress = progress
        self.device = device
        self.batch = batch
        self.workers = workers
        self.folder = cache_folder("metrics") if cache else None
        self.key = world.on_main(lambda: _identity(real)) if cache else ""

    def get(self, specs: set[StatisticsSpec]) -> dict[StatisticsSpec, Statistics | None]:
        """All of them; features in the first process only. Images are read once for all that are not kept."""
        order = sorted(specs, key=repr)
        found = {spec: self._kept(spec) for spec in order} if self.world.is_main else {}
        missing = self.world.on_main(lambda: [spec for spec in order if found[spec] is None])
        for mirrored in (False, True):
            due = [spec for spec in missing if spec.mirrored == mirrored]
            if due:
                found.update(self._compute(due))
        return {spec: found.get(spec) for spec in specs}

    def _compute(self, specs: list[StatisticsSpec]) -> dict[StatisticsSpec, Statistics | None]:
        data = self.world.together(lambda: self.real.open(specs[0].mirrored))
        gathered = {spec: Gathered(self.detectors[spec.detector], spec.kind, spec.count, self.device) for spec in specs}
        parts = self.world.mine(chunks(max(spec.count for spec in specs), self.batch))

        signals = LoaderSignals()
        views = {(spec.detector, spec.view) for spec in specs}

        def look(images: torch.Tensor | Sg3Error) -> dict[tuple[str, str], torch.Tensor]:
            if isinstance(images, Sg3Error):
                raise images
            here = images.to(self.device)
            return {(name, view): self.detectors[name].features(seen(here, view)) for name, view in views}

        def read() -> None:
            loader = torch.utils.data.DataLoader(
                _Images(data, self.real.visible), batch_sampler=[list(part) for part in parts],
                num_workers=self.workers, collate_fn=_stack, worker_init_fn=signals if self.workers else None,
            )  # fmt: skip
            batches = iter(loader)  # begins the loaders: they are forked before there are other threads
            with closing(side_by_side(look, batches, len(parts), self.device, self.batch // CPU_BATCH)) as looks:
                for part, features in zip(
                    self.progress.each(f"real images of {data.name}", parts), looks, strict=True
                ):
                    for spec in specs:
                        gathered[spec].add(part, features[spec.detector, spec.view])

        with torch.no_grad():
            try:
                self.world.together(read)
            finally:
                signals.over()
        results = {spec: each.result(self.world) for spec, each in gathered.items()}
        if self.world.is_main:
            for spec, result in results.items():
                self._keep(spec, result)
        return results

    def _file(self, spec: StatisticsSpec) -> Path | None:
        if self.folder is None:
            return None
        detector = self.detectors[spec.detector]
        what = [CACHE_VERSION, self.key, detector.name, detector.sha256, spec.kind, spec.mirrored, spec.count]
        parts = [*what, *filter(None, [spec.view, self.real.visible])]
        digest = hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:24]
        return self.folder / f"{detector.name}-{spec.kind}-{digest}.npz"

    def _kept(self, spec: StatisticsSpec) -> Statistics | None:
        path, detector = self._file(spec), self.detectors[spec.detector]
        if path is None or not path.is_file():
            return None
        names = ("features",) if spec.kind == "features" else ("total", "outer")
        try:
            # A compressed one is not ours, and might be a bomb.
            with limits.open_zip(path, limits.ARRAY_ENTRIES, str(path)) as archive:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    return None
            with np.load(path, allow_pickle=False) as file:
                tensors = {name: torch.from_numpy(file[name]) for name in names}
        except Exception:  # whatever is wrong with it, the answer is to compute it anew
            return None
        moments = empty_moments(detector, spec.kind, self.device)
        shapes = {"features": torch.Size([spec.count, detector.dim])} if moments is None else \
            {"total": moments.total.shape, "outer": moments.outer.shape}
        for name, tensor in tensors.items():
            if tensor.shape != shapes[name] or not tensor.is_floating_point() or not tensor.isfinite().all():
                return None
        if moments is None:
            return tensors["features"].to(self.device)
        moments.count = spec.count
        moments.total.copy_(tensors["total"])
        moments.outer.copy_(tensors["outer"])
        return moments

    def _keep(self, spec: StatisticsSpec, result: Statistics | None) -> None:
        path = self._file(spec)
        if path is None or result is None:
            return
        assert not isinstance(result, TrainingSet)
        tensors = {"features": result} if isinstance(result, torch.Tensor) else \
            {"total": result.total, "outer": result.outer}
        arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
        with suppress(StorageError, OSError):  # a full disk costs the next run time, not this one its numbers
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


class _Images(torch.utils.data.Dataset[torch.Tensor | Sg3Error]):
    """The images of a dataset without their labels. An error is handed over as an item: raised in a worker process, it
    would arrive buried under that one's traceback."""

    def __init__(self, data: ImageFolderDataset, visible: Size | None) -> None:
        self.data = data
        self.visible = visible

    def __getitem__(self, index: int) -> torch.Tensor | Sg3Error:
        try:
            return framed(torch.from_numpy(self.data[index][0]), self.visible)
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
            status = Path(store.where(name)).stat()
            digest.update(f"{name}/{status.st_size}/{status.st_mtime_ns}/{status.st_ctime_ns}\n".encode())
    return digest.hexdigest()
