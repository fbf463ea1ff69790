"""What the demo's pictures must look like, in figures.

The whole demo takes about ten minutes on two cores: `pytest -m slow tests/train/test_demo.py`. A finished run's folder
in SG3_DEMO_RUN is judged instead of a new one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sg3.data.dataset import ImageFolderDataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """The folder of a finished demo run."""
    if os.environ.get("SG3_DEMO_RUN"):
        return Path(os.environ["SG3_DEMO_RUN"])
    outdir = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "sg3", "train", "--preset=demo", f"--outdir={outdir}"]
    began = time.monotonic()
    subprocess.run(command, check=True, timeout=900)
    assert time.monotonic() - began < 12 * 60
    return next(outdir.glob("00000-*"))


def fakes(run_dir: Path, which: int) -> np.ndarray:
    """The 64 images [64, 32, 32, 3] of the first (0) or last (-1) grid, in 0..1."""
    sheet = np.asarray(Image.open(sorted(run_dir.glob("fakes0*.png"))[which]), dtype=np.float64) / 255
    return sheet.reshape(8, 32, 8, 32, 3).transpose(0, 2, 1, 3, 4).reshape(64, 32, 32, 3)


def reals(run_dir: Path) -> np.ndarray:
    data = ImageFolderDataset(next(run_dir.parent.glob("openmoji-*.zip")))
    return np.stack([data[i][0] for i in range(len(data))]).transpose(0, 2, 3, 1) / 255


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Means over 4 x 4 blocks, [N, 192]."""
    n = len(images)
    return images.reshape(n, 8, 4, 8, 4, 3).mean(axis=(2, 4)).reshape(n, -1)


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance between Gaussians fitted to the rows of a and b."""
    def root(m: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(m)
        return (vectors * np.sqrt(values.clip(0))) @ vectors.T

    ca, cb = np.cov(a.T, ddof=0), np.cov(b.T, ddof=0)
    cross = np.sqrt(np.linalg.eigvalsh(root(ca) @ cb @ root(ca)).clip(0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca) + np.trace(cb) - 2 * cross)


def colour_spread(images: np.ndarray) -> float:
    """Standard deviation over images of their mean colours."""
    return float(images.mean(axis=(1, 2)).std(axis=0).mean())


def mean_distance(images: np.ndarray) -> float:
    """Mean Euclidean distance between different thumbnails."""
    t = thumbnails(images)
    d = np.linalg.norm(t[:, None] - t[None], axis=2)
    return float(d.sum() / (len(t) * (len(t) - 1)))


def test_the_frechet_distance_is_one() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((4000, 3))
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet(a, a + np.array([3, 0, 0])) == pytest.approx(9, abs=1e-9)
    assert frechet(a, a * 2) == pytest.approx(3, rel=0.1)


def test_distance_to_the_real_images_halves(demo: Path) -> None:
    real = thumbnails(reals(demo))
    first, last = (frechet(thumbnails(fakes(demo, which)), real) for which in (0, -1))
    print(f"Frechet distance of thumbnails: first {first:.2f}, last {last:.2f}, ratio {last / first:.3f}")
    assert last <= 0.5 * first


def test_colours_vary(demo: Path) -> None:
    got, real = colour_spread(fakes(demo, -1)), colour_spread(reals(demo))
    print(f"colour spread: fakes {got:.4f}, reals {real:.4f}, ratio {got / real:.3f}")
    assert got >= 0.5 * real


def test_shapes_vary(demo: Path) -> None:
    got, real = mean_distance(fakes(demo, -1)), mean_distance(reals(demo))
    print(f"mean distance between thumbnails: fakes {got:.3f}, reals {real:.3f}, ratio {got / real:.3f}")
    assert got >= 0.5 * real


def test_run_folder_is_complete(demo: Path) -> None:
    for pattern in ("network-snapshot-*.pkl", "training-state-*.pt", "fakes0*.png", "stats.jsonl", "reals.png"):
        assert list(demo.glob(pattern)), pattern
