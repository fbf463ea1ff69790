"""A run that is looked at while it trains."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sg3.viewer import growing
from sg3.viewer.catalogue import Catalogue
from sg3.viewer.runs import Runs
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


def test_a_poll_reads_only_what_is_new(run_dir: Path, monkeypatch) -> None:
    """However long the statistics are; and a file that was cut, as a run that goes on does, is read again."""
    parsed: list[object] = []
    parse = growing.limits.parse_shallow
    monkeypatch.setattr(growing.limits, "parse_shallow", lambda line: parsed.append(line) or parse(line))
    stats = run_dir / "stats.jsonl"
    stats.write_text("".join(tick(n, n) for n in range(100)) + tick(100, 100)[:20])
    runs = Runs(Catalogue([run_dir], []))

    def curve() -> list[tuple[float, float]]:
        parsed.clear()
        return runs.describe(RUN)["curves"]["Loss/G/loss"]

    assert curve() == [(n, n) for n in range(100)]
    assert curve() == [(n, n) for n in range(100)]
    assert parsed == []
    with stats.open("a") as file:
        file.write(tick(100, 100)[20:] + "broken\n" + tick(101, 101))
    assert curve() == [(n, n) for n in range(102)]
    assert len(parsed) == 3
    stats.write_text("".join(tick(n, n + 0.5) for n in range(150)))  # longer than before, and another one
    assert curve() == [(n, n + 0.5) for n in range(150)]
    stats.write_text(tick(0, 7))
    assert curve() == [(0, 7)]
    stats.unlink()
    assert runs.describe(RUN)["curves"] == {}
    stats.write_text(tick(0, 8))
    assert curve() == [(0, 8)]


def test_what_is_kept_of_a_long_file_is_bounded(run_dir: Path, monkeypatch) -> None:
    monkeypatch.setattr(growing, "PIECE", 2_000)
    path = run_dir / "long.jsonl"
    file = growing.Growing(path, lambda line: line["Progress/kimg"]["mean"])
    written = 0
    for count in (1, 700, 3000, 1, 20_000):
        with path.open("a") as out:
            out.write("".join(tick(n, n) for n in range(written, written + count)))
        written += count
        values = file.values(300)
        assert values[-1] == written - 1
        steps = np.diff(values)
        assert len(values) == written or 200 <= len(values) <= 300
        assert len(values) == 1 or steps[:-1].tolist() == [steps[0]] * (len(steps) - 1)
        assert len(file._kept) <= growing.KEPT
    with path.open("a") as out:
        out.write("x" * 7_000 + "\n" + tick(99_999, 1))  # a line that is too long is passed over
    assert file.values(300)[-1] == 99_999


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
