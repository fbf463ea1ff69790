"""Tables and plots from result files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import machine, report


def peer(ms: float, ratio: float, **more: Any) -> dict[str, Any]:
    return {"median_ms": ms, "q1_ms": ms * 0.9, "q3_ms": ms * 1.1, "vs_ref": ratio, **more}


def case(title: str, **more: Any) -> dict[str, Any]:
    peers = {
        "ref": peer(8.0, 1.0, peak_mb=50.0), "torch": peer(2.0, 4.0, peak_mb=20.0),
        "compile(ref)": peer(4.0, 2.0, first_call_s=3.0), "triton": {"skipped": "no GPU here"},
    }  # fmt: skip
    return {"op": "filtered_lrelu", "case": title, "mode": "forward+backward", "dtype": "float32", "rounds": 5,
            "peers": peers, **more}  # fmt: skip


@pytest.fixture
def result() -> dict[str, Any]:
    return {
        "hardware": "Some CPU, 2 threads", "device": "cpu", "threads": 2, "cores": 2, "load_before": 0.1,
        "date": "2020-01-01 00:00 UTC", "commit": "abc", "command": "pytest bench",
        "versions": {"python": "3.11", "torch": "2.13", "triton": None},
        "cases": [case("36 px", target="filtered_lrelu"), case("84 px", target="filtered_lrelu"), case("other")],
    }  # fmt: skip


def test_table(result: dict[str, Any]) -> None:
    text = report.markdown(result)
    assert "## Some CPU, 2 threads" in text
    assert "| case | mode | type | ref | torch | compile(ref) |" in text
    assert "| 2 [1.8, 2.2] 4.00x 20 MB | 4 [3.6, 4.4] 2.00x first 3.0 s |" in text
    assert "- triton left out of 3 cases: no GPU here" in text
    assert "triton None" not in text


def test_goals(result: dict[str, Any]) -> None:
    for index, ratio in enumerate((2.0, 8.0)):
        result["cases"][index]["peers"]["torch"]["vs_ref"] = ratio
    lines = report.goals(result).splitlines()
    assert "torch 4.00x, compile(ref) 2.00x; target 4x met" in lines[0]  # geometric mean, of the tagged cases only
    assert "20 against 50 MB, 20 against 50 MB; target no higher than ref met" in lines[1]
    result["cases"][0]["peers"]["torch"].update(vs_ref=1.9, peak_mb=51.0)
    assert all("MISSED" in line for line in report.goals(result).splitlines())
    for each in result["cases"]:
        each["peers"]["numba"] = peer(1.0, 8.0, peak_mb=30.0)  # then it is the default, and what the goals are about
    assert "numba 8.00x, torch 3.90x, compile(ref) 2.00x; target 4x met" in report.goals(result).splitlines()[0]
    assert "30 against 50 MB, 30 against 50 MB" in report.goals(result).splitlines()[1]


def test_floors(result: dict[str, Any]) -> None:
    result["rates"] = {"bandwidth": 4.3e12, "fp16": 8e14, "fp32": 5e13}
    result["cases"][0].update(floor_ms=1.0, byte_floor_ms=0.5)
    result["cases"][0]["peers"]["torch"].update(of_floor=0.5, of_byte_floor=0.25)
    text = report.markdown(result)
    assert "4.00x 50% (25%)" in text
    assert "| 1 (0.5) |" in text
    assert "4.30 TB/s, 800 TFLOP/s" in text


def test_command_prints_and_draws(result: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is an extra (plot)")
    file, picture = tmp_path / "cpu.json", tmp_path / "out.png"
    file.write_text(json.dumps(result))
    report.main([str(file), str(file), "--plot", str(picture)])
    assert capsys.readouterr().out.count("## Some CPU") == 2
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("text", "problem"), [("{", "not JSON"), ("[1]", "no cases"), ("{}", "no cases")])
def test_other_files(text: str, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(SystemExit, match=problem):
        report.main([str(file)])
    with pytest.raises(SystemExit, match=r"missing\.json"):
        report.main([str(tmp_path / "missing.json")])


def test_slug() -> None:
    assert machine.slug("NVIDIA H200") == "nvidia-h200"
    assert machine.slug("AMD EPYC (Zen), 2 threads") == "amd-epyc-zen-2-threads"
