"""Wrong calls give a typed error that names the argument, what it got and what it expected."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sg3.kernels import bias_act, conv2d_resample, filter2d, filtered_lrelu, grid_sample, modulated_conv2d, upfirdn2d

X = torch.zeros(2, 3, 8, 8)
META = torch.zeros(2, 3, 8, 8, device="meta")

WRONG = [
    (lambda: filtered_lrelu(X.int()), TypeError, r"x: got dtype torch.int32, expected a floating-point"),
    (lambda: filtered_lrelu(X.to(torch.float8_e5m2)), TypeError, r"got dtype torch.float8_e5m2.*\(float16, bfloat16, "),
    (lambda: bias_act(X.to(torch.float8_e5m2)), TypeError, r"x: got dtype torch.float8_e5m2.*or float64\)"),
    (lambda: bias_act([1.0]), TypeError, r"x: got list, expected a tensor$"),
    (lambda: filtered_lrelu(X[0]), ValueError, r"x: got shape \[3, 8, 8\], expected four dimensions"),
    (lambda: filtered_lrelu([1.0]), TypeError, r"x: got list, expected a tensor"),
    (lambda: filtered_lrelu(X, b=torch.zeros(4)), ValueError, r"b: got shape \[4\], expected \[3\]"),
    (lambda: filtered_lrelu(X, b=torch.zeros(3).half()), TypeError, r"b: got dtype torch.float16"),
    (lambda: filtered_lrelu(X, b=torch.zeros(3, device="meta")), ValueError, r"b: is on meta, expected cpu"),
    (lambda: filtered_lrelu(X, torch.zeros(12, device="meta")), ValueError, r"fu: is on meta, expected cpu"),
    (lambda: filtered_lrelu(X, torch.zeros(2, 2, 2)), ValueError, r"fu: got shape \[2, 2, 2\]"),
    (lambda: filtered_lrelu(X, torch.ones(12, requires_grad=True)), ValueError, r"fu: requires a gradient"),
    (lambda: filtered_lrelu(X, up=0), ValueError, r"up, down: got 0, 1"),
    (lambda: filtered_lrelu(X, up=1.5), TypeError, r"up: got 1.5 \(float\), expected an integer"),
    (lambda: filtered_lrelu(X, torch.ones(32)), ValueError, r"leaves an output of -23 x -23 pixels"),
    (lambda: filtered_lrelu(X, gain=0), ValueError, r"gain: got 0"),
    (lambda: filtered_lrelu(X, slope=-1), ValueError, r"slope: got -1"),
    (lambda: filtered_lrelu(X, clamp=-1), ValueError, r"clamp: got -1"),
    (lambda: filtered_lrelu(X, impl="fast"), ValueError, r"impl.*fast"),
    (lambda: upfirdn2d(X, None, up=[1, 2, 3]), ValueError, r"up: got 3 numbers"),
    (lambda: upfirdn2d(X, None, down=True), TypeError, r"down: got True"),
    (lambda: upfirdn2d(X, None, padding=[1, 2, 3]), ValueError, r"padding: got 3 numbers"),
    (lambda: upfirdn2d(X, None, padding=-4), ValueError, r"padding: got -4, which leaves an output of 0 x 0"),
    (lambda: upfirdn2d(X[:, :, :0], None), ValueError, r"at least one channel and one pixel"),
    (lambda: upfirdn2d(X, torch.ones(4).int()), TypeError, r"f: got dtype torch.int32"),
    (lambda: upfirdn2d(X, torch.ones(9), gain=-1), ValueError, r"gain: got -1, expected a number >= 0"),
    (lambda: upfirdn2d(X[:, :0], None), ValueError, r"at least one channel"),
    (lambda: filter2d(X, [1, 2, 1]), TypeError, r"f: got list"),
    (lambda: conv2d_resample(X, torch.zeros(4, 3, 9, 9)), ValueError, r"leaves no output pixel along the width"),
    (lambda: conv2d_resample(X, torch.zeros(4, 3, 1, 1), padding=[0, 0, -4, -4]), ValueError, "along the height"),
    (lambda: bias_act(X, act="gelu"), ValueError, r"act: got 'gelu', expected one of linear, relu"),
    (lambda: bias_act(X, torch.zeros(8)), ValueError, r"b: got shape \[8\], expected \[3\]"),
    (lambda: bias_act(X, dim=4), ValueError, r"dim: got 4, expected 0 <= dim < 4"),
    (lambda: bias_act(X.long()), TypeError, r"x: got dtype torch.int64"),
    (lambda: modulated_conv2d(X, torch.zeros(5, 4, 3, 3), torch.zeros(2, 3)), ValueError, r"w: got shape"),
    (lambda: modulated_conv2d(X, torch.zeros(5, 3, 3, 3), torch.zeros(3, 3)), ValueError, r"s: got shape \[3, 3\]"),
    (lambda: modulated_conv2d(X, torch.zeros(5, 3, 3, 3), torch.zeros(2, 3, device="meta")), ValueError, "s: is on"),
    (lambda: modulated_conv2d(X, torch.zeros(5, 3, 9, 9), torch.zeros(2, 3)), ValueError, r"output of 0 x 0"),
    (lambda: modulated_conv2d(X, torch.zeros(5, 3, 3, 3), torch.zeros(2, 3), padding=-1), ValueError, r"padding"),
    (
        lambda: modulated_conv2d(X, torch.zeros(5, 3, 1, 1), torch.zeros(2, 3), input_gain=torch.zeros(7)),
        ValueError, r"input_gain: got shape \[7\]",
    ),
    (lambda: conv2d_resample(X, torch.zeros(4, 2, 3, 3)), ValueError, r"w: got shape"),
    (lambda: conv2d_resample(X, torch.zeros(4, 3, 3, 3), groups=2), ValueError, r"groups: got 2"),
    (lambda: conv2d_resample(X, torch.zeros(4, 3, 3, 3).double()), TypeError, r"w: got dtype torch.float64"),
    (lambda: grid_sample(X, torch.zeros(2, 4, 4, 3)), ValueError, r"grid: got shape"),
    (lambda: grid_sample(X, torch.zeros(2, 4, 4, 2, device="meta")), ValueError, r"grid: is on meta"),
]  # fmt: skip


@pytest.mark.parametrize("index", range(len(WRONG)))
def test_wrong_call(index: int) -> None:
    call, kind, message = WRONG[index]
    with pytest.raises(kind, match=message):
        call()


def test_numpy_integers_are_integers() -> None:
    """np.int64 factors and paddings come out of computed layer specifications."""
    two = np.int64(2)
    assert filtered_lrelu(X, up=two, down=two, padding=np.array([0, 0, 0, 0])).shape == (2, 3, 8, 8)
    assert upfirdn2d(X, None, up=[two, two], padding=two).shape == (2, 3, 20, 20)
