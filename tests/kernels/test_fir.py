"""Filter design against SciPy's and against its own definition."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import scipy.special
import torch

from sg3.kernels.fir import design_lowpass_filter, jinc


@pytest.mark.parametrize(
    ("numtaps", "cutoff", "width", "fs"), [(12, 2, 12, 32), (24, 4.76, 16.6, 64), (12, 512, 600, 2048), (7, 3, 4, 20)]
)
def test_separable_equals_firwin(numtaps: int, cutoff: float, width: float, fs: float) -> None:
    expected = scipy.signal.firwin(numtaps, cutoff=cutoff, width=width, fs=fs)
    np.testing.assert_allclose(design_lowpass_filter(numtaps, cutoff, width, fs).numpy(), expected, atol=3e-8)


@pytest.mark.parametrize("numtaps", [12, 13])
def test_radial_is_the_windowed_jinc(numtaps: int) -> None:
    cutoff, width, fs = 2.8, 8.0, 32.0
    f = design_lowpass_filter(numtaps, cutoff, width, fs, radial=True).numpy()
    offsets = (np.arange(numtaps) - (numtaps - 1) / 2) / fs
    r = np.hypot(offsets[:, None], offsets[None])
    r[r == 0] = 1e-9  # the limit, numerically
    ideal = scipy.special.j1(2 * cutoff * np.pi * r) / (np.pi * r)
    beta = scipy.signal.kaiser_beta(scipy.signal.kaiser_atten(numtaps, width / (fs / 2)))
    window = np.kaiser(numtaps, beta)
    expected = ideal * np.outer(window, window)
    np.testing.assert_allclose(f, expected / expected.sum(), atol=3e-8)
    np.testing.assert_array_equal(f, f.T)
    np.testing.assert_allclose(f, f[::-1], atol=1e-8)


def test_jinc_at_zero_is_its_limit() -> None:
    values = jinc(np.array([0.0, 1e-7]), 3.0)
    np.testing.assert_allclose(values, [3.0, 3.0], rtol=1e-9)


def test_unit_gain_at_frequency_zero() -> None:
    for radial in (False, True):
        f = design_lowpass_filter(12, 3.0, 8.0, 32.0, radial=radial)
        assert f.dtype == torch.float32
        assert abs(float(f.double().sum()) - 1) < 1e-7


def test_one_tap_is_no_filter() -> None:
    assert design_lowpass_filter(1, 3.0, 8.0, 32.0) is None


@pytest.mark.parametrize("cutoff", [0.0, 16.0, -1.0, float("nan")])
def test_cutoff_must_lie_below_nyquist(cutoff: float) -> None:
    with pytest.raises(ValueError, match="cutoff"):
        design_lowpass_filter(12, cutoff, 8.0, 32.0)
