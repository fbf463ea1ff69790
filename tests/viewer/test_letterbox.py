"""Networks trained between black bars: pictures show what lies between, and places in them are places there."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sg3
from sg3.tools import drag
from sg3.viewer import tasks
from sg3.viewer.pictures import Painter
from sg3.viewer.state import State
from tests.helpers.for_tools import pyramid, tiny3
from tests.helpers.viewer_clients import client_of, until
from tests.helpers.viewers import pixels_of, viewer_of

SHIFT = 2  # rows of a bar


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Any]:
    path = tmp_path / "cars.pkl"
    sg3.save(sg3.Snapshot(G_ema=tiny3(), training_set_kwargs={"visible": [12, 16]}), path)
    with client_of(viewer_of(path)) as made:
        yield made


def test_pictures(client: Any) -> None:
    facts = client.get("/api/network?network=cars.pkl").json()
    assert (facts["size"], facts["whole"]) == ([12, 16], [16, 16])
    shown = pixels_of(client.get("/api/image.png?network=cars.pkl&seed=3&translate=0.1,0.2").content)
    whole = Painter(tiny3()).picture(State(seed=3, translate=(0.1, 0.2)))
    assert np.array_equal(shown, whole[SHIFT:-SHIFT])


def test_small_pictures_are_cut_alike() -> None:
    G = tiny3(64)
    between, all_of_it = Painter(G, visible=(48, 64)), Painter(G)
    state = State(seed=1)
    for painter in (between, all_of_it):
        painter.picture(state)
        painter.learn(state)
    cut, whole = between.small(state), all_of_it.small(state)
    assert cut is not None
    assert whole is not None
    bar = (len(whole) - len(cut)) // 2
    assert len(cut) == round(len(whole) * 48 / 64)
    assert np.array_equal(cut, whole[bar : bar + len(cut)])


def test_a_drag(client: Any) -> None:
    mask = [16 * 2, 16 * 8, 16 * 2]  # rows 2 to 9 of those shown may move
    asked = {"state": {"network": "cars.pkl", "seed": 3}, "handles": [[4, 5]], "targets": [[11, 9]], "lr": 0.01,
             "iterations": 3, "mask": mask}  # fmt: skip
    status = until(client, client.post("/api/drag", json=asked).json()["task"])
    assert status["iteration"] == 3, status
    moving = np.zeros((16, 16), bool)
    moving[SHIFT + 2 : SHIFT + 10] = True
    G = tiny3()
    edit = drag.start(
        G, Painter(G).ws(State(seed=3)), [(4, 5 + SHIFT)], [(11, 9 + SHIFT)], moving,
        drag.Settings(lr=0.01, iterations=3),
    )  # fmt: skip
    while edit.step():
        pass
    assert status["handles"] == [[x, y - SHIFT] for x, y in edit.handles.tolist()]
    assert status["targets"] == [[11, 9]]
    latent = np.load(BytesIO(client.get(f"/api/latent.npz?network=cars.pkl&latent={status['latent']}").content))["w"]
    assert np.array_equal(latent, edit.ws.numpy())
    beyond = client.post("/api/drag", json={**asked, "handles": [[4, 12]]})
    assert (beyond.status_code, "0 to 15, 11" in beyond.text) == (400, True)
    too_large = until(client, client.post("/api/drag", json={**asked, "mask": [256]}).json()["task"])
    assert "expected 192 pixels" in str(too_large["error"])


def test_an_image_to_project_lies_between_bars(client: Any, monkeypatch) -> None:
    monkeypatch.setattr(tasks, "_perceptual", lambda _: pyramid)
    targets = []
    first = tasks.project.project_steps
    monkeypatch.setattr(tasks.project, "project_steps", lambda G, target, *args, **kwargs: (
        targets.append(target), first(G, target, *args, **kwargs))[1])  # fmt: skip
    file = BytesIO()
    Image.fromarray(np.full((12, 16, 3), 200, np.uint8)).save(file, "PNG")
    asked = client.post("/api/project?network=cars.pkl&steps=2", content=file.getvalue(),
                        headers={"content-type": "application/octet-stream"})  # fmt: skip
    assert until(client, asked.json()["task"])["ended"] == "done"
    (target,) = targets
    assert (target[SHIFT:-SHIFT] == 200).all()
    assert (target[:SHIFT] == 0).all()
    assert (target[-SHIFT:] == 0).all()
