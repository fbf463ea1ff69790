"""Drag editing: planted motion is followed and undone, handles reach their targets, steps go back bit for bit."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import sg3
from bench import drag as drag_bench
from sg3.errors import NumericalError, UsageError
from sg3.formats import style_generator
from sg3.models import stylegan3
from sg3.sampling import seed_latents, set_transform
from sg3.tools import drag
from tests.helpers.compare import assert_same
from tests.helpers.for_tools import tiny2, tiny3


def moving(resolution: int = 64, **kwargs) -> stylegan3.Generator:
    """A StyleGAN3 whose first w moves the picture, as trained ones do."""
    G = tiny3(resolution, channel_base=512, **kwargs)
    rng = torch.Generator().manual_seed(4)
    affine = G.synthesis.input.affine
    with torch.no_grad():
        affine.weight[2:] = torch.randn(2, 8, generator=rng)  # only translation
    return G


def latent(G, seed: int = 1) -> torch.Tensor:
    with torch.no_grad():
        return G.mapping(seed_latents([seed], G.z_dim), torch.zeros(1, G.c_dim))


def shift(G, ws: torch.Tensor) -> torch.Tensor:
    """How far w moves the picture, in pixels: of a unit, a square's side, there are `img_resolution`."""
    t = G.synthesis.input.affine(ws[:, 0])
    return (t / t[:, :2].norm(dim=1))[0, 2:] * G.img_resolution


def test_where_features_are_sampled() -> None:
    """A map that holds its own coordinates: pixels of the picture come out where they are, margins counted."""
    for G in (tiny3(64), tiny2(32)):
        for layer in drag._layers(G):
            edit = drag.start(G, latent(G), [(3, 5)], [(9, 5)], settings=drag.Settings(layer=layer.name))
            centres = (torch.arange(layer.size) + 0.5 - layer.margin) * (G.img_resolution / layer.rate) - 0.5
            x, y = centres[None, :].expand(layer.size, -1), centres[:, None].expand(-1, layer.size)
            # Border samples of maps without a margin stand half a sample inside.
            places = torch.tensor([[8.0, 8.0], [12.25, 9.5], [G.img_resolution / 2, 10.0]])
            if layer.margin:
                places = torch.cat([places, torch.tensor([[0.0, G.img_resolution - 1.0]])])
            found = edit._sample(torch.stack([x, y])[None], places)
            if layer.rate >= 8:
                torch.testing.assert_close(found, places, atol=1e-4, rtol=1e-5)


def test_the_layer_and_radii_of_the_paper() -> None:
    G = stylegan3.Generator(8, 0, 8, 1024, 3, channel_base=64, channel_max=4)
    assert drag.feature_layer(G).name.startswith("L5_148")
    edit = drag._changing(G, drag.feature_layer(G), drag.Settings(), 1, False)
    assert list(edit) == [0, 1, 2, 3, 4]
    assert list(drag._changing(G, drag.feature_layer(G), drag.Settings(), 1, True)) == [1, 2, 3, 4]
    assert drag.feature_layer(tiny2(32)).name == "b16"
    assert len(drag.disc(1)) == 5
    assert len(drag.square(12)) == 25**2
    assert drag.square(3)[0].tolist() == [0, 0]


def test_the_tracker_follows_a_picture_that_moves() -> None:
    """The true position is known: the transform's. At most a pixel off, at every step."""
    G = tiny3(64, channel_base=1024)
    ws = latent(G)
    set_transform(G)
    edit = drag.start(G, ws, [(24, 30), (40, 22)], [(30, 30), (46, 22)])
    begin = edit.handles.clone()
    for step in range(1, 13):
        by = torch.tensor([step * 0.8, -step * 0.5])
        set_transform(G, (float(by[0]) / 64, float(by[1]) / 64))
        with torch.no_grad():
            edit.handles = edit._track(edit.layer.run(ws))
        assert (edit.handles - begin - by).abs().max() <= 1
    set_transform(G)


def test_handles_reach_their_targets_and_the_picture_has_really_moved() -> None:
    G = moving()
    ws = latent(G)
    before = shift(G, ws)
    settings = drag.Settings(ws=(0,), lr=2e-3)
    edit = drag.start(G, ws, [(28, 30)], [(38, 34)], settings=settings)
    while edit.step():
        moved = shift(G, edit.ws) - before
        assert (edit.handles[0] - torch.tensor([28.0, 30.0]) - moved).abs().max() <= 1.5
    assert edit.ended == "the targets are reached"
    assert edit.distances()[0] <= 1
    assert 3 < edit.iteration < 300
    assert (moved - torch.tensor([10.0, 4.0])).abs().max() <= 2
    assert torch.equal(edit.ws[:, 1:], ws[:, 1:])


@pytest.mark.parametrize("kwargs", [{"img_channels": 4}, {"img_channels": 2, "img_size": (48, 64)}],
                         ids=["alpha", "gray, alpha, not square"])  # fmt: skip
def test_pictures_with_alpha_move_as_others(kwargs) -> None:
    """Their outline, too: what has moved is the picture that was there, alpha and all."""
    G = moving(**kwargs)
    with torch.no_grad():
        ws = latent(G)
        first = G.synthesis(ws, noise_mode="const")
        edit = drag.start(G, ws, [(28, 24)], [(36, 27)], settings=drag.Settings(ws=(0,), lr=2e-3))
        while edit.step():
            pass
        assert edit.ended == "the targets are reached"
        by = shift(G, edit.ws) - shift(G, ws)
        assert (by - torch.tensor([8.0, 3.0])).abs().max() <= 2
        moved, (dx, dy) = G.synthesis(edit.ws, noise_mode="const"), (round(float(c)) for c in by)
    inside = slice(16, -16)
    there, before, expected = (
        image[:, :, inside, inside] for image in (moved, first, first.roll((dy, dx), dims=(2, 3)))
    )
    for channels in (slice(0, -1), slice(-1, None)):  # colours, alpha
        left, was = ((there - other)[:, channels].square().mean() for other in (expected, before))
        assert left < 0.2 * was


def test_what_a_mask_fixes_stays() -> None:
    G = tiny2(32)
    mask = np.zeros((32, 32), bool)
    mask[:, 16:] = True

    def change(given: np.ndarray | None) -> float:
        settings = drag.Settings(lr=0.02, iterations=15, patience=99)
        edit = drag.start(G, latent(G), [(24, 16)], [(28, 16)], given, settings)
        while edit.step():
            pass
        with torch.no_grad():
            return float((edit.layer.run(edit.ws) - edit.first)[..., :8].abs().mean())

    assert change(mask) < 0.5 * change(None)


def test_undo_brings_everything_back() -> None:
    """The same steps once more give the same bits."""
    G = tiny2(32)
    edit = drag.start(G, latent(G), [(10, 12)], [(20, 14)], settings=drag.Settings(lr=0.01))
    seen = []
    for _ in range(4):
        seen.append((edit.ws.clone(), edit.handles.clone()))
        assert edit.step()
    last = edit.ws.clone(), edit.handles.clone()
    edit.undo(3)
    assert edit.iteration == 1
    assert_same({"ws": edit.ws, "handles": edit.handles}, dict(zip(("ws", "handles"), seen[1], strict=True)))
    for _ in range(3):
        edit.step()
    assert_same({"ws": edit.ws, "handles": edit.handles}, dict(zip(("ws", "handles"), last, strict=True)))
    edit.undo(99)
    assert edit.iteration == 0
    assert torch.equal(edit.ws, seen[0][0])
    edit.undo()
    assert torch.equal(edit.ws, seen[0][0])


def test_it_ends_when_it_is_stuck_done_or_broken() -> None:
    G = tiny2(16)
    stuck = drag.start(G, latent(G), [(2, 2)], [(12, 12)], settings=drag.Settings(lr=0.0, patience=3))
    while stuck.step():
        pass
    assert stuck.ended == "it is stuck: no handle comes nearer"
    few = drag.start(G, latent(G), [(2, 2)], [(12, 12)], settings=drag.Settings(lr=0.0, iterations=2))
    while few.step():
        pass
    assert few.ended == "2 iterations are done"
    there = drag.start(G, latent(G), [(2, 2)], [(2.5, 2)])
    assert not there.step()
    wild = drag.start(G, latent(G), [(2, 2)], [(12, 12)], settings=drag.Settings(lr=0.01))
    assert wild.step()
    ws = wild.ws.clone()
    plain = wild.layer
    wild.layer = replace(plain, run=lambda ws: plain.run(ws) / 0)
    with pytest.raises(NumericalError, match="use a smaller step"):
        wild.step()
    assert torch.equal(wild.ws, ws)
    assert wild.iteration == 1


def test_the_network_is_left_as_it_was() -> None:
    G = tiny3()
    before = {name: tensor.clone() for name, tensor in G.state_dict().items()}
    edit = drag.start(G, latent(G), [(4, 4)], [(9, 9)], settings=drag.Settings(iterations=2))
    while edit.step():
        pass
    assert_same(dict(G.state_dict()), before)
    assert all(p.grad is None for p in G.parameters())


@pytest.mark.parametrize(
    ("handles", "targets", "more", "words"),
    [
        ([], [], {}, "got 0 and 0"),
        ([(1, 1)], [], {}, "got 1 and 0"),
        ([(1, 16)], [(1, 1)], {}, "0 to 15"),
        ([(1, 1)], [(-1, 1)], {}, "0 to 15"),
        ([(1, 1)], [(2, 1)], {"mask": np.ones((4, 4), bool)}, r"got \(4, 4\), expected \(16, 16\)"),
        ([(1, 1)], [(2, 1)], {"settings": drag.Settings(layer="b1")}, "cannot be followed; choose from b4"),
        ([(1, 1)], [(2, 1)], {"settings": drag.Settings(ws=(9,))}, "the copies that have an effect"),
    ],
)
def test_refused(handles, targets, more, words: str) -> None:
    G = tiny2()
    with pytest.raises(UsageError, match=words):
        drag.start(G, latent(G), handles, targets, **more)


@pytest.mark.slow
def test_the_share_of_drags_that_arrive(golden: Path) -> None:
    """By a twentieth of the width, from where most happens, in a random direction: nearly all arrive, and soon; steps
    of the same length in a random direction of w do not."""
    G = style_generator(sg3.load(golden / "sg3t-64.pkl"), "sg3t-64.pkl")
    options = Namespace(class_idx=None, trunc=1.0, mask=False)
    settings = drag.Settings(lr=0.03, iterations=40)
    rows = [drag_bench.one(G, seed, options, settings) for seed in range(6)]

    def mean(name: str) -> float:
        return float(np.mean([row[name] for row in rows]))

    assert mean("reached") >= 5 / 6
    assert mean("iterations") <= 10
    assert mean("distance") < 0.5 * mean("random")
