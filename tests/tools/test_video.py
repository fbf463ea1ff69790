"""Walks through latent space: who gets which seeds, what lies between keyframes, which frames come out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sg3.errors import DataError, MissingInputError, UsageError
from sg3.models import stylegan2, stylegan3
from sg3.sampling import class_labels, generate, seed_latents
from sg3.tools.latent_files import load_latents
from sg3.tools.video import (
    Keyframes,
    arrange_seeds,
    frame_times,
    make_keyframes,
    make_walk,
    map_keyframes,
    near_square,
    render,
    to_frames,
)


def tiny(family, c_dim: int = 0, channels: int = 3):
    torch.manual_seed(1)
    shape = {"num_layers": 4} if family is stylegan3 else {}
    G = family.Generator(8, c_dim, 8, 16, channels, channel_base=128, channel_max=8, **shape).eval()
    with torch.no_grad():
        for name, parameter in G.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.5)
        G.mapping.w_avg.normal_()
    return G.requires_grad_(False)


def seed_keys(G, seeds, tiles: int = 1, classes=()) -> Keyframes:
    return make_keyframes(G, "z", seed_latents(seeds, G.z_dim), tiles, classes)


def movie(G, walk, times, *args, **kwargs) -> np.ndarray:
    return np.stack(list(render(G, walk, times, *args, **kwargs)))


def test_tiles_share_the_seeds() -> None:
    assert arrange_seeds(range(6), 2) == [0, 1, 2, 3, 4, 5]
    assert arrange_seeds(range(6), 2, keyframes=2) == [0, 1, 3, 4]
    assert arrange_seeds(range(4), 2, keyframes=3) == [0, 1, 0, 2, 3, 2]
    shuffled = arrange_seeds(range(100), 4, shuffle_seed=7)
    assert sorted(shuffled) == list(range(100)) != shuffled
    assert shuffled == arrange_seeds(range(100), 4, shuffle_seed=7) != arrange_seeds(range(100), 4, shuffle_seed=8)
    with pytest.raises(UsageError, match="5 seeds cannot be shared equally by 2 tiles"):
        arrange_seeds(range(5), 2)
    with pytest.raises(UsageError, match="0 seeds"):
        arrange_seeds([], 1)


def test_times_and_grids() -> None:
    assert frame_times(2, 4, loop=True).tolist() == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75]
    assert frame_times(3, 2, loop=False).tolist() == [0, 0.5, 1, 1.5, 2]
    assert frame_times(1, 5, loop=False).tolist() == [0]
    assert [near_square(n) for n in (1, 2, 6, 7, 16)] == [(1, 1), (2, 1), (3, 2), (7, 1), (4, 4)]


@pytest.mark.parametrize("family", [stylegan2, stylegan3])
@pytest.mark.parametrize("space", ["z", "w"])
def test_keyframes_are_the_images_of_their_seeds(family, space: str) -> None:
    """At its keyframes each tile shows what `generate` makes of the seed, truncation included."""
    G = tiny(family)
    keys = seed_keys(G, [3, 4, 5, 6], tiles=2)
    keys = map_keyframes(G, keys) if space == "w" else keys
    got = movie(G, make_walk(G, keys, 2, truncation_psi=0.7), torch.tensor([0.0, 1.0]), (1, 2))
    alone = list(generate(G, seed_latents([3, 4, 5, 6], 8), torch.zeros(4, 0), truncation_psi=0.7))
    expected = np.stack([np.concatenate([alone[0], alone[2]]), np.concatenate([alone[1], alone[3]])])
    difference = np.abs(got.astype(int) - expected)
    assert got.shape == (2, 32, 16, 3)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.02
    assert np.abs(got[0].astype(int) - got[1]).mean() > 2  # so the above means something


def test_grid_is_filled_row_by_row() -> None:
    G = tiny(stylegan3)
    keys = map_keyframes(G, seed_keys(G, range(6), tiles=6))
    (frame,) = movie(G, make_walk(G, keys, 6), torch.zeros(1), (3, 2))
    alone = list(generate(G, seed_latents(range(6), 8), torch.zeros(6, 0)))
    expected = np.concatenate([np.concatenate(alone[:3], axis=1), np.concatenate(alone[3:], axis=1)])
    assert np.abs(frame.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("noise_mode", ["const", "random", "none"])
def test_frames_do_not_depend_on_the_batch(noise_mode: str) -> None:
    """Up to rounding; and the caller's random numbers stay as they were."""
    G = tiny(stylegan2)
    keys = map_keyframes(G, seed_keys(G, range(6), tiles=3))
    walk, times = make_walk(G, keys, 3), frame_times(2, 3, loop=True)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, again, many = (movie(G, walk, times, (3, 1), noise_mode=noise_mode, batch=b) for b in (1, 1, 7))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert one.shape == (6, 16, 48, 3)
    assert np.array_equal(one, again)
    assert np.abs(one.astype(int) - many).max() <= 1
    assert (one != many).mean() < 0.02


def test_noise_modes_differ() -> None:
    G = tiny(stylegan2)
    walk = make_walk(G, map_keyframes(G, seed_keys(G, [0])), 1)
    still = {mode: movie(G, walk, torch.zeros(2), noise_mode=mode) for mode in ("const", "random", "none")}
    assert np.array_equal(still["const"][0], still["const"][1])
    assert not np.array_equal(still["random"][0], still["random"][1])
    assert not np.array_equal(still["const"], still["none"])


@pytest.mark.parametrize("kind", ["cubic", "linear", "slerp"])
def test_a_loop_has_no_jump(kind: str) -> None:
    """The step from the last frame back to the first is no larger than the largest one within."""
    G = tiny(stylegan3)
    walk = make_walk(G, map_keyframes(G, seed_keys(G, [1, 2, 3])), 1, kind=kind)
    frames = movie(G, walk, frame_times(3, 12, loop=True)).astype(int)
    steps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    closing = np.abs(frames[0] - frames[-1]).mean()
    assert 0 < closing <= steps.max() * 1.05
    assert steps.max() < np.abs(frames[0] - frames[12]).mean()


def test_classes_take_turns() -> None:
    G = tiny(stylegan2, c_dim=4)
    for keys in (seed_keys(G, [7, 7], classes=[2, 0]), map_keyframes(G, seed_keys(G, [7, 7], classes=[2, 0]))):
        first, second = movie(G, make_walk(G, keys), torch.tensor([0.0, 1.0])).astype(int)
        for c, frame in ((2, first), (0, second)):
            (alone,) = generate(G, seed_latents([7], 8), class_labels(G, c, 1))
            assert np.abs(frame - alone).max() <= 1
        assert np.abs(first - second).max() > 1
    in_turn = seed_keys(G, range(6), tiles=2, classes=[1, 3]).labels.argmax(dim=1)
    assert in_turn.tolist() == [1, 3, 1, 1, 3, 1]
    with pytest.raises(UsageError, match="--class: needed"):
        seed_keys(G, [1])
    with pytest.raises(UsageError, match="--class=4: out of range"):
        seed_keys(G, [1, 2], classes=[0, 4])


def test_gray_and_alpha() -> None:
    assert movie(tiny(stylegan3, channels=1), lambda t: torch.zeros(1, 1, 6, 8), torch.zeros(1)).shape == (1, 16, 16, 3)
    gray = to_frames(torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2))
    assert gray.tolist() == [[[[128] * 3, [255] * 3]]]
    half = torch.tensor([0.0, 0.0, -0.5, 0.0]).reshape(1, 4, 1, 1)  # alpha 1/2, premultiplied colours 1/2 1/2 1/4
    assert to_frames(half).tolist() == [[[[255, 255, 128, 128]]]]
    assert to_frames(half, (0.0, 1.0, 0.0)).tolist() == [[[[128, 255, 64]]]]
    assert to_frames(torch.zeros(1, 2, 1, 1)).tolist() == [[[[255, 255, 255, 128]]]]
    assert to_frames(torch.zeros(1, 2, 1, 1), (0.0, 1.0, 0.0)).tolist() == [[[[128, 255, 128]]]]
    with pytest.raises(DataError, match="images of 5 channels"):
        to_frames(torch.zeros(1, 5, 2, 2))


def test_saved_latents(tmp_path: Path) -> None:
    G = tiny(stylegan3)  # 6 ws of width 8
    w, layers = torch.randn(2, 8), torch.randn(1, 6, 8)
    np.savez(tmp_path / "w.npz", w=w.numpy(), other=1)
    np.savez(tmp_path / "layers.npz", w=layers.numpy())
    np.savez(tmp_path / "z.npz", z=w.numpy())
    np.save(tmp_path / "plain.npy", w.numpy())
    torch.save(w[0], tmp_path / "plain.pt")
    torch.save({"z": w}, tmp_path / "z.pt")
    torch.save({"a.png": {"img": w, "latent": layers[0], "loss": 1.0}}, tmp_path / "projected.pt")

    def load(*names: str, space: str | None = None) -> tuple[str, torch.Tensor]:
        return load_latents([tmp_path / name for name in names], G, space)

    for name, expected in {"w.npz": ("w", w), "z.npz": ("z", w), "plain.npy": ("w", w), "plain.pt": ("w", w[:1]),
                           "z.pt": ("z", w), "projected.pt": ("w", layers), "layers.npz": ("w", layers)}.items():
        space, points = load(name)
        assert space == expected[0]
        assert torch.equal(points.float(), expected[1])
    assert load("plain.npy", space="z")[0] == "z"
    assert load("z.npz", space="w")[0] == "z"  # to be mapped
    space, points = load("w.npz", "layers.npz")
    assert torch.equal(points.float(), torch.cat([w[:, None].expand(-1, 6, -1), layers]))

    walk = make_walk(G, make_keyframes(G, space, points), truncation_psi=0.5)
    assert torch.allclose(walk(torch.tensor([2.0]))[0, 0], G.mapping.w_avg.lerp(layers[0], 0.5))
    with pytest.raises(UsageError, match=r"w\.npz holds w, for which there is no z"):
        load("w.npz", space="z")
    with pytest.raises(UsageError, match=r"z.npz holds z and .*w.npz w"):
        load("z.npz", "w.npz")
    with pytest.raises(UsageError, match="3 keyframes cannot be shared equally by 2 tiles"):
        make_keyframes(G, space, points, tiles=2)


def test_saved_latents_that_cannot_be_used(tmp_path: Path) -> None:
    G = tiny(stylegan3)
    bad = {"shape.npy": torch.zeros(2, 9), "layers.npy": torch.zeros(2, 5, 8), "none.npy": torch.zeros(0, 8),
           "nan.npy": torch.full((1, 8), float("nan")), "int.npy": torch.zeros(1, 8, dtype=torch.int64)}
    for name, array in bad.items():
        np.save(tmp_path / name, array.numpy())
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "names.npz", a=1, b=2)
    torch.save({"a": 1}, tmp_path / "dict.pt")
    torch.save(Path("x"), tmp_path / "object.pt")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and so on")
    (tmp_path / "broken.pt").write_bytes(b"nothing")
    (tmp_path / "text.txt").touch()
    for name, words in {
        "shape.npy": r"w has shape \[2, 9\], this network takes \[N, 8\] or \[N, 6, 8\]", "layers.npy": "w has shape",
        "none.npy": "w has shape", "nan.npy": "finite", "int.npy": "finite",
        "object.npy": "holds pickled Python objects, which reading would execute; .*save the array",
        "names.npz": "neither an array w nor z, but a, b", "dict.pt": "holds no tensor", "object.pt": "holds no tensor",
        "broken.npz": "damaged", "broken.pt": "cut short or not", "text.txt": r"expected \.npz, \.npy or \.pt",
    }.items():
        with pytest.raises(DataError, match=words) as caught:
            load_latents([tmp_path / name], G)
        assert name in str(caught.value)
    with pytest.raises(MissingInputError, match=r"away\.npz: there is no such file"):
        load_latents([tmp_path / "away.npz"], G)


MEASURE = """
import resource, sys, torch
from pathlib import Path
from sg3.models import stylegan3
from sg3.sampling import seed_latents
from sg3.tools.encode import open_output
from sg3.tools.video import frame_times, make_keyframes, make_walk, map_keyframes, render
torch.set_num_threads(1)
G = stylegan3.Generator(8, 0, 8, 64, 3, channel_base=64, channel_max=4, num_layers=3, margin_size=4).eval()
walk = make_walk(G, map_keyframes(G, make_keyframes(G, "z", seed_latents(range(4), 8), 4)), 4)
with open_output(Path(sys.argv[1])) as add:
    for frame in render(G, walk, frame_times(1, int(sys.argv[2]), loop=True), (2, 2)):
        add(frame)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    """The peak of a 600-frame video is within 10 % of that of a 60-frame one."""
    pytest.importorskip("av")
    peaks = []
    for count in (60, 600):
        command = [sys.executable, "-c", MEASURE, str(tmp_path / f"{count}.mp4"), str(count)]
        peaks.append(int(subprocess.run(command, capture_output=True, check=True, text=True, timeout=300).stdout))
    assert peaks[1] <= 1.1 * peaks[0], peaks
