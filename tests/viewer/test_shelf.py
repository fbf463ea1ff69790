"""Directions, latents out of files, children: in the picture, and by the API."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sg3.errors import MissingInputError, UsageError
from sg3.sampling import to_uint8
from sg3.tools.directions import principal_components, sefa
from sg3.tools.latents import sample_w
from sg3.viewer import shelf as shelves
from sg3.viewer.breeding import breed
from sg3.viewer.pictures import Painter
from sg3.viewer.shelf import Shelf
from sg3.viewer.state import State
from tests.helpers.for_tools import tiny2, tiny3
from tests.helpers.gan_files import fastgan_generator
from tests.helpers.viewer_clients import client_of
from tests.helpers.viewers import LOOK, networks, pixels_of, viewer_of

BYTES = {"content-type": "application/octet-stream"}


def npz(**arrays: np.ndarray) -> bytes:
    buffer = BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[Any]:
    with client_of(viewer_of(*networks(tmp_path_factory.mktemp("networks")))) as made:
        yield made


def test_steps_along_directions() -> None:
    painter = Painter(tiny3())
    plain = painter.ws(State(seed=1, trunc=0.7))
    found = sefa(painter.G, 8, range(5))
    moved = painter.ws(State(seed=1, trunc=0.7, directions=("sefa.2:1.5:1-3", "sefa.0:-1")))
    expected = plain.clone()
    expected[:, 1:4] += (1.5 * found.directions[2]).float()
    expected += (-1 * found.directions[0]).float()
    torch.testing.assert_close(moved, expected)
    pca = principal_components(sample_w(painter.G, torch.zeros(1, 0)), 8)
    moved = painter.ws(State(seed=1, directions=("pca.1:2",)))
    torch.testing.assert_close(moved - painter.ws(State(seed=1)),
                               (2 * pca.scale[1] * pca.directions[1]).float().expand_as(plain))  # fmt: skip


def test_found_directions_are_kept_up_to_a_number() -> None:
    painter = Painter(tiny2(c_dim=3))
    for n in range(20):
        painter.ws(State(class_idx=0, class_b=1, class_mix=n / 40, directions=("pca.0:1",)))
    assert len(painter._directions) == 16
    painter.forget()
    assert not painter._directions


@pytest.mark.parametrize(
    ("directions", "words"),
    [(("sefa.99:1",), "sefa has directions 0 to 7"), (("sefa.0:1:3-9",), "this network has layers 0 to"),
     (("sefa.0:1:3-2",), "this network has layers 0 to")],
)  # fmt: skip
def test_directions_that_are_not_there(directions: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Painter(tiny3()).ws(State(directions=directions))
    with pytest.raises(MissingInputError, match=r"load their .npz again"):
        Painter(tiny3()).ws(State(directions=("0123456789abcdef.0:1",)))


def test_directions_of_a_file(client: Any) -> None:
    rows = np.eye(8, dtype=np.float32)[:3]
    data = npz(directions=rows, scale=np.array([1.0, 2.0, 3.0]))
    loaded = client.post("/api/directions", content=data, headers=BYTES).json()
    assert loaded["count"] == 3
    assert client.post("/api/directions", content=data, headers=BYTES).json() == loaded
    plain, moved = (np.load(BytesIO(client.get(f"/api/latent.npz?seed=1{more}").content))["w"]
                    for more in ("", f"&directions={loaded['name']}.1:0.5"))  # fmt: skip
    np.testing.assert_allclose(moved - plain, np.broadcast_to(rows[1], plain.shape), atol=1e-6)


def test_a_latent_goes_out_and_comes_back(client: Any) -> None:
    state = "network=noisy.pkl&seed=7&trunc=0.5&mix_seed=3&mix_layers=2-4"
    picture = client.get(f"/api/image.png?{state}").content
    data = client.get(f"/api/latent.npz?{state}").content
    (name,) = client.post("/api/latents?network=noisy.pkl", content=data, headers=BYTES).json()["latents"]
    again = client.get(f"/api/image.png?network=noisy.pkl&latent={name}").content
    assert np.array_equal(pixels_of(again), pixels_of(picture))
    two = npz(w=np.zeros((2, 8), np.float32))
    assert len(client.post("/api/latents?network=noisy.pkl", content=two, headers=BYTES).json()["latents"]) == 2
    z = npz(z=np.random.RandomState(7).randn(1, 8))
    (name,) = client.post("/api/latents?network=noisy.pkl", content=z, headers=BYTES).json()["latents"]
    assert np.array_equal(pixels_of(client.get(f"/api/image.png?network=noisy.pkl&latent={name}").content),
                          pixels_of(client.get("/api/image.png?network=noisy.pkl&seed=7").content))  # fmt: skip


def test_children(client: Any) -> None:
    asked = {"parents": [{"network": "noisy.pkl", "seed": 1}, {"network": "noisy.pkl", "seed": 2}], "count": 4,
             "strength": 0.0, "seed": 5}  # fmt: skip
    names = client.post("/api/children", json=asked).json()["latents"]
    assert len(set(names)) == 4
    assert client.post("/api/children", json=asked).json()["latents"] == names
    painter = Painter(tiny2())
    parents = [painter.ws(State(seed=seed))[0] for seed in (1, 2)]
    for name in names:
        (child,) = np.load(BytesIO(client.get(f"/api/latent.npz?network=noisy.pkl&latent={name}").content))["w"]
        each = [[np.array_equal(child[n], parent[n].numpy()) for parent in parents] for n in range(len(child))]
        assert all(any(row) for row in each)  # every layer is one parent's
    with_chance = client.post("/api/children", json={**asked, "strength": 0.5}).json()["latents"]
    assert not set(with_chance) & set(names)


@pytest.mark.parametrize(
    ("path", "content", "status", "words"),
    [
        ("/api/latents", b"garbage", 422, "the file: is damaged or no .npz file"),
        ("/api/latents", npz(w=np.zeros((1, 3, 3), np.float32)), 422, "the file: w has shape"),
        ("/api/latents", npz(x=np.zeros(3)), 422, "the file"),
        ("/api/latents", npz(w=np.full((1, 8), np.nan, np.float32)), 422, "the file"),
        ("/api/latents", npz(w=np.zeros((101, 1, 8), np.float32)), 422, "the file"),
        ("/api/latents", npz(w=np.array([{}], dtype=object)), 422, "the file"),
        ("/api/latents", npz(z=np.zeros((101, 8))), 400, "the file has 101, expected at most 100"),
        ("/api/directions", npz(directions=np.zeros((1001, 8))), 422, "the file has 1001, expected at most 1000"),
        ("/api/directions", npz(directions=np.zeros((2, 2049))), 422, "the file has 2 of 2049 numbers"),
        ("/api/directions", b"", 422, "the file"),
        ("/api/directions", npz(directions=np.zeros(4)), 422, "has no array `directions`"),
        ("/api/directions", npz(directions=np.zeros((2, 4)), scale=np.zeros(3)), 422, "`scale` does not belong"),
        ("/api/directions", npz(directions=np.full((2, 4), np.inf)), 422, "has no array `directions`"),
    ],
)
def test_files_that_are_none(client: Any, path: str, content: bytes, status: int, words: str) -> None:
    answer = client.post(path, content=content, headers=BYTES)
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]
    assert "/tmp" not in answer.text


def test_requests_that_make_no_sense(client: Any, monkeypatch) -> None:
    for body, words in [({}, "parents: expected"), ({"parents": []}, "parents: expected"),
                        ({"parents": [{"seed": -1}]}, "seed=-1"), ({"parents": [{}], "count": 1000}, "count: expected"),
                        ({"parents": [{}], "strength": 2}, "strength: expected")]:  # fmt: skip
        answer = client.post("/api/children", json=body)
        assert answer.status_code == 400
        assert words in answer.json()["error"]["message"]
    monkeypatch.setattr("sg3.viewer.shelf_api.UPLOAD", 1000)
    answer = client.post("/api/latents", content=b"x" * 2000, headers=BYTES)
    assert answer.status_code == 413
    assert "expected at most 1000 bytes" in answer.json()["error"]["message"]


def test_who_only_looks_keeps_nothing_here(client: Any) -> None:
    look = {"authorization": f"Bearer {LOOK}"}
    for path, kind in (("latents", BYTES), ("directions", BYTES), ("children", {"content-type": "application/json"})):
        answer = client.post(f"/api/{path}", content=b"{}", headers={**look, **kind})
        assert answer.status_code == 403
        assert "to look only" in answer.json()["error"]["message"]


def test_the_shelf_is_not_endless(monkeypatch) -> None:
    monkeypatch.setattr(shelves, "MOST_LATENTS", 2)
    shelf = Shelf()
    names = [shelf.put_latent(torch.full((1, 2, 3), float(n))) for n in range(3)]
    assert torch.equal(shelf.latent(names[2], 2, 3), torch.full((1, 2, 3), 2.0))
    with pytest.raises(MissingInputError, match=r"load its .npz again"):
        shelf.latent(names[0], 2, 3)
    with pytest.raises(UsageError, match="has 2 x 3 numbers, this network takes 4 x 3"):
        shelf.latent(names[2], 4, 3)


def test_noise_has_a_place_by_its_bytes(monkeypatch) -> None:
    monkeypatch.setattr(shelves, "MOST_BYTES", 2_000)
    shelf = Shelf()
    one, two = ({"b4.conv.noise_const": torch.full((16, 16), float(n))} for n in range(2))  # 1,024 bytes each
    several = [shelf.put_latent(torch.full((1, 2, 3), float(n)), one) for n in range(20)]  # of one file, which share it
    assert [shelf.noise(name) is one for name in several] == [True] * 20
    other = shelf.put_latent(torch.zeros(1, 2, 3), two)
    assert shelf.noise(other) is two
    assert [shelf.noise(name) for name in several] == [{}] * 20
    with pytest.raises(MissingInputError):
        shelf.latent(several[-1], 2, 3)
    alone = shelf.put_latent(torch.zeros(1, 2, 3), {"b4.conv.noise_const": torch.zeros(32, 32)})
    assert shelf.latent(alone, 2, 3).shape == (1, 2, 3)  # what has just been put is there, whatever its size


def test_steps_on_the_way_push_nothing_out(monkeypatch) -> None:
    monkeypatch.setattr(shelves, "MOST_PASSING", 2)
    shelf = Shelf()
    loaded = shelf.put_latent(torch.zeros(1, 2, 3))
    names = [shelf.put_latent(torch.full((1, 2, 3), float(n)), passing=True) for n in range(1, 4)]
    assert torch.equal(shelf.latent(loaded, 2, 3), torch.zeros(1, 2, 3))
    assert torch.equal(shelf.latent(names[2], 2, 3), torch.full((1, 2, 3), 3.0))
    with pytest.raises(MissingInputError):
        shelf.latent(names[0], 2, 3)


def test_the_noise_of_a_projection_comes_back_with_its_file(client: Any) -> None:
    G = tiny2()
    shape = dict(G.synthesis.named_buffers())["b8.conv1.noise_const"].shape
    file = npz(w=Painter(G).ws(State(seed=2)).numpy(), **{"noise/b8.conv1.noise_const": np.ones(shape, np.float32)})
    (name,) = client.post("/api/latents?network=noisy.pkl", content=file, headers=BYTES).json()["latents"]
    again = np.load(BytesIO(client.get(f"/api/latent.npz?network=noisy.pkl&latent={name}").content))
    assert np.array_equal(again["noise/b8.conv1.noise_const"], np.ones(shape))
    wrong = npz(w=np.zeros((1, 8), np.float32), **{"noise/b8.conv1.noise_const": np.ones((3, 3), np.float32)})
    answer = client.post("/api/latents?network=noisy.pkl", content=wrong, headers=BYTES)
    assert answer.status_code == 422
    assert "use the network that was projected to" in answer.json()["error"]["message"]


def test_children_change_no_latent_that_the_painter_keeps() -> None:
    G = fastgan_generator(c_dim=3)
    painter = Painter(G)
    breed(painter, [State(seed=1, class_idx=1), State(seed=2, class_idx=2)], count=6, strength=0.5, seed=0)
    for (seed, label), ws in painter._latents.items():
        class_idx = int(np.frombuffer(label, np.float32).argmax())
        assert torch.equal(ws, Painter(G).ws(State(seed=seed, class_idx=class_idx)))


def test_a_picture_between_two_seeds_is_that_of_a_video(tmp_path: Path) -> None:
    from sg3.sampling import seed_latents
    from sg3.tools import video

    G = tiny2()
    keys = video.map_keyframes(G, video.make_keyframes(G, "z", seed_latents([3, 9], G.z_dim)))
    walk = video.make_walk(G, keys, kind="linear", loop=False)
    ws = walk(torch.tensor([0.25], dtype=torch.float64))[0]
    shown = Painter(G).picture(State(seed=3, seed_b=9, seed_mix=0.25))
    assert np.abs(shown.astype(int) - to_uint8(G.synthesis(ws, noise_mode="const"))[0]).max() <= 1


def test_states_are_kept_as_latents_and_gone_between(client: Any) -> None:
    states = [{"network": "moves.pkl", "seed": 3, "x": 0.25, "trunc": 0.7},
              {"network": "moves.pkl", "seed": 5, "mix_seed": 9, "mix_layers": [1, 2], "directions": ["sefa.0:2"]}]
    names = client.post("/api/keep", json={"states": states}).json()["latents"]
    painter = Painter(tiny3())
    each = [painter.ws(State.read({**state, "network": ""})) for state in states]
    kept = np.load(BytesIO(client.get(f"/api/latents.npz?latents={','.join(names)}").content))["w"]
    assert np.array_equal(kept, torch.cat(each).numpy())
    between = f"/api/latent.npz?latent={names[0]}&latent_b={names[1]}&seed_mix="
    for mix in (0, 0.3, 1):
        w = np.load(BytesIO(client.get(f"{between}{mix}").content))["w"]
        path = (1 - mix) * each[0].double() + mix * each[1].double()
        np.testing.assert_allclose(w, path.float().numpy(), rtol=0, atol=1e-6)
        if mix in (0, 1):
            assert np.array_equal(w, each[mix].numpy())


def test_what_cannot_be_kept_or_fetched(client: Any) -> None:
    one = client.post("/api/keep", json={"states": [{"network": "moves.pkl"}]}).json()["latents"][0]
    other = client.post("/api/keep", json={"states": [{"network": "noisy.pkl"}]}).json()["latents"][0]
    two = [{}, {"network": "noisy.pkl"}]
    for given in ({}, {"states": []}, {"states": [1]}, {"states": [{}] * 201}, {"states": two}):
        answer = client.post("/api/keep", json=given)
        assert (answer.status_code, "states: expected" in answer.json()["error"]["message"]) == (400, True)
    for names, status, words in [
        ("", 400, "needed"), ("0123456789abcdef", 404, "is not here any more"), (",".join("x" * 201), 400, "at most"),
        (f"{one},{other}", 400, "of different networks"),
    ]:  # fmt: skip
        answer = client.get(f"/api/latents.npz?latents={names}")
        assert (answer.status_code, words in answer.json()["error"]["message"]) == (status, True)
    assert client.get(f"/api/image.png?latent={one}&latent_b={other}").status_code == 400
    look = {"authorization": f"Bearer {LOOK}"}
    assert client.post("/api/keep", json={"states": [{}]}, headers=look).status_code == 403
    assert client.get(f"/api/latents.npz?latents={one}", headers=look).status_code == 200
