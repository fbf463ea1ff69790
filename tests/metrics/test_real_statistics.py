"""Statistics of real images on disk: used when they are right, computed anew when anything is not."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from sg3.cache import cache_folder
from sg3.metrics import RealImages
from sg3.metrics.moments import Moments
from sg3.metrics.progress import Progress
from sg3.metrics.real_statistics import RealStatistics
from sg3.metrics.statistics import StatisticsSpec
from sg3.processes import World
from tests.helpers.image_files import write_dataset
from tests.helpers.pixel_detectors import pixel_detectors

MOMENTS = StatisticsSpec("inception", "moments", mirrored=False, count=12)
FEATURES = StatisticsSpec("inception", "features", mirrored=False, count=12)


def get(path: Path, specs: set[StatisticsSpec], detectors=None, cache: bool = True, **dataset):
    """(statistics, number of images that a detector had to look at)."""
    detectors = detectors or pixel_detectors()
    cpu = torch.device("cpu")
    statistics = RealStatistics(
        RealImages(path, **dataset), detectors, World(0, 1, cpu), Progress(), cpu, batch=5, workers=0, cache=cache
    )
    found = statistics.get(specs)
    return found, sum(detector.seen for detector in detectors.values())


def files() -> list[Path]:
    return sorted(cache_folder("metrics").glob("*"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data.zip")


def test_second_time_no_image_is_read(data: Path) -> None:
    first, seen = get(data, {MOMENTS, FEATURES})
    assert seen == 12  # once for both
    second, seen = get(data, {MOMENTS, FEATURES})
    assert seen == 0
    assert torch.equal(first[FEATURES], second[FEATURES])
    for a, b in zip(first[MOMENTS].mean_and_covariance(), second[MOMENTS].mean_and_covariance(), strict=True):
        assert torch.equal(a, b)
    torch.testing.assert_close(second[MOMENTS].outer, Moments.of(second[FEATURES]).outer)


def test_only_what_is_missing_is_computed(data: Path) -> None:
    get(data, {MOMENTS})
    other = StatisticsSpec("efflite", "moments", mirrored=False, count=12)
    _, seen = get(data, {MOMENTS, other})
    assert seen == 12


def test_off_writes_and_reads_nothing(data: Path) -> None:
    get(data, {MOMENTS})
    before = files()
    assert get(data, {MOMENTS}, cache=False)[1] == 12
    assert get(data, {FEATURES}, cache=False)[1] == 12
    assert files() == before


def test_a_moved_zip_is_known(data: Path, tmp_path: Path) -> None:
    get(data, {MOMENTS})
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    assert get(Path(shutil.move(data, moved / "other.zip")), {MOMENTS})[1] == 0


def test_a_zip_replaced_in_place_is_not(data: Path) -> None:
    """With the same size and times, which the original would have mistaken for the old one."""
    first, _ = get(data, {MOMENTS})
    status = data.stat()
    with zipfile.ZipFile(data) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    names = sorted(contents)
    with zipfile.ZipFile(data, "w") as archive:  # the images in another order: another first image, for one
        for name, other in zip(names, names[1:] + names[:1], strict=True):
            archive.writestr(name, contents[other])
    os.utime(data, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert data.stat().st_size == status.st_size
    assert get(data, {MOMENTS})[1] == 12
    assert len(files()) == 2
    assert first[MOMENTS].count == 12


def test_a_file_replaced_in_a_folder_is_noticed(data: Path, tmp_path: Path) -> None:
    """Same name, size and modification time: only the time of change is left, which nobody can set."""
    folder = tmp_path / "folder"
    with zipfile.ZipFile(data) as archive:
        archive.extractall(folder)
    get(folder, {MOMENTS})
    assert get(folder, {MOMENTS})[1] == 0
    victim = sorted(folder.rglob("*.png"))[5]
    status, content = victim.stat(), bytearray(victim.read_bytes())
    victim.write_bytes(content)
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert get(folder, {MOMENTS})[1] == 12


@pytest.mark.parametrize("change", ["count", "mirrored", "weights", "kind"])
def test_other_statistics_have_other_files(data: Path, change: str) -> None:
    get(data, {MOMENTS})
    detectors = pixel_detectors()
    spec = {
        "count": StatisticsSpec("inception", "moments", False, 11),
        "mirrored": StatisticsSpec("inception", "moments", True, 12),
        "weights": MOMENTS, "kind": FEATURES,
    }[change]  # fmt: skip
    if change == "weights":
        detectors["inception"].sha256 = "another file"
    assert get(data, {spec}, detectors, xflip=True)[1] > 0
    assert len(files()) == 2


def damaged(path: Path, how: str) -> bytes:
    content = path.read_bytes()
    if how == "cut":
        return content[: len(content) // 2]
    if how == "empty":
        return b""
    if how == "flipped":
        middle = len(content) // 2
        return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    if how == "text":
        return b"not a zip at all"
    buffer = io.BytesIO()
    with np.load(path) as old:
        arrays = dict(old)
    if how == "shape":
        arrays["outer"] = arrays["outer"][:3]
    if how == "nan":
        arrays["total"][2] = np.nan
    if how == "names":
        arrays = {"sum": arrays["total"]}
    if how == "integers":
        arrays["total"] = arrays["total"].astype(np.int64)
    if how == "pickle":
        arrays["total"] = np.array([Bomb()], dtype=object)
    (np.savez_compressed if how == "compressed" else np.savez)(buffer, **arrays)
    return buffer.getvalue()


class Bomb:
    """Unpickling it leaves a file behind."""

    def __reduce__(self):
        return Path.touch, (Path(os.environ["SG3_CACHE"]) / "exploded",)


@pytest.mark.parametrize(
    "how", ["cut", "empty", "flipped", "text", "shape", "nan", "names", "integers", "pickle", "compressed"]
)
def test_damaged_and_hostile_files_are_computed_anew(data: Path, how: str) -> None:
    first, _ = get(data, {MOMENTS})
    (path,) = files()
    path.write_bytes(damaged(path, how))
    second, seen = get(data, {MOMENTS})
    assert seen == 12
    assert torch.equal(first[MOMENTS].outer, second[MOMENTS].outer)
    assert get(data, {MOMENTS})[1] == 0  # and replaced by a good one
    assert not (cache_folder("metrics").parent / "exploded").exists()


def test_a_cache_that_cannot_be_written_does_no_harm(data: Path, tmp_path: Path, monkeypatch) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    monkeypatch.setenv("SG3_CACHE", str(blocked))
    found, seen = get(data, {MOMENTS})
    assert seen == 12
    assert found[MOMENTS].count == 12


def test_precision_keeps_float16_of_vgg16_only(data: Path) -> None:
    specs = {StatisticsSpec(name, "features", False, 12) for name in ("vgg16", "inception")}
    found, _ = get(data, specs)
    assert {spec.detector: found[spec].dtype for spec in specs} == {
        "vgg16": torch.float16, "inception": torch.float32}  # fmt: skip


def test_default_place_is_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SG3_CACHE")
    assert cache_folder("metrics") == Path.home() / ".cache" / "sg3" / "metrics"
