"""The tracked table of the static model's predictions: no class may become more than 5 % worse without it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from bench.static import __main__ as command
from bench.static import networks, predict
from bench.static.classes import Class, classes
from bench.static.machine import ARCHITECTURES
from bench.static.predict import Prediction
from bench.static.report import PLUGIN, TABLE, Key, against, key, load, table, worse
from sg3.kernels.triton_launch import launch

ROOT = Path(__file__).resolve().parents[3]

# The commonest class of inference, and ones that take little to compile.
QUICK = "|".join([
    "filtered_lrelu/2->2 separable/forward, no signs/float16", "upfirdn2d/4x4 up 2 contiguous/forward/float16",
    "bias_act/lrelu contiguous/grad/float16",
])  # fmt: skip


# What the table holds: all but convolutions in exact float32, which 'auto' leaves to cuDNN and which replay slowly.
TRACKED = r"^(?!modulated_conv2d/.*/float32$)"


def predicted(folder: Path, *options: str) -> dict[Key, dict[str, Any]]:
    """In a process of its own, where kernels are not interpreted."""
    if (its := json.loads(TABLE.read_text())["triton"]) != version("triton"):
        pytest.skip(f"the table is of Triton {its}, this is {version('triton')}: other machine code")
    environ = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "bench.static", f"--json={folder / 'now.json'}", *options]
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return load(folder / "now.json")


def test_classes_that_are_quick_to_compile(tmp_path: Path) -> None:
    now = predicted(tmp_path, "--arch", "sm_90", "--match", QUICK)
    assert len(now) == 3
    assert worse(now, load(TABLE)) == []


@pytest.mark.slow
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_all_tracked_classes(arch: int, tmp_path: Path) -> None:
    assert worse(predicted(tmp_path, "--arch", f"sm_{arch}", "--match", TRACKED), load(TABLE)) == []


def test_what_cannot_be_done_is_said_before_anything_is_compiled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, line in (
        (["--match=no such class"], "--match='no such class' fits no class"),
        ([f"--json={tmp_path}/none/a.json"], f"a.json: there is no folder {tmp_path}/none"),
    ):
        with pytest.raises(SystemExit, match="2"):
            command.main(words)
        assert line in capsys.readouterr().err


def test_the_table_has_every_tracked_class() -> None:
    names = {(f"sm_{arch}", item.op, *item.key): item.name for arch in ARCHITECTURES for item in classes()}
    tracked = {name for name, text in names.items() if re.search(TRACKED, text)}
    assert tracked <= set(load(TABLE)) <= set(names)
    assert set(load(PLUGIN)) <= tracked


# ---- these tests can fail

ROW = Prediction(
    "sm_90", "bias_act", "lrelu", "forward", "float16", ps=2.0, ps_with_replays=2.5, floor_ps=1.0, cycles=0.5,
    limit="latency", busy={"issue": 0.12}, instructions=0.2, registers=32, stack=0, shared=0, warps=4, resident=8,
    occupancy_limit="registers", unknown_accesses=0.0,
)  # fmt: skip


def changed(**fields: Any) -> dict[Key, dict[str, Any]]:
    row = asdict(ROW) | fields
    return {key(row): row}


@pytest.mark.parametrize(("fields", "said"), [
    ({}, None), ({"ps": 2.09}, None), ({"ps": 1.0, "ps_with_replays": 1.0}, None),
    ({"ps": 2.12}, "ps 2.0 -> 2.12"), ({"ps_with_replays": 2.7}, "ps_with_replays 2.5 -> 2.7"),
    ({"ps": float("nan")}, "ps 2.0 -> nan"), ({"stack": 8}, "spills 8 bytes a thread"),
    ({"config": "new"}, "is not in the table"),
], ids=str)  # fmt: skip
def test_what_is_worse_is_said(fields: dict[str, Any], said: str | None) -> None:
    lines = worse(changed(**fields), changed())
    config = fields.get("config", "lrelu")
    assert lines == ([] if said is None else [f"sm_90/bias_act/{config}/forward/float16: {said}"])


def test_rows_are_renewed_beside_others(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(table([ROW, Prediction(**asdict(ROW) | {"mode": "grad"})]))
    path.write_text(table([Prediction(**asdict(ROW) | {"ps": 1.23456})], beside=path))
    rows = load(path)
    assert [row["ps"] for row in rows.values()] == [1.235, 2.0]
    assert all("busy" not in row for row in rows.values())


def test_another_compilers_table_is_renewed_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(table([ROW]).replace(f'"triton": "{version("triton")}"', '"triton": "3.0.0"'))
    with pytest.raises(ValueError, match=r"of Triton 3\.0\.0"):
        table([ROW], beside=path)


def test_launches_that_prepare_the_last_one_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes the time of its number here, one of them longer than that to move its bytes."""
    made: list[tuple[Any, ...]] = []

    class Kernel:
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            return lambda *arguments, **options: made.append(arguments)

    def run() -> torch.Tensor:
        x, room, other = torch.ones(3), torch.empty(2), torch.empty(2)
        launch(Kernel(), (1,), x, other, 100.0, like=x, room=(other,))  # for another call
        launch(Kernel(), (1,), x, room, 0.25, like=x, room=(room,))
        launch(Kernel(), (1,), x, room, 3.0, like=x)
        return x

    def replay(item: object, launch: tuple[Any, ...], outputs: int, *_: Any) -> Prediction:
        assert outputs == 3
        numbers = dict.fromkeys(("ps", "ps_with_replays", "cycles", "instructions"), launch[-1])
        return replace(ROW, **numbers, floor_ps=0.5)

    monkeypatch.setattr(predict, "recorded", lambda capability: nullcontext(made))
    monkeypatch.setattr(predict, "replay", replay)
    row = predict.predict(Class("op", "class", "mode", torch.float32, run), 90)
    assert (row.ps, row.ps_with_replays, row.cycles, row.instructions, row.floor_ps) == (3.5, 3.5, 3.25, 3.25, 0.5)


def test_beside_the_plugin() -> None:
    rows = {(arch, "filtered_lrelu", "1->1", "grad", "float16"): {"ps": ps}
            for arch, ps in (("sm_80", 3.0), ("sm_90", 1))}
    plugin = {name: {"ps": 4.0} for name in rows} | {("sm_90", "filtered_lrelu", "2->2", "grad", "float16"): {"ps": 9}}
    assert against(rows, plugin).splitlines()[2:] == [
        "| 1->1 | grad | float16 | 3.0 | 4.0 | 0.75 | 1.0 | 4.0 | 0.25 |",
        "| 2->2 | grad | float16 |  |  |  |  | 9.0 |  |",
    ]


@pytest.mark.parametrize("network", ["t-1024", "r-1024"])
def test_whole_generators_by_the_table(network: str) -> None:
    """Every layer has a row, and the sum is that of the layers."""
    lines = networks.table(network, 90, 0.0, load(PLUGIN), load(TABLE)).splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len(cells) == 16
    assert sum(float(row[5]) for row in cells[:-1]) == pytest.approx(float(cells[-1][5]), abs=0.01)
    assert [row[1] for row in cells[:-1] if not row[6]] == ["1->1"]
