"""EQ-T and EQ-R tell architectures apart, without any training: aliasing is a property of filters, not of weights."""

from __future__ import annotations

import math

import pytest
import torch

from sg3.metrics import compute, equivariance_psnr, parse
from sg3.metrics.equivariance import translate_integer
from sg3.models import stylegan3
from sg3.randomness import host_rng

CONFIGS = {
    "T": {},
    "T, short filters, no upsampling": {"filter_size": 2, "lrelu_upsampling": 1},
    "R": {"conv_kernel": 1, "use_radial_filters": True},
}
# The original's implementation measured one draw of weights for each: 64 px, 24 images of unit variance.
ORIGINAL = {
    "T": (66, 61, 14),
    "T, short filters, no upsampling": (26, 27, 11),
    "R": (68, 64, 62),
}
TOLERANCE = 3  # dB


def network(seed: int, resolution: int, layers: int, base: int, most: int, **config) -> stylegan3.Generator:
    """Random weights, magnitudes updated 20 times, images of unit variance."""
    torch.manual_seed(seed)
    G = stylegan3.Generator(
        z_dim=64, c_dim=0, w_dim=64, img_resolution=resolution, img_channels=3, channel_base=base, channel_max=most,
        num_layers=layers, **config,
    ).eval().requires_grad_(False)  # fmt: skip
    for _ in range(20):
        G(torch.randn(2, 64), update_emas=True)
    G.synthesis.output_scale /= float(torch.cat([G(torch.randn(4, 64)) for _ in range(4)]).std())
    return G


def psnr(G: stylegan3.Generator, count: int) -> tuple[float, ...]:
    metrics = [parse(f"eqt{count}_int"), parse(f"eqt{count}_frac"), parse(f"eqr{count}")]
    return tuple(result.results[result.metric.name] for result in compute(metrics, G, device="cpu"))


def test_small_networks_are_told_apart() -> None:
    got = {name: psnr(network(0, 32, 6, 256, 8, **config), 8) for name, config in CONFIGS.items()}
    t, poor, r = (got[name] for name in CONFIGS)
    assert min(t[:2]) > max(poor[:2]) + 15
    assert min(r) > 50
    assert t[2] < 30


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_agrees_with_the_original(name: str) -> None:
    """Draws of weights scatter by several dB (T: 65 to 69, R: 69 to 75), the original's being one of them: it has to
    lie within 3 dB of the range of four of ours."""
    draws = [psnr(network(seed, 64, 10, 1024, 32, **CONFIGS[name]), 24) for seed in range(4)]
    for values, original in zip(zip(*draws, strict=True), ORIGINAL[name], strict=True):
        assert min(values) - TOLERANCE <= original <= max(values) + TOLERANCE


class Analytic(torch.nn.Module):
    """A generator that draws a known function of the plane, in place of StyleGAN3's synthesis network."""

    class Input(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("transform", torch.eye(3))

    class Synthesis(torch.nn.Module):
        def __init__(self, size: int, error: float) -> None:
            super().__init__()
            self.input = Analytic.Input()
            self.size, self.error = size, error

        def forward(self, ws: torch.Tensor, noise_mode: str, force_fp32: bool) -> torch.Tensor:
            assert force_fp32
            place = (torch.arange(self.size, dtype=torch.float64) + 0.5) / self.size - 0.5
            gx, gy = torch.meshgrid(place, place, indexing="xy")
            points = torch.stack([gx, gy, torch.ones_like(gx)], dim=2) @ self.input.transform.double().t()
            x, y = points[..., 0], points[..., 1]
            moved = not torch.equal(self.input.transform, torch.eye(3))
            picture = torch.sin(20 * x + 0.3) * torch.cos(12 * y) + torch.sin(8 * (x + y))
            return (picture + self.error * moved).float().expand(len(ws), 3, -1, -1)

    def __init__(self, size: int, error: float = 0.0) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.img_resolution, self.img_channels = 4, 0, size, 3
        self.synthesis = Analytic.Synthesis(size, error)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def mapping(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return z[:, None]


class TestDefinition:
    def test_a_perfect_generator_is_limited_by_the_operators_only(self) -> None:
        """Also the direction of every transform: a wrong sign would give about 0 dB."""
        whole, fraction, turned = psnr(Analytic(64), 8)
        assert whole > 100
        assert fraction > 40
        assert turned > 40

    def test_both_rotations_are_by_the_angle_of_the_transform(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Which of its two orientations the second one's filter has makes too little of a difference to see above."""
        angles: list[float] = []
        for name in ("rotate_fractional", "pseudo_rotate_fractional"):
            plain = getattr(equivariance_psnr, name)

            def noting(x: torch.Tensor, angle: float, plain=plain) -> tuple[torch.Tensor, torch.Tensor]:
                angles.append(angle)
                return plain(x, angle)

            monkeypatch.setattr(equivariance_psnr, name, noting)
        compute([parse("eqr8")], Analytic(32), device="cpu")
        assert len(angles) == 4
        assert angles[0::2] == angles[1::2]

    def test_a_known_error_gives_its_psnr(self) -> None:
        """Moved pictures are brighter by 0.1: 20 log10(2 / 0.1)."""
        for value in psnr(Analytic(64, error=0.1), 8):
            assert value == pytest.approx(20 * math.log10(2 / 0.1), abs=0.2)

    def test_ratio_of_sums_over_the_masks(self) -> None:
        """By hand, for two batches with different masks."""
        G = Analytic(32, error=0.3)
        squares = pixels = 0.0
        for number, count in ((0, 4), (1, 3)):
            tx, ty = host_rng(0, "metrics/eq/int", number).uniform(-0.125, 0.125, 2)
            tx, ty = round(tx * 32) / 32, round(ty * 32) / 32
            original = G.synthesis(torch.zeros(count, 1, 4), "const", True)
            reference, mask = translate_integer(original, tx, ty)
            G.synthesis.input.transform[:2, 2] = torch.tensor([-tx, -ty])
            squares += float((((reference - G.synthesis(torch.zeros(count, 1, 4), "const", True)) ** 2) * mask).sum())
            pixels += float(mask.sum())
            G.synthesis.input.transform.copy_(torch.eye(3))
        expected = 20 * math.log10(2) - 10 * math.log10(squares / pixels)
        (result,) = compute([parse("eqt7_int")], G, device="cpu")
        assert result.results["eqt7_int"] == pytest.approx(expected, rel=1e-5)

    def test_perfect_is_infinite_and_nothing_to_compare_is_nan(self) -> None:
        class Flat(Analytic):
            def __init__(self, size: int) -> None:
                super().__init__(size)
                self.synthesis.forward = lambda ws, noise_mode, force_fp32: torch.ones(len(ws), 3, size, size)

        (result,) = compute([parse("eqt4_int")], Flat(16), device="cpu")
        assert result.results["eqt4_int"] == math.inf
        assert result.as_dict()["results"]["eqt4_int"] is None
        (result,) = compute([parse("eqr4")], Flat(8), device="cpu")
        assert math.isnan(result.results["eqr4"])
