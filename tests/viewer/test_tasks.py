"""Drags and projections by the API: step by step, stopped, undone; frames are made meanwhile."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch

from sg3.sampling import to_uint8
from sg3.tools import drag
from sg3.viewer import encode, tasks
from sg3.viewer.pictures import Painter
from sg3.viewer.state import State
from tests.helpers.for_tools import pyramid, tiny2, tiny3
from tests.helpers.viewer_clients import client_of, until
from tests.helpers.viewers import LOOK, networks, pixels_of, viewer_of

BYTES = {"content-type": "application/octet-stream"}


@pytest.fixture
def client(tmp_path_factory) -> Iterator[Any]:
    with client_of(viewer_of(*networks(tmp_path_factory.mktemp("networks")))) as made:
        yield made


def act(client: Any, task: str, action: str, **more: object) -> Any:
    return client.post("/api/task", json={"task": task, "action": action, **more})


def latent_of(client: Any, name: str) -> np.ndarray:
    return np.load(BytesIO(client.get(f"/api/latent.npz?network=noisy.pkl&latent={name}").content))["w"]


ASKED = {"state": {"network": "noisy.pkl", "seed": 3, "trunc": 0.7}, "handles": [[4, 5]], "targets": [[11, 9]],
         "lr": 0.01, "iterations": 5}  # fmt: skip


def test_a_drag_is_that_of_the_library_and_goes_back_and_on(client: Any) -> None:
    task = client.post("/api/drag", json=ASKED).json()["task"]
    status = until(client, task)
    assert (status["iteration"], status["ended"]) == (5, "5 iterations are done")
    G = tiny2()
    ws = Painter(G).ws(State(seed=3, trunc=0.7))
    edit = drag.start(G, ws, [(4, 5)], [(11, 9)], settings=drag.Settings(lr=0.01, iterations=5))
    kept = []
    while edit.step():
        kept.append(edit.ws)
    assert np.array_equal(latent_of(client, status["latent"]), edit.ws.numpy())
    assert status["handles"] == edit.handles.tolist()
    back = act(client, task, "undo", steps=2).json()
    assert back["iteration"] == 3
    assert np.array_equal(latent_of(client, back["latent"]), kept[2].numpy())
    assert act(client, task, "continue").json()["running"]
    again = until(client, task)
    assert again["latent"] == status["latent"]
    shown = pixels_of(client.get(f"/api/image.png?network=noisy.pkl&latent={again['latent']}").content)
    assert np.array_equal(shown, to_uint8(G.synthesis(edit.ws, noise_mode="const"))[0])


def test_a_drag_goes_step_by_step(client: Any) -> None:
    whole = until(client, client.post("/api/drag", json=ASKED).json()["task"])
    task = client.post("/api/drag", json={**ASKED, "steps": 1}).json()["task"]
    assert until(client, task)["iteration"] == 1
    assert act(client, task, "continue", steps=3).json()["running"]
    status = until(client, task)
    assert (status["iteration"], status["ended"]) == (4, "stopped")
    act(client, task, "continue", steps=1)
    assert until(client, task)["latent"] == whole["latent"]
    assert client.post("/api/drag", json={**ASKED, "steps": 0}).status_code == 400


def test_frames_are_made_while_it_drags_and_it_can_be_stopped(client: Any, monkeypatch) -> None:
    monkeypatch.setattr(drag, "NEARER", -math.inf)  # every step is progress: it does not end by itself
    asked = {**ASKED, "iterations": 5000, "lr": 1e-6, "state": {"network": "moves.pkl", "translate": [0.1, 0]}}
    task = client.post("/api/drag", json=asked).json()["task"]
    until(client, task, lambda status: status.get("iteration", 0) >= 2)
    plain = pixels_of(client.get("/api/image.png?network=moves.pkl&seed=1").content)
    assert np.array_equal(plain, Painter(tiny3()).picture(State(seed=1)))  # the drag's transform is its own
    assert "has stopped" in act(client, task, "undo").json()["error"]["message"]
    act(client, task, "stop")
    assert until(client, task)["ended"] == "stopped"


def test_a_mask_in_runs(client: Any) -> None:
    assert tasks.unpacked([1, 2, 1], 2).tolist() == [[False, True], [True, False]]
    task = client.post("/api/drag", json={**ASKED, "mask": [128, 128]}).json()["task"]
    assert "error" not in until(client, task)
    task = client.post("/api/drag", json={**ASKED, "mask": [5]}).json()["task"]
    assert "its runs add up to 5, expected 256 pixels" in until(client, task)["error"]["message"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"handles": []}, "handles: expected 1 to 32 points"),
        ({"targets": [[1]]}, "targets: expected two numbers"),
        ({"mask": "x"}, "mask: expected at most"),
        ({"mask": [-1]}, "mask: expected a whole number"),
        ({"lr": 100}, "lr: expected a number"),
        ({"state": {"seed": "x"}}, "seed=x"),
    ],
)
def test_drags_that_make_no_sense(client: Any, change: dict, words: str) -> None:
    answer = client.post("/api/drag", json={**ASKED, **change})
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


def test_what_only_the_network_knows(client: Any) -> None:
    status = until(client, client.post("/api/drag", json={**ASKED, "layer": "x"}).json()["task"])
    assert "layer=x: cannot be followed" in status["error"]["message"]
    for change, code, words in [({"handles": [[99, 1]]}, 400, "0 to 15"), ({"targets": [[1, 16]]}, 400, "0 to 15"),
                                ({"handles": [[1, 1], [2, 2]]}, 400, "got 2 and 1, expected as many"),
                                ({"state": {"network": "no.pkl"}}, 404, "none of that name")]:  # fmt: skip
        answer = client.post("/api/drag", json={**ASKED, **change})
        assert (answer.status_code, words in answer.json()["error"]["message"]) == (code, True)
    assert act(client, "nothing", "stop").status_code == 404
    assert client.get("/api/task?task=x").status_code == 404
    look = {"authorization": f"Bearer {LOOK}"}
    assert client.post("/api/drag", json=ASKED, headers=look).status_code == 403
    assert client.post("/api/project", content=b"x", headers={**look, **BYTES}).status_code == 403


def test_a_projection(client: Any, monkeypatch) -> None:
    monkeypatch.setattr(tasks, "_perceptual", lambda device: pyramid)
    image = encode.png(Painter(tiny2()).picture(State(seed=9, trunc=0.5)))
    query = "network=noisy.pkl&steps=60&space=w%2B&lr=0.1"
    task = client.post(f"/api/project?{query}", content=image, headers=BYTES).json()["task"]
    assert until(client, task, lambda status: status.get("step", 0) >= 2)["steps"] == 60
    assert client.get("/api/image.png?network=noisy.pkl&seed=1").status_code == 200
    done = until(client, task)
    assert done["ended"] == "done"
    assert latent_of(client, done["latent"]).shape == (1, 6, 8)
    shown = pixels_of(client.get(f"/api/image.png?network=noisy.pkl&latent={done['latent']}").content)
    target = pixels_of(image).astype(float)
    assert done["psnr"] == pytest.approx(10 * np.log10(255**2 / np.mean((shown - target) ** 2)))
    short = client.post(f"/api/project?{query.replace('60', '1')}", content=image, headers=BYTES).json()["task"]
    assert done["distance"] < until(client, short)["distance"]


def test_a_drag_that_cannot_go_on_says_so_and_old_ones_are_let_go(client: Any, monkeypatch) -> None:
    asked = {**ASKED, "iterations": 1}
    names = [client.post("/api/drag", json=asked).json()["task"] for _ in range(tasks.MOST_EDITS)]
    last = [until(client, name) for name in names][-1]
    with monkeypatch.context() as patch:
        patch.setattr("sg3.viewer.engine.MOST_TASKS", 0)
        assert act(client, names[-1], "continue").status_code == 503
    assert client.get(f"/api/task?task={names[-1]}").json() == last
    until(client, client.post("/api/drag", json=asked).json()["task"])
    assert act(client, names[0], "undo").status_code == 400
    assert act(client, names[1], "undo").json()["iteration"] == 0


def test_out_of_memory_in_a_drag_is_said_and_memory_freed(client: Any, monkeypatch) -> None:
    freed: list[bool] = []
    monkeypatch.setattr(Painter, "forget", lambda painter: freed.append(True))

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(drag, "start", full)
    error = until(client, client.post("/api/drag", json=ASKED).json()["task"])["error"]
    assert error["status"] == 507
    assert error["message"].startswith("out of memory: this does not fit")
    assert freed


def test_a_projection_and_a_drag_go_on_side_by_side(client: Any, monkeypatch) -> None:
    monkeypatch.setattr(tasks, "_perceptual", lambda device: pyramid)
    image = encode.png(Painter(tiny2()).picture(State(seed=9, trunc=0.5)))

    def project(steps: int) -> str:
        query = f"network=noisy.pkl&steps={steps}"
        return client.post(f"/api/project?{query}", content=image, headers=BYTES).json()["task"]

    alone = [until(client, project(30)), until(client, client.post("/api/drag", json=ASKED).json()["task"])]
    endless = project(10_000)
    until(client, endless, lambda status: status.get("step", 0) >= 1)
    dragged = until(client, client.post("/api/drag", json=ASKED).json()["task"])
    assert client.get(f"/api/task?task={endless}").json()["running"]
    both = [until(client, project(30)), dragged]
    act(client, endless, "stop")
    assert until(client, endless)["ended"] == "stopped"
    assert [status["latent"] for status in both] == [status["latent"] for status in alone]
    assert both[0]["psnr"] == alone[0]["psnr"]


def test_an_image_is_decoded_and_features_are_read_beside_the_frames(client: Any, monkeypatch) -> None:
    go_on, threads, decode = threading.Event(), [], tasks._target

    def slow(device: torch.device) -> Any:
        threads.append(threading.current_thread().name)
        assert go_on.wait(60)
        return pyramid

    def decoded(*given: Any) -> Any:
        threads.append(threading.current_thread().name)
        return decode(*given)

    monkeypatch.setattr(tasks, "_perceptual", slow)
    monkeypatch.setattr(tasks, "_target", decoded)
    image = encode.png(Painter(tiny2()).picture(State()))
    asked = client.post("/api/project?network=noisy.pkl&steps=2", content=image, headers=BYTES).json()
    assert client.get("/api/image.png?network=noisy.pkl&seed=1").status_code == 200  # while it still reads
    assert client.get(f"/api/task?task={asked['task']}").json() == asked
    go_on.set()
    assert until(client, asked["task"])["ended"] == "done"
    assert [name.startswith("sg3-aside") for name in threads] == [True, True]


@pytest.mark.slow
def test_a_projection_is_stopped_and_bad_images_are_said(client: Any, monkeypatch) -> None:
    monkeypatch.setattr(tasks, "_perceptual", lambda device: pyramid)
    image = encode.png(Painter(tiny3()).picture(State()))
    task = client.post("/api/project?steps=10000", content=image, headers=BYTES).json()["task"]
    until(client, task, lambda status: status.get("step", 0) >= 2)
    act(client, task, "stop")
    assert until(client, task)["ended"] == "stopped"
    for content in (b"", b"no image", image[:50]):
        status = until(client, client.post("/api/project", content=content, headers=BYTES).json()["task"])
        assert status["error"]["status"] == 422
        assert "the image" in status["error"]["message"]
    assert client.post("/api/project?steps=0", content=image, headers=BYTES).status_code == 400
