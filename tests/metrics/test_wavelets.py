"""Wavelet packets and the Frechet wavelet distance against matrices, closed forms and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from sg3.errors import MachineError, UsageError
from sg3.metrics import fwd
from sg3.metrics.fwd import check_shape
from sg3.metrics.wavelets import PacketMoments, frechet_wavelet_distance, haar_packets, packet_level


def pixels(*shape: int, seed: int = 0, low: int = 0, high: int = 256) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, shape, dtype=torch.uint8, generator=rng)


def plain_packets(images: np.ndarray, level: int) -> np.ndarray:
    """[N, C, H, W] -> [N, 4^level, C, h, w]: rows and columns of each block times a Hadamard matrix."""
    n, c, height, width = images.shape
    side = 2**level
    matrix = scipy.linalg.hadamard(side) / side**0.5
    blocks = images.reshape(n, c, height // side, side, width // side, side)
    bands = np.einsum("pa,qb,ncyaxb->npqcyx", matrix, matrix, blocks)
    return bands.reshape(n, side * side, c, height // side, width // side)


class TestPackets:
    def test_one_block_by_hand(self) -> None:
        image = torch.tensor([[1.0, 2.0], [5.0, 10.0]])[None, None]
        assert haar_packets(image, 1).flatten().tolist() == [9, -6, -3, 2]

    @pytest.mark.parametrize("level", [0, 1, 2, 4])
    def test_are_those_of_hadamard_matrices(self, level: int) -> None:
        """In some order; every one of theirs is one of ours."""
        x = torch.randn(3, 2, 16, 32, dtype=torch.float64)
        ours, theirs = haar_packets(x, level).numpy(), plain_packets(x.numpy(), level)
        assert ours.shape == theirs.shape
        apart = np.abs(ours[:, :, None] - theirs[:, None]).max(axis=(0, 3, 4, 5))  # [ours, theirs]
        assert sorted(apart.argmin(axis=1)) == list(range(4**level))
        assert apart.min(axis=1).max() < 1e-12

    def test_level_leaves_sixteen_pixels(self) -> None:
        sizes = {8: 0, 16: 0, 31: 0, 32: 1, 48: 1, 64: 2, 128: 3, 256: 4, 1024: 6}
        assert {size: packet_level(size, size) for size in sizes} == sizes
        assert packet_level(64, 256) == packet_level(256, 64) == 2

    def test_sizes_that_cannot_be_split(self) -> None:
        with pytest.raises(ValueError, match="divisible by 4"):
            haar_packets(torch.zeros(1, 1, 66, 64), 2)


class TestDistance:
    @pytest.mark.parametrize(("size", "channels"), [(16, 3), (64, 1)])
    def test_of_a_shift_of_all_pixels(self, size: int, channels: int) -> None:
        """Only the all-low packet moves: FWD = e^2 C (r / 2^l)^2."""
        x = pixels(6, channels, size, size, high=200)
        assert frechet_wavelet_distance(x, x + 51) == pytest.approx(0.2**2 * channels * 16**2, rel=1e-6)
        assert frechet_wavelet_distance(x, x) == pytest.approx(0, abs=1e-6)

    def test_of_noise_on_a_constant_image(self) -> None:
        """Every packet has the covariance v I: FWD = v C (r / 2^l)^2, times 1 + 1 / N for the mean of N images."""
        clean = torch.full((40, 1, 32, 32), 100, dtype=torch.uint8)
        noisy = clean + 40 * pixels(400, 1, 32, 32, high=2)[:40]
        noisy = torch.cat([noisy, 100 + 40 * pixels(360, 1, 32, 32, seed=1, high=2)])
        variance = (20 / 255) ** 2
        noisy = noisy - 20  # its mean is that of the clean images
        expected = variance * 16**2 * (1 + 1 / 400)
        assert frechet_wavelet_distance(clean, noisy) == pytest.approx(expected, rel=0.01)

    def test_by_scipy(self) -> None:
        """At 8 pixels and one channel, with more images than a packet has numbers."""
        x, y = pixels(150, 1, 8, 8), pixels(120, 1, 8, 8, seed=1, low=30)
        y[:, :, :4] //= 2
        real, gen = (images.double().numpy().reshape(len(images), -1) / 255 for images in (x, y))
        cov1, cov2 = np.cov(real.T), np.cov(gen.T)
        root = scipy.linalg.sqrtm(cov1 @ cov2).real
        expected = np.square(real.mean(0) - gen.mean(0)).sum() + np.trace(cov1 + cov2 - 2 * root)
        assert frechet_wavelet_distance(x, y) == pytest.approx(expected, rel=1e-8)

    def test_is_the_mean_over_packets(self) -> None:
        x, y = pixels(40, 1, 32, 32), pixels(40, 1, 32, 32, seed=1)
        bands = [plain_packets(images.double().numpy() / 255, 1).reshape(40, 4, 256) for images in (x, y)]
        expected = []
        for packet in range(4):
            a, b = (band[:, packet] for band in bands)
            # 39 dimensions of 256: tr (A B)^(1/2) are the singular values of the centred rows' products.
            a0, b0 = ((rows - rows.mean(0)) / 39**0.5 for rows in (a, b))
            cross = np.linalg.svd(a0 @ b0.T, compute_uv=False).sum()
            distance = np.square(a.mean(0) - b.mean(0)).sum() + np.square(a0).sum() + np.square(b0).sum() - 2 * cross
            expected.append(distance)
        assert frechet_wavelet_distance(x, y) == pytest.approx(np.mean(expected), rel=1e-6)

    def test_wrong_inputs(self) -> None:
        with pytest.raises(ValueError, match="expected one shape"):
            frechet_wavelet_distance(pixels(4, 3, 16, 16), pixels(4, 1, 16, 16))
        with pytest.raises(ValueError, match="at least 2"):
            frechet_wavelet_distance(pixels(4, 3, 16, 16), pixels(1, 3, 16, 16))
        with pytest.raises(ValueError, match="expected uint8"):
            PacketMoments.of(torch.zeros(2, 3, 16, 16))


class TestMoments:
    def test_sums_are_exact_in_any_order(self) -> None:
        x = pixels(23, 3, 32, 32)
        whole = PacketMoments.of(x)
        parts = PacketMoments((3, 32, 32))
        for start in range(0, 23, 5):
            parts.add(x.flip(0)[start : start + 5])
            parts.flush()
        assert parts.count == whole.count == 23
        assert torch.equal(parts.total, whole.total)
        assert torch.equal(parts.outer, whole.outer)
        rest = whole.without(PacketMoments.of(x[:9]))
        assert torch.equal(rest.outer, PacketMoments.of(x[9:]).outer)

    def test_many_images_go_in_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from sg3.metrics import wavelets

        x = pixels(11, 1, 16, 16)
        whole = PacketMoments.of(x)
        monkeypatch.setattr(wavelets, "BLOCK", 4 * 256)
        assert torch.equal(PacketMoments.of(x).outer, whole.outer)


class TestChecks:
    def test_sides(self) -> None:
        check_shape("fwd5k", (3, 96, 64))
        with pytest.raises(UsageError, match="66 x 64 cannot be; it takes sides divisible by 4"):
            check_shape("fwd5k", (3, 64, 66))

    def test_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fwd, "memory", lambda: (2 * 2**30, 2**30))
        check_shape("fwd5k", (3, 128, 128))
        with pytest.raises(MachineError, match=r"256 packets take 2 GB, this machine has 2 GB"):
            check_shape("fwd5k", (3, 256, 256))
