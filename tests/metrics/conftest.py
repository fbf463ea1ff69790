"""Real images to measure against, and detectors that cost nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from sg3.metrics import RealImages
from tests.helpers.image_files import write_dataset
from tests.helpers.pixel_detectors import PixelDetector, pixel_detectors


@pytest.fixture
def detectors() -> dict[str, PixelDetector]:
    return pixel_detectors()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SG3_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def discs16(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("real") / "discs.zip", count=20)


@pytest.fixture(scope="session")
def labelled8(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("real") / "labelled.zip", count=18, size=8, labels=3)


@pytest.fixture
def real16(discs16: Path) -> RealImages:
    return RealImages(discs16, resolution=16)


@pytest.fixture
def real8(labelled8: Path) -> RealImages:
    return RealImages(labelled8, use_labels=True)
