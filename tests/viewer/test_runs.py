"""A run that is looked at while it trains."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.for_tools import saved, tiny2, tiny3
from tests.helpers.run_folders import run_folder, tick
from tests.helpers.viewer_clients import client_of
from tests.helpers.viewers import LOOK, pixels_of, viewer_of

RUN = "00000-stylegan2-discs"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = run_folder(tmp_path / RUN)
    saved(tiny2(), folder / "network-snapshot-000000.pkl")
    saved(tiny2(), folder / "network-snapshot-000004.pkl")
    return folder


@pytest.fixture
def client(run_dir: Path) -> Iterator[Any]:
    with client_of(viewer_of(folders=(run_dir.parent,)), LOOK) as made:
        yield made


def test_what_a_run_shows(client: Any, run_dir: Path) -> None:
    found = client.get(f"/api/run?run={RUN}").json()
    assert [snapshot["kimg"] for snapshot in found["snapshots"]] == [0, 4]
    assert found["curves"] == {"Loss/G/loss": [[0, 1.5], [4, 1.25]]}
    assert found["metrics"] == {"fid50k": [[4, 12.5]]}
    assert (found["kimg"], found["ended"]) == (4, False)
    (run_dir / "exit.json").write_text("{}")
    assert client.get(f"/api/run?run={RUN}").json()["ended"] is True
    assert pixels_of(client.get(f"/api/run.png?run={RUN}&which=reals").content)[0, 0].tolist() == [255, 0, 0]
    assert pixels_of(client.get(f"/api/run.png?run={RUN}&which=fakes").content)[0, 0].tolist() == [0, 0, 255]
    fakes = f"/api/run.png?run={RUN}&which=fakes&kimg="
    assert pixels_of(client.get(f"{fakes}5").content)[0, 0].tolist() == [0, 0, 255]
    assert "has no fakes_init.png yet" in client.get(f"{fakes}3").text
    assert client.get(f"{fakes}x").status_code == 400


def test_the_newest_snapshot_is_shown_when_it_is_there(client: Any, run_dir: Path) -> None:
    before = pixels_of(client.get(f"/api/image.png?network={RUN}&seed=1").content)
    saved(tiny3(), run_dir / "network-snapshot-000008.pkl")
    after = pixels_of(client.get(f"/api/image.png?network={RUN}&seed=1").content)
    assert not np.array_equal(before, after)
    assert client.get(f"/api/run?run={RUN}").json()["snapshots"][-1]["kimg"] == 8


def test_long_statistics_are_thinned_out(client: Any, run_dir: Path) -> None:
    (run_dir / "stats.jsonl").write_text("".join(tick(n, n) for n in range(5000)) + "cut of")
    found = client.get(f"/api/run?run={RUN}").json()
    curve = found["curves"]["Loss/G/loss"]
    assert 200 <= len(curve) <= 300
    assert curve[-1] == [4999, 4999]
    assert found["kimg"] == 4999


def test_what_is_not_there(client: Any, run_dir: Path) -> None:
    for query, status, words in [
        ("run?run=../x", 404, "there is none of that name"), ("run?run=", 400, "run: needed, the name of a run"),
        (f"run.png?run={RUN}&which=log.txt", 400, "which: expected reals or fakes"),
    ]:  # fmt: skip
        answer = client.get(f"/api/{query}")
        assert answer.status_code == status
        assert words in answer.json()["error"]["message"]
    (run_dir / "reals.png").unlink()
    assert "has no reals.png yet" in client.get(f"/api/run.png?run={RUN}").json()["error"]["message"]
    (run_dir / "reals.png").symlink_to("/etc/passwd")
    assert client.get(f"/api/run.png?run={RUN}").status_code == 404
    (run_dir / "reals.png").unlink()
    (run_dir / "reals.png").write_text("no picture")
    assert "is no PNG" in client.get(f"/api/run.png?run={RUN}").json()["error"]["message"]
