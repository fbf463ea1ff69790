"""The operators that move and turn images, against golden arrays and against what they mean."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from sg3.metrics.equivariance import (
    pseudo_rotate_fractional,
    rotate_fractional,
    translate_fractional,
    translate_integer,
)
from tests.helpers.arrays import Arrays


@pytest.fixture(scope="module")
def gold(golden: Path) -> tuple[dict[str, Any], Arrays]:
    return json.loads((golden / "metrics.json").read_text()), Arrays(golden / "metrics.npz")


@pytest.mark.parametrize("case", [0, 1])
@pytest.mark.parametrize(
    ("name", "operator", "parameter"),
    [
        ("int", translate_integer, "trans"),
        ("frac", translate_fractional, "trans"),
        ("rot", rotate_fractional, "angle"),
        ("prot", pseudo_rotate_fractional, "angle"),
    ],
)
def test_golden(gold, name: str, operator, parameter: str, case: int) -> None:
    numbers, arrays = gold
    setting = numbers[f"{parameter}{case}"]
    image, mask = operator(arrays["x"], *(setting if parameter == "trans" else [setting]))
    expected = arrays[f"{name}{case}/z"]
    assert float((image - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    assert torch.equal(mask, arrays[f"{name}{case}/mask"])


def waves(n: int, shift: tuple[float, float] = (0.0, 0.0), angle: float = 0.0) -> torch.Tensor:
    """A smooth function of the plane, far below the Nyquist frequency, moved (pixels) or turned about the centre."""
    place = torch.arange(n, dtype=torch.float64) - (n - 1) / 2
    gx, gy = torch.meshgrid(place, place, indexing="xy")
    x = math.cos(angle) * gx - math.sin(angle) * gy - shift[0]
    y = math.sin(angle) * gx + math.cos(angle) * gy - shift[1]
    picture = torch.sin(x * 0.5 + 0.3) * torch.cos(y * 0.4) + torch.sin((x + y) * 0.25)
    return picture[None, None]


def plane_wave(n: int, direction: float, frequency: float = 0.4) -> torch.Tensor:
    """cos and sin of a plane wave, as two images, so that the mean square is the same everywhere."""
    place = torch.arange(n, dtype=torch.float64) - (n - 1) / 2
    gx, gy = torch.meshgrid(place, place, indexing="xy")
    phase = 2 * math.pi * frequency * (math.cos(direction) * gx + math.sin(direction) * gy)
    return torch.stack([phase.cos(), phase.sin()])[:, None]


class TestTranslation:
    def test_whole_pixels_move_right_and_down(self) -> None:
        x = torch.zeros(1, 1, 8, 8)
        x[0, 0, 2, 3] = 1
        z, mask = translate_integer(x, 2 / 8, 1 / 8)
        assert z.nonzero().tolist() == [[0, 0, 3, 5]]
        assert mask[0, 0].nonzero().amin(dim=0).tolist() == [1, 2]
        assert int(mask.sum()) == 7 * 6

    def test_not_square(self) -> None:
        x = torch.randn(1, 2, 6, 10)
        z, mask = translate_integer(x, 0.2, -0.5)
        assert torch.equal(z[:, :, :3, 2:], x[:, :, 3:, :-2])
        assert float(mask.mean()) == pytest.approx(0.5 * 0.8)
        assert translate_fractional(x, 0.2, -0.5)[0].shape == x.shape

    @pytest.mark.parametrize("operator", [translate_integer, translate_fractional])
    @pytest.mark.parametrize("tx", [1.0, -1.0, 1.5, -20.0])
    def test_out_of_sight(self, operator, tx: float) -> None:
        z, mask = operator(torch.ones(1, 1, 8, 8), tx, 0.0)
        assert z.shape == mask.shape == (1, 1, 8, 8)
        assert float(mask.sum()) == 0
        assert float(translate_integer(torch.ones(1, 1, 8, 8), tx, 0.0)[0].abs().sum()) == 0

    def test_fractional_at_whole_pixels_is_the_whole_one(self) -> None:
        x = torch.randn(2, 3, 16, 16)
        fractional, whole = (operator(x, 3 / 16, -2 / 16)[0] for operator in (translate_fractional, translate_integer))
        torch.testing.assert_close(fractional, whole)

    @pytest.mark.parametrize("shift", [(0.5, 0.0), (-2.3, 4.9), (3.25, -0.75)])
    def test_fractional_is_the_function_moved(self, shift: tuple[float, float]) -> None:
        z, mask = translate_fractional(waves(48), shift[0] / 48, shift[1] / 48)
        assert float(mask.mean()) > 0.6
        assert float(((z - waves(48, shift)) * mask).abs().max()) < 0.02


class TestRotation:
    @pytest.mark.parametrize("angle", [0.0, 0.4, -1.3, math.pi / 2, 3.0])
    def test_is_the_function_turned(self, angle: float) -> None:
        z, mask = rotate_fractional(waves(48), angle)
        assert float(mask.mean()) > 0.3
        assert float(((z - waves(48, angle=angle)) * mask).abs().max()) < 0.03

    @pytest.mark.parametrize("quarters", [0, 1, 2, 3])
    def test_quarter_turns_move_pixels(self, quarters: int) -> None:
        """Counterclockwise as torch's rot90. Even white noise survives, but for what the cut of the ideal filters after
        64 pixels costs: about 1 / (64 pi^2) per tap."""
        x = torch.randn(1, 1, 32, 32, dtype=torch.float64)
        z, mask = rotate_fractional(x, quarters * math.pi / 2)
        assert float(((z - torch.rot90(x, quarters, dims=[2, 3])) * mask).abs().max()) < 0.03

    def test_both_sides_of_the_comparison_agree(self) -> None:
        """White noise turned by a quarter, against the same frequencies of its exactly turned self."""
        torch.manual_seed(0)
        x = torch.randn(1, 1, 40, 40, dtype=torch.float64)
        y = torch.rot90(x, 1, dims=[2, 3])
        z, mask = rotate_fractional(x, math.pi / 2)
        same, mask2 = pseudo_rotate_fractional(y, math.pi / 2)
        assert float(((z - same) * mask * mask2).abs().max()) < 0.03

    def test_both_filters_are_oriented_alike(self) -> None:
        """What a wave keeps of its amplitude depends on its direction, in both operators alike but for the sense: one
        lowers most where the other, coarse one raises most. Turned the wrong way the two would not agree."""
        angle, kept, raised = math.pi / 8, [], []
        for degrees in range(0, 90, 10):
            direction = math.radians(degrees)
            wave = plane_wave(64, direction)
            turned = plane_wave(64, direction - angle)  # what it becomes
            for image, mask, into in ((*rotate_fractional(wave, angle), kept),
                                      (*pseudo_rotate_fractional(turned, angle), raised)):
                into.append(float((image.square() * mask).sum() / mask.sum()))
        correlation = torch.corrcoef(torch.tensor([kept, raised]))[0, 1]
        assert float(correlation) < -0.95

    def test_pseudo_rotation_keeps_low_and_loses_corner_frequencies(self) -> None:
        n = 48
        low, mask = pseudo_rotate_fractional(waves(n), 0.7)
        assert float(((low - waves(n)) * mask).abs().max()) < 0.03
        checkers = (-1.0) ** (torch.arange(n)[:, None] + torch.arange(n)[None, :])[None, None]
        high, mask = pseudo_rotate_fractional(checkers, math.pi / 4)
        assert float((high * mask).abs().max()) < 0.1
        assert int(mask[0, 0].sum()) == (n - 10) ** 2

    @pytest.mark.parametrize("angle", [0.3, 2.0])
    def test_brightness_is_kept_exactly(self, angle: float) -> None:
        x = torch.ones(1, 1, 40, 40, dtype=torch.float64)
        for operator in (rotate_fractional, pseudo_rotate_fractional):
            z, mask = operator(x, angle)
            assert float(((z - 1) * mask).abs().max()) < 1e-6

    def test_images_too_small_for_any_exact_pixel(self) -> None:
        for operator in (rotate_fractional, pseudo_rotate_fractional, translate_fractional):
            z, mask = operator(torch.ones(1, 1, 4, 4), *([0.3, 0.3] if operator is translate_fractional else [0.3]))
            assert z.shape == mask.shape
            assert float(mask.sum()) == 0
