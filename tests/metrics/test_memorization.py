"""Copies of training images: nearest neighbours, authenticity, C_T, the sheet, and what training left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image
from torch import nn

from sg3.errors import UsageError
from sg3.metrics import RealImages, compute, parse
from sg3.metrics.copying import copying_test, k_means, mann_whitney, principal_axes
from sg3.metrics.features import Findings
from sg3.metrics.nearest import Training, memorised, scores
from sg3.metrics.samples import Samples, random_labels
from sg3.metrics.statistics import TrainingSet
from tests.helpers.image_files import encoded, pixels, write_dataset, write_zip
from tests.helpers.pixel_detectors import PixelDetector
from tests.helpers.tiny_networks import generator3


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestNearest:
    def test_a_mirror_image_counts_as_the_image(self) -> None:
        """Against a loop over all of both, the smaller distance for each image."""
        train, mirrored, rows = normal(30, 3), normal(30, 3, seed=1), normal(12, 3, seed=2)
        found = Training(train, mirrored).nearest(rows, 3)
        for i, row in enumerate(rows):
            pairs = [(train - row).norm(dim=1), (mirrored - row).norm(dim=1)]
            smaller, which = torch.stack(pairs).min(dim=0)
            order = smaller.argsort()[:3]
            assert found.places[i].tolist() == order.tolist()
            assert found.mirrored[i].tolist() == which[order].bool().tolist()
            torch.testing.assert_close(found.distances[i], smaller[order])
        plain = Training(train).nearest(rows, 1)
        assert not plain.mirrored.any()

    def test_nearest_others(self) -> None:
        train = normal(25, 3)
        distances, places = Training(train).nearest_others()
        full = torch.cdist(train, train).fill_diagonal_(torch.inf)
        torch.testing.assert_close(distances, full.min(dim=1).values, rtol=1e-6, atol=1e-6)
        assert places.tolist() == full.argmin(dim=1).tolist()
        own_mirror = Training(train, train + 1e-3)  # nearer than all others, but the same image
        assert own_mirror.nearest_others()[1].tolist() == places.tolist()

    def test_duplicates_are_left_out_but_for_the_first(self) -> None:
        train = normal(12, 3)
        train[[5, 7, 9]] = train[2].clone()
        train[11] = train[0] + 1e-5
        assert Training(train).without_duplicates().tolist() == [0, 1, 2, 3, 4, 6, 8, 10]
        assert Training(normal(9, 3)).without_duplicates().tolist() == list(range(9))

    @pytest.mark.parametrize(("dim", "percent"), [(2, 38.6), (8, 59.1), (64, 80.8)])
    def test_authenticity_of_fresh_samples(self, dim: int, percent: float) -> None:
        """Of the same normal law, 800 each: by dimension (the numbers are NumPy's and SciPy's, of 16 trials), so it
        means nothing by itself. Copies have none of it, and what is far off has all."""

        def authenticity(training: Training, rows: torch.Tensor) -> float:
            between, _ = training.nearest_others()
            return 100 * float((scores(training.nearest(rows, 1), between) > 1).double().mean())

        sets = [Training(normal(800, dim, seed=seed)) for seed in range(4)]
        fresh = [authenticity(training, normal(800, dim, seed=10 + i)) for i, training in enumerate(sets)]
        assert sum(fresh) / 4 == pytest.approx(percent, abs=3)
        assert authenticity(sets[0], sets[0].features[:50] + 1e-6) == 0
        assert authenticity(sets[0], normal(50, dim, seed=2) + 1000) == 100

    def test_ratio(self) -> None:
        training = Training(torch.tensor([[0.0], [10.0], [40.0]]))
        near = training.nearest(torch.tensor([[2.0], [3.0], [25.0], [-4.0], [-6.0]]), 2)
        assert memorised(near).tolist() == [True, False, False, True, False]  # 2:8, 3:7, 15:15, 4:14, 6:16


class TestCopyingTest:
    @pytest.mark.parametrize(("m", "n", "shift"), [(30, 50, 0.0), (41, 20, 1.0)])
    def test_mann_whitney(self, m: int, n: int, shift: float) -> None:
        first, second = (normal(m).mul(4).round() + shift, normal(n, seed=1).mul(4).round())  # with ties
        U = scipy.stats.mannwhitneyu(first, second).statistic
        expected = (U - (m * n / 2 - 0.5)) / np.sqrt(m * n * (m + n + 1) / 12)
        assert mann_whitney(first, second) == pytest.approx(expected, rel=1e-12)

    def test_of_copies_of_fresh_samples_and_of_garbage(self) -> None:
        training = Training(normal(500, 6))
        held_out = normal(300, 6, seed=1)
        fresh, copies = normal(300, 6, seed=2), training.features[:300] + 0.05 * normal(300, 6, seed=3)
        assert abs(copying_test(training, held_out, fresh).c_t) < 3
        assert copying_test(training, held_out, copies).c_t < -10
        assert copying_test(training, held_out, fresh * 2).c_t > 5

    def test_copies_of_a_part_are_seen(self) -> None:
        """10 % copies, as the page of definitions plants them."""
        training = Training(normal(1000, 6))
        held_out, made = normal(1000, 6, seed=1), normal(1000, 6, seed=2)
        made[:100] = training.features[:100] + 0.01 * normal(100, 6, seed=3)
        assert copying_test(training, held_out, made).c_t < -2

    def test_mirror_images_are_training_images(self) -> None:
        training = normal(400, 4)
        made = -training[:300] + 0.01  # what "mirrored" means here
        held_out = normal(300, 4, seed=1)
        assert copying_test(Training(training, -training), held_out, made).c_t < -10
        assert copying_test(Training(training), held_out, made).c_t > -5

    def test_cells(self) -> None:
        """Of three far clusters only those with enough images of both kinds count, by held-out images."""
        centres = torch.eye(3, dtype=torch.float64) * 100
        train, test, gen = (
            torch.cat([centres[i] + normal(n, 3, seed=10 * kind + i) for i, n in enumerate(counts)])
            for kind, counts in enumerate(((50, 50, 50), (30, 60, 40), (30, 30, 5)))
        )
        found = copying_test(Training(train), test, gen)
        assert sorted((m, n) for m, n, _ in found.cells) == [(30, 30), (30, 60)]
        expected = sum(n * z for _, n, z in found.cells) / 90
        assert found.c_t == pytest.approx(expected)
        few = copying_test(Training(train), test[:10], gen)
        assert few.cells == []
        assert few.c_t != few.c_t

    def test_k_means_finds_clusters(self) -> None:
        centres = torch.tensor([[0.0, 0], [30, 0], [0, 30]], dtype=torch.float64)
        x = torch.cat([centre + normal(40, 2, seed=i) for i, centre in enumerate(centres)])
        for seed in range(5):
            found = k_means(x, 3, seed)
            means = torch.stack([x[40 * i : 40 * (i + 1)].mean(dim=0) for i in range(3)])
            torch.testing.assert_close(found[found.sum(1).argsort()], means[means.sum(1).argsort()])
        assert len(k_means(x[:2], 3, 0)) == 2

    def test_principal_axes(self) -> None:
        x = normal(200, 5) * torch.tensor([5.0, 1, 3, 0.1, 2])
        expected = np.linalg.svd((x - x.mean(0)).numpy(), full_matrices=False)[2].T
        found = principal_axes(x).numpy()
        np.testing.assert_allclose(np.abs(found.T @ expected), np.eye(5), atol=1e-6)


def evaluated(name: str, gen: torch.Tensor, train: torch.Tensor, held_out: torch.Tensor | None) -> Findings:
    places = torch.arange(len(train))
    real = TrainingSet(train, None, places, held_out, None, "others")
    return parse(name).evaluate(real, gen, None, 0, True)


class TestMetrics:
    def test_planted_copies_top_the_sheet(self) -> None:
        """10 % of the generated images are training images with noise."""
        train, gen = normal(200, 16), normal(80, 16, seed=1)
        copies = torch.arange(3, 80, 10)
        gen[copies] = train[copies] + 0.05 * normal(len(copies), 16, seed=2)
        found = evaluated("auth80", gen, train, normal(60, 16, seed=3))
        generated = [example for example in found.examples if example.kind == "generated"]
        assert {example.index for example in generated} == set(copies.tolist())
        assert all(example.neighbours[0][0] == example.index for example in generated)
        assert [example.score for example in generated] == sorted(example.score for example in generated)
        assert found.values["auth80_memorised"] == 10
        assert found.values["auth80_memorised_held_out"] == 0
        fresh = evaluated("auth80", normal(80, 16, seed=1), train, normal(60, 16, seed=3)).values
        assert abs(fresh["auth80_authenticity"] - fresh["auth80_authenticity_held_out"]) < 20
        assert found.values["auth80_authenticity"] < fresh["auth80_authenticity"]
        interval = found.intervals["auth80_memorised"]
        expected = scipy.stats.binomtest(8, 80).proportion_ci(0.95, method="wilson")
        assert (interval.low, interval.high) == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-4)

    def test_duplicates_of_training_images_do_not_hide_copies(self) -> None:
        """A training image that is there twice has a neighbour at no distance, and a copy of it two."""
        train = normal(100, 8)
        doubled = torch.cat([train, train[:20]])
        gen = torch.cat([train[:10] + 1e-3, normal(10, 8, seed=1)])
        found = evaluated("auth20", gen, doubled, None)
        assert found.values["auth20_memorised"] == 50
        assert found.facts["duplicates"] == 20
        assert found.notes[0].startswith("no held-out images to compare with")
        assert found.notes[1].startswith("20 training images are duplicates")


class Copier(nn.Module):
    """A network that has learned its training images by heart."""

    z_dim, c_dim, img_channels, img_resolution = 4, 0, 3, 16

    def __init__(self, images: torch.Tensor) -> None:
        super().__init__()
        self.images = nn.Parameter(images.float() / 127.5 - 1, requires_grad=False)

    def forward(self, z: torch.Tensor, c: torch.Tensor, **_: object) -> torch.Tensor:
        return self.images[(z[:, 0].abs() * 1000).long() % len(self.images)]


def noise_set(path: Path, count: int = 40, first: int = 0) -> Path:
    return write_zip(path, {f"{i:03d}.png": encoded(pixels(first + i, 16)) for i in range(count)})


@pytest.fixture
def noise(tmp_path: Path) -> RealImages:
    """40 images of noise, of which training saw 30."""
    return RealImages(noise_set(tmp_path / "noise.zip"), max_size=30, random_seed=5)


def run(names: list[str], G: nn.Module, real: RealImages, **options) -> list:
    detectors = {"inception": PixelDetector("inception", dim=24)}
    return compute([parse(name) for name in names], G, real, device="cpu", batch=8, detectors=detectors, **options)


class TestDriver:
    def test_a_network_that_copies(self, noise: RealImages, tmp_path: Path) -> None:
        images = torch.stack([torch.from_numpy(image) for image, _ in noise.open()])
        seen, left_out = noise.split(40)
        assert len(seen) == 30
        assert sorted([*seen, *left_out]) == list(range(40))
        path = tmp_path / "sheet.png"
        auth, fid = run(["auth16", "fid16"], Copier(images[seen]), noise, sheet=path)
        assert auth.results["auth16_authenticity"] == 0
        assert auth.results["auth16_memorised"] == 100
        assert auth.results["auth16_memorised_held_out"] == 0
        assert (auth.recipe["training_images"], auth.recipe["held_out"]) == (30, 10)
        assert auth.recipe["held_out_from"] == "left out of training"
        assert fid.recipe["num_real"] == 16  # the rest of the metrics takes all images, as the original does
        with Image.open(path) as sheet:
            found = np.array(sheet)
        # 16 px are shown four times as large, each generated image beside the training image that it is a copy of.
        first, near = found[44:108, 6:70], found[44:108, 82:146]
        assert np.array_equal(first, near)
        shown = torch.from_numpy(first[::4, ::4].copy()).permute(2, 0, 1)
        assert any(torch.equal(shown, image) for image in images[seen])

    def test_held_out_images_by_name(self, noise: RealImages, tmp_path: Path) -> None:
        test = RealImages(noise_set(tmp_path / "test.zip", 25, first=100))
        (auth,) = run(["auth12"], generator3(), noise, test=test)
        assert (auth.recipe["held_out"], auth.recipe["held_out_from"]) == (25, "test")
        assert auth.recipe["test_dataset"] == test.open().content_hash()
        with pytest.raises(UsageError, match="8 px with 3 channels, the network makes 16 px"):
            run(["auth12"], generator3(), noise, test=RealImages(write_dataset(tmp_path / "8.zip", size=8)))

    def test_c_t_needs_them(self, noise: RealImages, tmp_path: Path) -> None:
        whole = replace(noise, max_size=None)
        with pytest.raises(UsageError, match=r"ct12: needs real images .* --test-data, or train with --holdout"):
            run(["ct12"], generator3(), whole)
        test = RealImages(noise_set(tmp_path / "test.zip", 70, first=100))
        images = torch.stack([torch.from_numpy(image) for image, _ in noise.open()])
        (copied,) = run(["ct90"], Copier(images), whole, test=test)
        assert copied.results["ct90"] < -5
        assert sum(cell["held_out"] for cell in copied.recipe["cells_that_count"]) <= 70
        (auth,) = run(["auth12"], generator3(), whole)
        assert list(auth.results) == ["auth12_authenticity", "auth12_memorised"]
        assert auth.recipe["notes"][0].startswith("no held-out images")

    def test_mirrored_training_images(self, noise: RealImages) -> None:
        """As trained; a mirrored copy is a copy, and the sheet would show it mirrored."""
        images = torch.stack([torch.from_numpy(image) for image, _ in noise.open()])
        flipped = Copier(images.flip(3))
        whole = replace(noise, max_size=None)
        plain, mirrored = (run(["auth16"], flipped, replace(whole, xflip=xflip))[0] for xflip in (False, True))
        assert plain.results["auth16_memorised"] < 50
        assert mirrored.results["auth16_memorised"] == 100
        assert mirrored.recipe["mirror_images_too"]

    def test_sheet_without_held_out_images(self, noise: RealImages, tmp_path: Path) -> None:
        path = tmp_path / "sheet.png"
        run(["auth12"], generator3(), replace(noise, max_size=None), sheet=path)
        with Image.open(path) as sheet:
            assert np.array(sheet)[120:, sheet.width // 2 + 30 :].min() == 255  # the right half is empty

    def test_generated_images_on_the_sheet_are_those_measured(self, noise: RealImages) -> None:
        from sg3.metrics.memorization_sheet import _generated

        G = generator3()
        samples = Samples(G, random_labels(G, None, 0), 0, batch=8)
        made = torch.cat([samples.images(part) for part in samples.chunks(24)])
        assert all(torch.equal(_generated(samples, index), made[index]) for index in (0, 7, 8, 23))
