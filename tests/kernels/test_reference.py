"""The reference ops against independent statements of what they compute, and frozen as they are."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from sg3.kernels import (
    bias_act,
    conv2d_resample,
    downsample2d,
    filter2d,
    filtered_lrelu,
    grid_sample,
    modulated_conv2d,
    setup_filter,
    upfirdn2d,
    upsample2d,
)
from sg3.kernels.bias_act.activations import ACTIVATIONS

F64 = torch.float64


def rand(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64)


# ---- upfirdn2d ----


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (3, 2), (2, 4)])
def test_upfirdn2d_equals_scipy(up: int, down: int, flip: bool) -> None:
    x, f = rand(1, 1, 7, 9), torch.randn(5)
    taps = f.double().numpy()[:: -1 if flip else 1]
    y = upfirdn2d(x, f, up=up, down=down, padding=[4, 4, 4, 4], flip_filter=flip, impl="ref")
    expected = x[0, 0].numpy()
    for axis in (0, 1):
        expected = scipy.signal.upfirdn(taps, expected, up=up, down=down, axis=axis)
    # scipy stops after the last input sample's response; ours goes on to the last inserted zero.
    h, w = expected.shape
    assert y.shape[2] - h in (0, 1)
    assert y.shape[3] - w in (0, 1)
    np.testing.assert_allclose(y[0, 0, :h, :w].numpy(), expected, atol=1e-12)


def test_upfirdn2d_2d_filter_equals_separable() -> None:
    x, f = rand(2, 3, 8, 6), torch.randn(9)
    outer = torch.outer(f.double(), f.double())
    one = upfirdn2d(x, f.double(), up=2, down=3, padding=[3, 1, -2, 5], gain=1.7, impl="ref")
    two = upfirdn2d(x, outer, up=2, down=3, padding=[3, 1, -2, 5], gain=1.7, impl="ref")
    torch.testing.assert_close(one, two, atol=1e-12, rtol=0)


def test_upfirdn2d_crops_more_than_the_image() -> None:
    """A shift by more than the width: everything that is left is padding."""
    y = upfirdn2d(rand(1, 1, 4, 4), None, padding=[-6, 9, 0, 0], impl="ref")
    assert y.shape == (1, 1, 4, 7)
    assert (y == 0).all()


@pytest.mark.parametrize("shape", [(0, 2, 4, 4), (1, 1, 1, 1)])
def test_upfirdn2d_degenerate_sizes(shape: tuple[int, ...]) -> None:
    y = upfirdn2d(rand(*shape), torch.ones(4), up=2, padding=2, impl="ref")
    assert y.shape == (shape[0], shape[1], shape[2] * 2 + 1, shape[3] * 2 + 1)


@pytest.mark.parametrize("wrapper", [filter2d, upsample2d, downsample2d])
@pytest.mark.parametrize("taps", [1, 4, 5, 12])
def test_wrappers_keep_size_and_brightness(wrapper, taps: int) -> None:
    f = setup_filter([1.0] * taps)
    y = wrapper(torch.ones(1, 1, 32, 32, dtype=F64), f)
    assert y.shape[2] == {filter2d: 32, upsample2d: 64, downsample2d: 16}[wrapper]
    centre = y[0, 0, y.shape[2] // 2, y.shape[3] // 2]
    if wrapper is not upsample2d or taps % 2 == 0:  # taps must be shared evenly among the phases
        torch.testing.assert_close(centre, torch.ones([], dtype=F64), atol=1e-6, rtol=0)


def test_setup_filter() -> None:
    assert setup_filter(None).tolist() == [[1.0]]
    assert setup_filter([1, 3, 3, 1]).shape == (4, 4)
    assert setup_filter([1, 3, 3, 1], separable=True).shape == (4,)
    assert setup_filter(range_of(8)).shape == (8,)
    torch.testing.assert_close(setup_filter([1, 3, 3, 1]).sum(), torch.ones([]))
    torch.testing.assert_close(setup_filter([1, 3, 3, 1], gain=4).sum(), torch.tensor(4.0))
    torch.testing.assert_close(setup_filter(range_of(9), gain=4).sum(), torch.tensor(2.0))  # half per axis
    assert setup_filter([1, 2], normalize=False, flip_filter=True, separable=True).tolist() == [2, 1]
    with pytest.raises(ValueError, match="f: got shape"):
        setup_filter(torch.zeros(2, 2, 2))


def range_of(n: int) -> list[float]:
    return [float(i + 1) for i in range(n)]


# ---- bias_act ----


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("clamp", [None, 0.7])
def test_bias_act_gradients(act: str, clamp: float | None) -> None:
    x = rand(2, 3, 4)
    x = (x + 0.05 * x.sign()).requires_grad_()  # stay off the kinks, where gradcheck has no answer
    b = torch.zeros(3, dtype=F64, requires_grad=True)

    def f(x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return bias_act(x, b, act=act, clamp=clamp, impl="ref")

    assert torch.autograd.gradcheck(f, (x, b))
    assert torch.autograd.gradgradcheck(f, (x, b))


def test_bias_act_order_bias_act_gain_clamp() -> None:
    x = torch.tensor([[-3.0, 0.0, 1.0, 9.0]])
    y = bias_act(x, torch.tensor([1.0, 1.0, 1.0, 1.0]), act="lrelu", alpha=0.5, gain=2.0, clamp=3.0)
    assert y.tolist() == [[-2.0, 2.0, 3.0, 3.0]]


def test_bias_act_other_dim_and_layout() -> None:
    x, b = rand(2, 3, 4, 5), rand(5)
    torch.testing.assert_close(bias_act(x, b, dim=3), x + b)
    assert bias_act(x.to(memory_format=torch.channels_last), rand(3)).is_contiguous(memory_format=torch.channels_last)


# ---- filtered_lrelu ----


def test_filtered_lrelu_bias_comes_before_padding() -> None:
    y = filtered_lrelu(torch.zeros(1, 1, 2, 2), b=torch.ones(1), padding=1, gain=1.0, slope=1.0)
    assert y[0, 0].tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


def test_filtered_lrelu_gradients() -> None:
    fu, fd = setup_filter(range_of(8)), torch.rand(3, 4)
    x, b = rand(2, 2, 5, 6).requires_grad_(), rand(2).requires_grad_()

    def f(x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return filtered_lrelu(x, fu, fd, b, up=2, down=2, padding=[5, 4, 3, 6], gain=1.3, clamp=0.8, impl="ref")

    assert torch.autograd.gradcheck(f, (x, b))
    assert torch.autograd.gradgradcheck(f, (x, b))


# ---- convolutions ----


def test_modulated_conv2d_is_a_convolution_per_sample() -> None:
    x, w, s = rand(3, 4, 6, 5), rand(7, 4, 3, 3), rand(3, 4)
    y = modulated_conv2d(x, w, s, demodulate=False, padding=1, impl="ref")
    expected = torch.cat([F.conv2d(x[n : n + 1], w * s[n, None, :, None, None], padding=1) for n in range(3)])
    torch.testing.assert_close(y, expected, atol=1e-12, rtol=0)


def test_modulated_conv2d_demodulation_gives_unit_variance() -> None:
    x = torch.randn(2, 64, 40, 40)
    y = modulated_conv2d(x, torch.randn(8, 64, 3, 3) * 5, torch.randn(2, 64) * 0.01, padding=0)
    assert abs(float(y.var(dim=[2, 3]).mean()) - 1) < 0.05


def test_modulated_conv2d_input_gain_shapes_agree() -> None:
    x, w, s, gain = rand(2, 3, 4, 4), rand(5, 3, 1, 1), rand(2, 3), torch.full([], 1.5, dtype=F64)
    results = [modulated_conv2d(x, w, s, input_gain=g) for g in (gain, gain.expand(3), gain.expand(2, 3))]
    torch.testing.assert_close(results[0], modulated_conv2d(x, w, s) * 1.5)
    assert all(torch.equal(results[0], r) for r in results)


def added(a: list[int], b: list[int]) -> list[int]:
    return [p + q for p, q in zip(a, b, strict=True)]


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (2, 2), (3, 2)])
@pytest.mark.parametrize(("flip_weight", "padding", "groups"), [(True, 1, 1), (False, [2, 0, 1, 1], 2)])
def test_conv2d_resample_equals_filter_convolve_filter(kernel, up, down, flip_weight, padding, groups) -> None:
    """All shortcuts against the definition: pad, upsample, convolve, downsample, one after the other."""
    x, w, f = rand(2, 4, 7, 8), rand(6, 4 // groups, kernel, kernel), torch.rand(4, 3)
    pads = [padding] * 4 if isinstance(padding, int) else list(padding)
    if up > 1:
        pads = added(pads, [(3 + up - 1) // 2, (3 - up) // 2, (4 + up - 1) // 2, (4 - up) // 2])
    if down > 1:
        pads = added(pads, [(3 - down + 1) // 2, (3 - down) // 2, (4 - down + 1) // 2, (4 - down) // 2])
    expected = upfirdn2d(x, f if up > 1 else None, up=up, padding=pads, gain=up**2)
    expected = F.conv2d(expected, w if flip_weight else w.flip([2, 3]), groups=groups)
    expected = upfirdn2d(expected, f if down > 1 else None, down=down)
    y = conv2d_resample(x, w, f, up=up, down=down, padding=padding, groups=groups, flip_weight=flip_weight)
    torch.testing.assert_close(y, expected, atol=1e-11, rtol=0)


@pytest.mark.parametrize("impl", ["ref", "torch"])
def test_grid_sample_equals_torch_and_has_second_order(impl: str) -> None:
    x, grid = rand(2, 3, 5, 6), (torch.rand(2, 4, 3, 2, dtype=F64) - 0.5) * 2.6
    expected = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    torch.testing.assert_close(grid_sample(x, grid, impl=impl), expected, atol=1e-12, rtol=0)
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: grid_sample(x, grid, impl=impl).square(), (x,))
    assert torch.autograd.gradgradcheck(lambda x: grid_sample(x, grid, impl=impl).square(), (x,))


# ---- the reference is frozen ----


class OperatorLog(TorchDispatchMode):
    """Names of the arithmetic operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("convolution", "mul", "constant_pad_nd", "leaky_relu", "clamp", "add", "bmm", "mm"):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def operators(f) -> dict[str, int]:
    with OperatorLog() as log:
        f()
    return {name: log.names.count(name) for name in sorted(set(log.names))}


def test_reference_operators_are_pinned() -> None:
    """Everything faster is measured against `ref`, so `ref` must not quietly become faster (or slower) itself:
    zero insertion, one grouped convolution per axis, weights per sample."""
    x, f, b = torch.randn(2, 3, 8, 8), torch.rand(12), torch.randn(3)
    lrelu = operators(lambda: filtered_lrelu(x, f, f, b, up=2, down=2, padding=10, clamp=256.0, impl="ref"))
    assert lrelu == {
        "add": 1, "clamp": 1, "constant_pad_nd": 4, "convolution": 4, "leaky_relu": 1, "mul": 3,
    }  # fmt: skip
    radial = operators(lambda: filtered_lrelu(x, f, torch.rand(12, 12), b, up=2, down=2, padding=10, impl="ref"))
    assert radial["convolution"] == 3
    assert operators(lambda: upfirdn2d(x, f, up=2, padding=10, impl="ref"))["convolution"] == 2

    w, s = torch.randn(5, 3, 3, 3), torch.randn(2, 3)
    modulated = operators(lambda: modulated_conv2d(x, w, s, padding=2, input_gain=torch.ones([]), impl="ref"))
    assert modulated["convolution"] == 1
    assert modulated["mul"] == 5  # normalise w and s, modulate, demodulate, input gain


def test_reference_convolutions_see_the_inserted_zeros_and_per_sample_weights() -> None:
    seen: list[list[torch.Size]] = []

    class Shapes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket.__name__ == "convolution":
                seen.append([args[0].shape, args[1].shape])
            return func(*args, **(kwargs or {}))

    x = torch.randn(2, 3, 8, 8)
    with Shapes():
        upfirdn2d(x, torch.rand(12), up=2, padding=11, impl="ref")
        modulated_conv2d(x, torch.randn(5, 3, 3, 3), torch.randn(2, 3), padding=2, impl="ref")
    assert [list(map(list, pair)) for pair in seen] == [
        [[2, 3, 38, 38], [3, 1, 1, 12]],
        [[2, 3, 38, 27], [3, 1, 12, 1]],
        [[1, 6, 8, 8], [10, 3, 3, 3]],
    ]
