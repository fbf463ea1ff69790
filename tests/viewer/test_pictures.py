"""Pictures of states: equal to the last bit to what the network itself makes, however little of it is run again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sg3.errors import UsageError
from sg3.models import fastgan
from sg3.models.repeated import Repeated
from sg3.sampling import class_labels, generate, seed_latents, set_transform
from sg3.tools.style_mix import style_mix
from sg3.viewer import features
from sg3.viewer.layers import statistics
from sg3.viewer.pictures import Painter, corners
from sg3.viewer.state import State
from tests.helpers.for_tools import tiny2, tiny3


def expected(G, seed: int = 0, class_idx: int | None = None, **settings) -> np.ndarray:
    labels = class_labels(G, class_idx, 1)
    return next(iter(generate(G, seed_latents([seed], G.z_dim), labels, **settings)))


def test_the_picture_of_a_seed_is_that_of_generate() -> None:
    G = tiny2(c_dim=3)
    painter = Painter(G)
    for state, settings in [
        (State(seed=3, class_idx=1), {"seed": 3, "class_idx": 1}),
        (State(seed=3, class_idx=2, trunc=0.6), {"seed": 3, "class_idx": 2, "truncation_psi": 0.6}),
        (State(seed=4, class_idx=0, noise_mode="none"), {"seed": 4, "class_idx": 0, "noise_mode": "none"}),
    ]:
        assert np.array_equal(painter.picture(state), expected(G, **settings))


def test_moved_pictures_are_those_of_generate() -> None:
    G = tiny3()
    painter = Painter(G)
    for translate, rotate in [((0.25, 0.0), 0.0), ((0.0, -0.1), 30.0), ((0.0, 0.0), 0.0)]:
        shown = painter.picture(State(seed=1, translate=translate, rotate=rotate))
        set_transform(G, translate, rotate)
        assert np.array_equal(shown, expected(G, 1))


def test_networks_without_w() -> None:
    torch.manual_seed(3)
    G = fastgan.Generator(z_dim=16, img_resolution=32, ngf=8).eval().requires_grad_(False)
    painter = Painter(G)
    assert np.array_equal(painter.picture(State(seed=5)), expected(G, 5))
    between = painter.ws(State(seed=5, x=0.5))
    a, b = painter.ws(State(seed=5)), painter.ws(State(seed=6))
    torch.testing.assert_close(between, (a + b) / 2**0.5)  # as far from 0 as others are
    assert painter.facts()["can_truncate"] is False


def test_only_what_follows_a_change_runs_again() -> None:
    painter = Painter(tiny3())
    G = painter.G
    ran: list[str] = []
    for name in ("input", *G.synthesis.layer_names):
        G.synthesis.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    painter.picture(State(seed=1))
    assert len(ran) == len(G.synthesis.layer_names) + 1
    ran.clear()
    mixed = painter.picture(State(seed=1, mix_seed=2, mix_layers=(3,)))
    assert ran == G.synthesis.layer_names[2:]
    ran.clear()
    assert np.array_equal(painter.picture(State(seed=1, mix_seed=2, mix_layers=(3,))), mixed)
    assert ran == []
    assert np.array_equal(Painter(tiny3()).picture(State(seed=1, mix_seed=2, mix_layers=(3,))), mixed)
    assert np.array_equal(dict(style_mix(G, [1], [2], [3], batch=1))[1, 2], mixed)
    moved = painter.picture(State(seed=1, translate=(0.1, 0.0)))
    assert ran[0] == "input"
    assert not np.array_equal(moved, painter.picture(State(seed=1)))


def test_noise_runs_again_and_can_be_repeated() -> None:
    painter = Painter(tiny2())
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = painter.picture(State(noise_mode="random", noise_seed=1))
    two = painter.picture(State(noise_mode="random", noise_seed=2))
    assert torch.equal(before, torch.get_rng_state())
    assert not np.array_equal(one, two)
    assert np.array_equal(one, painter.picture(State(noise_mode="random", noise_seed=1)))
    quiet = painter.picture(State(noise_strength=0.0))
    assert np.array_equal(quiet, painter.picture(State(noise_mode="none")))
    assert np.abs(painter.picture(State(noise_strength=4.0)).astype(float) - quiet).mean() > \
        np.abs(painter.picture(State()).astype(float) - quiet).mean()  # fmt: skip


def test_recorded_frames_are_used_where_they_can_be() -> None:
    """On a GPU by CUDA graphs; here by what records by running again."""

    class Again:
        def __init__(self, run) -> None:
            self.run, self.output = run, run()
            self.replays = 0

        def replay(self) -> None:
            self.replays += 1
            self.output = self.run()

    made: list[Again] = []

    def record(run) -> Again:
        made.append(Again(run))
        return made[-1]

    painter, plain = Painter(tiny3()), Painter(tiny3())
    assert painter.graphs is None
    painter.graphs = Repeated(painter.G.synthesis, record=record)
    for seed in range(4):
        state = State(seed=seed, translate=(0.1 * seed, 0.0))
        assert np.array_equal(painter.picture(state), plain.picture(state))
    assert [again.replays for again in made] == [3]
    name = painter.G.synthesis.layer_names[1]
    assert features.features(painter, State(seed=9, layer=name)).shape == features.features(
        plain, State(seed=9, layer=name)).shape  # fmt: skip


def test_a_stale_picture_stops_between_layers() -> None:
    painter = Painter(tiny3())
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        painter.picture(State(), check)
    assert calls == 3
    assert np.array_equal(painter.picture(State()), expected(painter.G))  # what was kept is right


def test_corners_of_the_plane() -> None:
    assert corners(State(seed=7)) == [(7, 1.0)]
    assert corners(State(seed=7, x=2.0, y=-1.0)) == [((7 + 2 - 100) % 2**32, 1.0)]
    found = dict(corners(State(seed=7, x=0.25, y=0.5)))
    assert found == {7: 0.375, 8: 0.125, 107: 0.375, 108: 0.125}


def test_blends_lie_between() -> None:
    painter = Painter(tiny2(c_dim=3))
    ws = {seed: painter.ws(State(seed=seed, class_idx=0)) for seed in (7, 8, 107, 108)}
    between = painter.ws(State(seed=7, class_idx=0, x=0.25, y=0.5))
    torch.testing.assert_close(between, 0.375 * ws[7] + 0.125 * ws[8] + 0.375 * ws[107] + 0.125 * ws[108])
    classes = [painter.ws(State(class_idx=0, class_b=2, class_mix=mix)) for mix in (0.0, 0.5, 1.0)]
    assert torch.equal(classes[0], painter.ws(State(class_idx=0)))
    assert torch.equal(classes[2], painter.ws(State(class_idx=2)))
    assert not torch.equal(classes[1], classes[0])


def test_truncation_with_a_cutoff() -> None:
    painter = Painter(tiny3())
    plain, cut = painter.ws(State(seed=2)), painter.ws(State(seed=2, trunc=0.5, cutoff=2))
    assert torch.equal(cut[:, 2:], plain[:, 2:])
    z = seed_latents([2], 8)
    assert torch.equal(cut, painter.G.mapping(z, None, truncation_psi=0.5, truncation_cutoff=2))


def test_untransform_brings_the_picture_back() -> None:
    painter = Painter(tiny3(64))
    still = painter.picture(State(seed=1)).astype(float)[16:-16, 16:-16]
    moved = {"seed": 1, "translate": (0.125, 0.0), "rotate": 20.0, "scale": 1.2}
    away = painter.picture(State(**moved)).astype(float)[16:-16, 16:-16]
    back = painter.picture(State(**moved, untransform=True)).astype(float)[16:-16, 16:-16]
    assert np.abs(back - still).mean() < 0.5 * np.abs(away - still).mean()


def test_statistics_of_layers() -> None:
    for painter in (Painter(tiny3()), Painter(tiny2())):
        found = statistics(painter, State(seed=1))
        names = [layer["name"] for layer in found]
        assert len(names) == len(set(names)) >= 5
        assert found[-1]["shape"][1:] == [16, 16]
        assert all(layer["max"] >= abs(layer["mean"]) for layer in found)
        assert all(layer["std"] > 0 for layer in found)
    still = Painter(tiny3()).G
    assert not any(module._forward_hooks for module in still.modules())


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (State(class_idx=9), "out of range, this network has classes 0 to 2"),
        (State(), "this network is conditional; choose 0 to 2"),
        (State(class_idx=0, mix_seed=1, mix_layers=(0, 40)), "mix_layers=40: out of range, this network has layers"),
        (State(class_idx=0, rotate=5.0), "only StyleGAN3 can"),
        (State(class_idx=0, scale=2.0), "only StyleGAN3 can"),
    ],
)
def test_what_the_network_cannot(state: State, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Painter(tiny2(c_dim=3)).picture(state)
