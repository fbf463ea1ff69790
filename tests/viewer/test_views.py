"""Layers as pictures, spectra, two networks at once, equivariance."""

from __future__ import annotations

import json
from math import pi

import numpy as np
import pytest
import torch

from sg3.errors import UsageError
from sg3.viewer import features
from sg3.viewer.equivariance import readings
from sg3.viewer.layers import statistics
from sg3.viewer.pictures import Painter
from sg3.viewer.state import State
from sg3.viewer.views import view
from tests.helpers.for_tools import tiny2, tiny3


def test_a_layer_as_colours_with_a_gain() -> None:
    painter = Painter(tiny3())
    name = painter.G.synthesis.layer_names[1]
    x = features.features(painter, State(layer=name))
    shown = view(State(layer=name, channel=2), lambda _: painter)
    assert np.array_equal(shown, (x[2:5] * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy())
    louder = view(State(layer=name, channel=2, gain_db=20), lambda _: painter).astype(int) - 128
    quiet = (shown.astype(int) - 128)[np.abs(louder) < 120]
    assert np.abs(louder[np.abs(louder) < 120] - 10 * quiet).max() <= 10
    best = int(x.abs().amax((1, 2)).argmax())
    largest = view(State(layer=name, normalize=True, channel=best), lambda _: painter)
    assert largest.min() <= 1 or largest.max() >= 254
    alone = view(State(layer=name, channel=len(x) - 1), lambda _: painter)
    assert alone.shape == (*x.shape[1:], 1)


def test_features_are_those_of_the_picture_and_run_once() -> None:
    painter = Painter(tiny2())
    seen: dict[str, torch.Tensor] = {}
    layer = painter.G.synthesis.get_submodule("b8.conv1")
    handle = layer.register_forward_hook(lambda _, __, out: seen.update(out=out))
    painter.G.synthesis(painter.ws(State(seed=3, trunc=0.5)), noise_mode="const")
    handle.remove()
    state = State(seed=3, trunc=0.5, layer="b8.conv1")
    assert torch.equal(features.features(painter, state), seen["out"][0])
    layer.register_forward_hook(lambda *_: pytest.fail("it ran again"))
    view(State(seed=3, trunc=0.5, layer="b8.conv1", channel=4, layer_view="sheet"), lambda _: painter)


def test_a_sheet_has_every_channel() -> None:
    painter = Painter(tiny3())
    name = painter.G.synthesis.layer_names[0]
    x = features.features(painter, State(layer=name))
    page = view(State(layer=name, layer_view="sheet"), lambda _: painter)
    count, height, width = x.shape
    columns = page.shape[1] // (width + 1)
    assert page.shape[0] % (height + 1) == page.shape[1] % (width + 1) == 0
    for n in range(count):
        row, column = divmod(n, columns)
        tile = page[row * (height + 1) :, column * (width + 1) :][:height, :width, 0]
        assert np.array_equal(tile, (x[n] * 127.5 + 128).clamp(0, 255).to(torch.uint8).numpy())


@pytest.mark.parametrize("beta", [0.0, 8.0])
def test_the_spectrum_of_a_wave_is_where_it_belongs(beta: float) -> None:
    place = torch.arange(32) * (2 * pi / 32)
    wave = torch.sin(5 * place)[None, None, :].expand(1, 32, 32)
    level = features.spectrum(wave, beta)
    row, column = divmod(int(level.argmax()), 64)
    assert (row - 32, abs(column - 32)) == (0, 2 * 5)  # twice as many samples as cycles
    noise = features.spectrum(torch.randn(64, 32, 32), beta)
    assert float((10 ** (noise / 10)).mean()) == pytest.approx(1, rel=0.05)  # 0 dB, whatever the window


def test_the_radial_curve_and_the_picture_of_a_spectrum() -> None:
    painter = Painter(tiny3())
    state = State(layer=painter.G.synthesis.layer_names[2], layer_view="spectrum", all_channels=True)
    curve = features.radial(painter, state)
    assert len(curve["frequency"]) == len(curve["decibels"])
    assert curve["decibels"][0] > curve["decibels"][-1]  # band limits: the highest frequencies are the weakest
    shown = view(state, lambda _: painter)
    assert shown.shape[0] == 2 * features.features(painter, state).shape[1]
    assert shown.max() == 255


def test_what_is_not_finite_is_null() -> None:
    painter = Painter(tiny2())
    with torch.no_grad():
        painter.G.synthesis.get_submodule("b16.conv1").weight.fill_(float("nan"))
    stats = {layer["name"]: layer for layer in statistics(painter, State())}
    assert stats["b8.conv1"]["max"] > 0
    assert [stats["b16.conv1"][name] for name in ("mean", "std", "max")] == [None, None, None]
    curve = features.radial(painter, State(layer="b16.conv1"))
    assert set(curve["decibels"]) == {None}
    json.dumps([stats, curve], allow_nan=False)


def test_two_networks() -> None:
    painters = {"": Painter(tiny3()), "b": Painter(tiny2())}
    a, b = (painters[name].picture(State(seed=1)) for name in ("", "b"))
    half = view(State(seed=1, compare="split", network_b="b", split=0.25), painters.__getitem__)
    assert np.array_equal(half[:, :4], a[:, :4])
    assert np.array_equal(half[:, 4:], b[:, 4:])
    both = view(State(seed=1, compare="difference", network_b="b"), painters.__getitem__)
    assert np.array_equal(both, (b.astype(int) - a + 256) // 2)
    painters["large"] = Painter(tiny3(64))
    assert view(State(compare="split", network_b="large"), painters.__getitem__).shape == (16, 16, 3)
    with pytest.raises(UsageError, match="choose a second network"):
        view(State(compare="split"), painters.__getitem__)


def test_equivariance_of_a_picture() -> None:
    painter = Painter(tiny3(64))
    assert readings(painter, State(seed=1)) == {"eqt": None, "eqr": None}
    found = readings(painter, State(seed=1, translate=(0.125, 0.0), rotate=0.0))
    assert found["eqt"] is not None
    assert found["eqt"] > 25  # T is made for that
    assert found["eqr"] is None
    assert readings(painter, State(seed=1, rotate=30.0))["eqr"] is not None
    with pytest.raises(UsageError, match="only StyleGAN3 can"):
        readings(Painter(tiny2()), State(rotate=3.0))


def test_layers_that_are_not_there() -> None:
    painter = Painter(tiny3())
    with pytest.raises(UsageError, match=r"layer=b4.conv1: this network has none of that name"):
        view(State(layer="b4.conv1"), lambda _: painter)
    with pytest.raises(UsageError, match=r"channel=500: input has channels 0 to 15$"):
        view(State(layer="input", channel=500), lambda _: painter)
