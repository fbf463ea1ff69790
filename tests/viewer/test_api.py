"""The HTTP API: pictures equal to those of `sg3 generate`, and errors that say what to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.viewers import FULL, LOOK, networks, pixels_of, viewer_of

pytest.importorskip("httpx2", reason="httpx2, which starlette's test client needs, is not installed")

from starlette.testclient import TestClient

from sg3.viewer.server import application
from sg3.viewer.state import SETTINGS, State
from sg3.viewer.viewer import REQUESTS, Visit


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("secret-place")
    networks(made)
    (made / "broken.pkl").write_bytes(b"\x80\x04" + b"garbage" * 10)
    return made


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    viewer = viewer_of(*(folder / f"{name}.pkl" for name in ("moves", "noisy", "classes")), folders=(folder,))
    with TestClient(application(viewer), base_url="http://localhost:8765") as made:
        made.headers["authorization"] = f"Bearer {FULL}"
        yield made
    viewer.close()


@pytest.mark.parametrize(
    ("network", "query", "options"),
    [
        ("moves.pkl", "seed=3&trunc=0.7", ["--seeds=3", "--trunc=0.7"]),
        ("moves.pkl", "seed=3&translate=0.125,-0.05&rotate=15", ["--seeds=3", "--translate=0.125,-0.05",
                                                                  "--rotate=15"]),
        ("noisy.pkl", "seed=4", ["--seeds=4"]),
        ("noisy.pkl", "seed=4&noise_mode=none&trunc=-0.5", ["--seeds=4", "--noise-mode=none", "--trunc=-0.5"]),
        ("classes.pkl", "seed=5&class=2", ["--seeds=5", "--class=2"]),
        ("moves.pkl", "seed=3&class=1", ["--seeds=3", "--class=1"]),  # without effect, and not in the metadata
    ],
)  # fmt: skip
def test_pixels_and_settings_are_those_of_generate(
    client: TestClient, folder: Path, run, tmp_path: Path, network: str, query: str, options: list[str]
) -> None:
    assert run("generate", f"--network={folder / network}", *options, f"--outdir={tmp_path}").code == 0
    (made,) = tmp_path.glob("*.png")
    answer = client.get(f"/api/image.png?network={network}&{query}")
    assert answer.headers["content-type"] == "image/png"
    assert np.array_equal(pixels_of(answer.content), pixels_of(made.read_bytes()))
    shown, wanted = (json.loads(Image.open(BytesIO(data)).text["sg3"]) for data in (answer.content, made.read_bytes()))
    assert wanted.items() <= shown.items()
    posted = client.post("/api/render", json={
        name: value for name, _, value in (part.partition("=") for part in f"network={network}&{query}".split("&"))})
    assert posted.content == answer.content


def test_the_golden_network_as_generate_shows_it(golden: Path, run, tmp_path: Path) -> None:
    assert run("generate", f"--network={golden / 'sg3t-64.pkl'}", "--seeds=1", "--trunc=0.5", f"--outdir={tmp_path}",
               ).code == 0  # fmt: skip
    viewer = viewer_of(golden / "sg3t-64.pkl")
    with TestClient(application(viewer), base_url="http://localhost") as client:
        shown = client.get(f"/api/image.png?seed=1&trunc=0.5&token={LOOK}")
    viewer.close()
    assert np.array_equal(pixels_of(shown.content), pixels_of((tmp_path / "seed0001.png").read_bytes()))


def test_what_there_is(client: TestClient) -> None:
    names = [entry["name"] for entry in client.get("/api/networks").json()["networks"]]
    assert names[:3] == ["moves.pkl", "noisy.pkl", "classes.pkl"]
    assert {name.rpartition("/")[2] for name in names[3:]} == {"moves.pkl", "noisy.pkl", "classes.pkl", "broken.pkl"}
    facts = client.get("/api/network").json()
    assert (facts["name"], facts["resolution"], facts["classes"], facts["can_move"]) == ("moves.pkl", 16, 0, True)
    assert facts["layers"][0] == "input"
    facts = client.get("/api/network?network=classes.pkl").json()
    assert (facts["classes"], facts["can_move"], facts["has_noise"]) == (3, False, True)
    layers = client.get("/api/layers?seed=1").json()["layers"]
    assert layers[-1]["shape"] == [3, 16, 16]
    assert client.get("/api/session").json()["look"] == LOOK
    assert "look" not in client.get("/api/session", headers={"authorization": f"Bearer {LOOK}"}).json()


def test_openapi_describes_what_is_there(client: TestClient) -> None:
    described = client.get("/api/openapi.json").json()
    for path, methods in described["paths"].items():
        for method in methods:
            assert "there is nothing like that here" not in client.request(method, path).text
    assert [p["name"] for p in described["paths"]["/api/image.png"]["get"]["parameters"]] == list(SETTINGS)


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("seed=x", 400, "seed=x: expected a whole number, 0 to 4294967295"),
        ("sead=1", 400, "sead: there is no such setting"),
        ("seed=1&seed=2", 400, "a setting appears twice"),
        ("network=nothing.pkl", 404, "network=nothing.pkl: there is none of that name; see api/networks"),
        ("network=../../etc/passwd", 404, "there is none of that name"),
        ("network=classes.pkl", 400, "class: needed, this network is conditional; choose 0 to 2"),
        ("network=classes.pkl&class=7", 400, "class=7: out of range"),
        ("network=noisy.pkl&rotate=5", 400, "only StyleGAN3 can"),
        ("network=BROKEN", 422, "broken.pkl"),
    ],
)
def test_errors_are_json_and_say_what_to_do(
    client: TestClient, folder: Path, query: str, status: int, words: str
) -> None:
    answer = client.get(f"/api/image.png?{query.replace('BROKEN', f'{folder.name}/broken.pkl')}")
    assert (answer.status_code, answer.json()["error"]["status"]) == (status, status)
    assert words in answer.json()["error"]["message"]
    assert str(folder.parent) not in answer.text


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"[1]", {"content-type": "application/json"}),
        (b"[" * 60000, {"content-type": "application/json"}),
        (b'{"seed": 1}', {"content-type": "text/plain"}),
        (b"", {}),
        (b"\xff\xfe", {"content-type": "application/json"}),
        (b'{"seed": NaN}', {"content-type": "application/json"}),
    ],
)
def test_bodies_that_are_no_state(client: TestClient, body: bytes, headers: dict[str, str]) -> None:
    answer = client.post("/api/render", content=body, headers=headers)
    assert answer.status_code == 400
    assert "expected" in answer.json()["error"]["message"]


def test_other_addresses_and_methods_answer_in_json(client: TestClient) -> None:
    assert client.get("/api/nothing").json()["error"]["status"] == 404
    assert client.get("/nothing.js").json()["error"]["status"] == 404
    assert client.get("/..%2f..%2fetc%2fpasswd").status_code == 404
    for method, path, takes in [("delete", "/api/render", "POST"), ("delete", "/", "GET"),
                                ("post", "/api/networks", "GET"), ("delete", "/api/task", "GET and POST")]:  # fmt: skip
        answer = client.request(method, path)
        assert (answer.status_code, answer.json()["error"]["status"]) == (405, 405)
        assert answer.json()["error"]["message"] == f"this address takes {takes}"
        assert set(answer.headers["allow"].split(", ")) - {"HEAD"} == set(takes.split(" and "))


def test_a_body_that_is_too_large(client: TestClient) -> None:
    answer = client.post("/api/render", content=b"{" * 100000, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["message"]) == (413, "body: expected at most 65536 bytes")


def test_parameters_that_are_needed(client: TestClient) -> None:
    for path, name in [("/api/task", "task"), ("/api/spectrum?seed=1", "layer"), ("/api/run", "run"),
                       ("/api/run.png", "run")]:  # fmt: skip
        answer = client.get(path)
        assert answer.status_code == 400
        assert answer.json()["error"]["message"].startswith(f"{name}: needed, ")
    answer = client.post("/api/task", json={"action": "stop"})
    assert (answer.status_code, "task: needed, " in answer.text) == (400, True)


def test_out_of_memory_is_an_answer(client: TestClient, monkeypatch) -> None:
    from sg3.viewer.pictures import Painter

    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: 8 GB")

    monkeypatch.setattr(Painter, "picture", full)
    answer = client.get("/api/image.png")
    assert answer.status_code == 507
    assert "use a smaller network" in answer.json()["error"]["message"]

    def bug(*_: object) -> None:
        raise KeyError("/root/secret")

    monkeypatch.setattr(Painter, "picture", bug)
    answer = client.get("/api/image.png")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    monkeypatch.undo()
    assert client.get("/api/image.png").status_code == 200


def test_the_default_noise_does_not_touch_the_random_numbers_of_others(client: TestClient) -> None:
    before = torch.get_rng_state()
    assert client.get("/api/image.png?network=noisy.pkl&noise_mode=random").status_code == 200
    assert torch.equal(before, torch.get_rng_state())


def test_requests_without_end_leave_the_pages_their_turns(folder: Path) -> None:
    """Two hundred requests wait outside; no more than a few are in the networks' queue."""
    viewer = viewer_of(folder / "moves.pkl")
    longest = 0

    async def use() -> None:
        nonlocal longest
        visits = [viewer.frame(Visit("look"), State(seed=seed)) for seed in range(200)]
        everything = asyncio.gather(*visits)
        while not everything.done():
            longest = max(longest, len(viewer.engine._waiting))
            await asyncio.sleep(0)
        assert len(await everything) == 200

    asyncio.run(use())
    viewer.close()
    assert longest <= REQUESTS
