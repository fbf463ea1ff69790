"""Small pictures of an early layer: like the whole one made small, and a part of the way to it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from sg3.sampling import to_uint8
from sg3.viewer import viewer as viewers
from sg3.viewer.pictures import Painter
from sg3.viewer.state import State
from sg3.viewer.stepwise import Noise
from tests.helpers.for_tools import tiny2, tiny3


def test_a_small_picture_looks_like_the_whole_one() -> None:
    painter = Painter(tiny3(64, channel_base=1024, channel_max=32))
    assert painter.small(State(seed=1)) is None  # nothing is learnt yet
    for seed in range(6):
        painter.picture(State(seed=seed))
        painter.learn(State(seed=seed))
    error, spread = [], []
    for seed in range(20, 26):
        small = painter.small(State(seed=seed))
        assert small is not None
        whole = painter.image(State(seed=seed))
        wanted = to_uint8(F.interpolate(whole, size=small.shape[:2], mode="area"))[0].astype(float)
        error.append(np.square(small - wanted).mean())
        spread.append(np.square(wanted - wanted.mean(axis=(0, 1))).mean())
    assert np.mean(error) < np.mean(spread)  # better than the mean colour


def test_the_whole_picture_goes_on_from_the_small_one() -> None:
    painter = Painter(tiny3(64))
    painter.picture(State(seed=0))
    painter.learn(State(seed=0))
    ran: list[str] = []
    for name in ("input", *painter.G.synthesis.layer_names):
        painter.G.synthesis.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    painter.small(State(seed=1))
    first = list(ran)
    assert 2 <= len(first) < len(painter.G.synthesis.layer_names) + 1
    whole = painter.picture(State(seed=1))
    assert ran == ["input", *painter.G.synthesis.layer_names]  # each once
    assert np.array_equal(whole, Painter(tiny3(64)).picture(State(seed=1)))
    ran.clear()
    painter.small(State(seed=1))
    assert ran == []
    assert np.array_equal(painter.picture(State(seed=1)), whole)


def test_a_small_picture_of_stylegan2() -> None:
    painter = Painter(tiny2(64))
    painter.picture(State(seed=0))
    painter.learn(State(seed=0))
    small = painter.small(State(seed=0))
    assert small is not None
    assert small.shape == (16, 16, 3)
    assert small.std() > 0


def test_it_learns_from_the_layers_of_its_own_picture() -> None:
    """Even if they are not kept, as after a graph was replayed, or those of another picture are."""
    plain, other = Painter(tiny2(64)), Painter(tiny2(64))
    for painter in (plain, other):
        painter.picture(State(seed=0))
    other.stepwise.run(other.ws(State(seed=9)), Noise(), False, lambda: None)
    for painter in (plain, other):
        painter.learn(State(seed=0))
    wanted, got = (painter.small(State(seed=1)) for painter in (plain, other))
    assert wanted is not None
    assert np.array_equal(got, wanted)


def test_networks_without_an_early_layer_have_none() -> None:
    painter = Painter(tiny2(8))
    painter.picture(State())
    painter.learn(State())
    assert painter.small(State()) is None


def test_slow_frames_come_small_first(monkeypatch, tmp_path) -> None:
    import asyncio

    from tests.helpers.for_tools import saved
    from tests.helpers.viewers import viewer_of

    viewer = viewer_of(saved(tiny3(64), tmp_path / "net.pkl"))
    monkeypatch.setattr(viewers, "SMALL_FIRST", 0.0)

    async def use() -> list[bool]:
        kinds = []
        for number in range(3):
            wanted = viewers.Wanted(number, State(seed=number), True)
            kinds.append((await viewer.newest("a", lambda wanted=wanted: wanted))[1].is_small)
        whole = await viewer.frame("b", State(seed=2))
        assert not whole.is_small
        assert np.array_equal(whole.pixels, Painter(tiny3(64)).picture(State(seed=2)))
        return kinds

    assert asyncio.run(use()) == [False, True, True]
    viewer.close()
    assert torch.is_grad_enabled()
