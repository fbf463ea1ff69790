"""Paths through keyframes: scipy's splines, closed loops, golden great circles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sg3.tools.interpolation import Interpolation, slerp


def random_keys(count: int, *shape: int) -> torch.Tensor:
    return torch.randn(count, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 20])
def test_loop_is_the_originals_spline(count: int) -> None:
    """scipy's interp1d(kind='cubic') on keyframes repeated 5 times, read in the middle copy."""
    interpolate = pytest.importorskip("scipy.interpolate")
    keys = random_keys(count, 3, 5)
    x = np.arange(-2 * count, 3 * count)
    expected = interpolate.interp1d(x, np.tile(keys.numpy(), (5, 1, 1)), kind="cubic", axis=0)
    times = np.arange(count * 8) / 8
    np.testing.assert_allclose(Interpolation(keys)(times).numpy(), expected(times), rtol=0, atol=1e-12)


@pytest.mark.parametrize("count", [4, 5, 6, 21])
def test_open_spline_is_scipys(count: int) -> None:
    interpolate = pytest.importorskip("scipy.interpolate")
    keys = random_keys(count, 4)
    times = np.linspace(0, count - 1, 57)
    expected = interpolate.interp1d(np.arange(count), keys.numpy(), kind="cubic", axis=0)(times)
    np.testing.assert_allclose(Interpolation(keys, loop=False)(times).numpy(), expected, rtol=0, atol=1e-12)


def test_few_keyframes_give_a_point_a_line_and_a_parabola() -> None:
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    keys = torch.tensor([[1.0], [4.0], [-2.0]], dtype=torch.float64)
    assert torch.equal(Interpolation(keys[:1], loop=False)([0.0]), keys[:1])
    torch.testing.assert_close(Interpolation(keys[:2], loop=False)(t), 1 + 3 * t[:, None])
    parabola = np.polynomial.Polynomial.fit([0, 1, 2], keys[:, 0].numpy(), 2)
    t = torch.linspace(0, 2, 9, dtype=torch.float64)
    np.testing.assert_allclose(Interpolation(keys, loop=False)(t)[:, 0].numpy(), parabola(t.numpy()), atol=1e-12)


@pytest.mark.parametrize("kind", ["cubic", "linear", "slerp"])
@pytest.mark.parametrize("loop", [True, False])
@pytest.mark.parametrize("ease", [True, False])
def test_passes_through_every_keyframe(kind: str, loop: bool, ease: bool) -> None:
    keys = random_keys(5, 2, 6)
    path = Interpolation(keys, kind, loop=loop, ease=ease)
    torch.testing.assert_close(path(range(5)), keys)
    if loop:
        torch.testing.assert_close(path([5.0, 12.0, -1.0]), keys[[0, 2, 4]])


@pytest.mark.parametrize("kind", ["cubic", "linear", "slerp"])
def test_a_loop_closes_without_a_jump(kind: str) -> None:
    path = Interpolation(random_keys(3, 6), kind)
    steps = path(torch.arange(0, 3.001, 0.01)).diff(dim=0).norm(dim=1)
    assert steps.max() < 0.1
    assert (path([2.999]) - path([0.0])).norm() < steps.max()
    if kind == "cubic":  # and with the same speed (exactly so only in a periodic spline)
        before, after = path([3 - 2e-4, 3 - 1e-4]).diff(dim=0), path([0.0, 1e-4]).diff(dim=0)
        assert (before - after).norm() < 0.01 * after.norm()


def test_linear_and_ease() -> None:
    keys = torch.tensor([[0.0, 10.0], [4.0, 20.0]])
    assert Interpolation(keys, "linear", loop=False)([0.25]).tolist() == [[1.0, 12.5]]
    assert Interpolation(keys, "linear")([1.25]).tolist() == [[3.0, 17.5]]
    eased = Interpolation(keys, "linear", loop=False, ease=True)
    assert eased([0.25])[0, 0] == 4 * (3 / 16 - 2 / 64)
    assert eased([0.01])[0, 0] < 0.002


def test_slerp_keeps_the_angle_and_mixes_lengths() -> None:
    a, b = torch.tensor([[2.0, 0.0]], dtype=torch.float64), torch.tensor([[0.0, 4.0]], dtype=torch.float64)
    third = slerp(a, b, torch.tensor([[1 / 3]], dtype=torch.float64))
    length = 2 + 2 / 3
    torch.testing.assert_close(third, length * torch.tensor([[np.cos(np.pi / 6), np.sin(np.pi / 6)]]))
    half = torch.tensor([[0.5]], dtype=torch.float64)
    torch.testing.assert_close(slerp(a, 3 * a, half), 2 * a)  # parallel
    assert torch.equal(slerp(a, -a, half), torch.zeros(1, 2, dtype=torch.float64))  # opposite
    assert torch.isfinite(slerp(a, 0 * a, half)).all()


def test_slerp_is_the_originals(golden) -> None:
    """The original's is of directions: its result has length 1."""
    arrays = np.load(golden / "metrics.npz")
    a, b, t, expected = (torch.from_numpy(arrays[f"slerp/{k}"]).double() for k in ("a", "b", "t", "out"))
    turned = slerp(a, b, t)
    torch.testing.assert_close(turned / turned.norm(dim=1, keepdim=True), expected, rtol=1e-5, atol=1e-6)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="kind: got 'spline'"):
        Interpolation(torch.zeros(2, 2), "spline")
    with pytest.raises(ValueError, match="at least one keyframe"):
        Interpolation(torch.zeros(0, 2))
    with pytest.raises(ValueError, match="from 0 to 2"):
        Interpolation(torch.zeros(3, 2), loop=False)([2.5])
