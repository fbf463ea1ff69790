"""`python -m bench.phases` on tiny networks: every variant of a system in the table, penalties near the exact ones."""

from __future__ import annotations

import json
import re

import pytest

from bench import phases


def test_variants_take_turns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"cbase": 64, "cmax": 8, "group": 8, "blocks": 1}
    for title, options in phases.VARIANTS.items():
        if options["cfg"] == "r3gan":
            monkeypatch.setitem(phases.VARIANTS, title, {**options, **small})
    words = ["phases", "--only=r3gan", "--rounds=1", "--batch=2", "--resolution=16"]
    monkeypatch.setattr("sys.argv", words)
    phases.main()
    lines = capsys.readouterr().out.splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    assert [each["system"] for each in found] == [title for title in phases.VARIANTS if "r3gan" in title]
    for each in found:
        seconds = each["seconds"]
        assert 0 < seconds["Gmain"] + seconds["Dmain"] <= seconds["step"]
    assert sum(line.startswith("| r3gan") for line in lines) == len(found)


def test_approximated_penalties(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["phases", "penalty", "--batch=2"])
    monkeypatch.setattr(phases, "DRAWS", 32)
    kept = []
    monkeypatch.setattr(phases, "keep_freed_memory", lambda: kept.append(True))
    phases.main()
    assert kept == [True], "the process is set up as that of a command"
    out = capsys.readouterr().out
    (scatter,) = re.findall(r"scatters by ([\d.]+)", out)
    assert 0.8 < float(scatter) < 2.2, "sqrt(2) with many directions"
    errors = {float(s): float(e) for s, e in re.findall(r"\| ([\d.e-]+) \| ([\d.]+)% \|", out)}
    assert list(errors) == list(phases.SIGMAS)
    assert errors[0.01] < errors[0.1] < 100
    assert errors[0.01] < 10
