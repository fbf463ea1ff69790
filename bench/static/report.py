"""Predictions as text, as a file, and beside the old plugin's and a former table's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.static.predict import Prediction

PLUGIN = Path(__file__).with_name("plugin.json")
TABLE = Path(__file__).with_name("predictions.json")

Key = tuple[str, ...]


def key(row: Mapping[str, Any]) -> Key:
    """What names a row in every table. The plugin's has only one op."""
    return row["arch"], row.get("op", "filtered_lrelu"), row["config"], row["mode"], row["dtype"]


def load(path: Path) -> dict[Key, dict[str, Any]]:
    """The rows of a table."""
    return {key(row): row for row in json.loads(path.read_text())["rows"]}


HEAD = (
    f"{'arch':5} {'op':16} {'class':27} {'mode':23} {'type':8} {'ps':>7} {'replays':>7} {'floor':>6} {'plugin':>7} "
    f"{'ratio':>5} {'cycles':>7} {'instr.':>7} {'regs':>4} {'shared':>6} {'warps':>6}  limit"
)


def line(row: Prediction, plugin: Mapping[Key, Mapping[str, Any]]) -> str:
    """One prediction, under `HEAD`."""
    old = plugin.get(key(asdict(row)))
    beside = f"{'':7} {'':5}" if old is None else f"{old['ps']:7.2f} {row.ps / old['ps']:5.2f}"
    busiest = sorted(row.busy.items(), key=lambda item: -item[1])[:3]
    text = (
        f"{row.arch:5} {row.op:16} {row.config:27} {row.mode:23} {row.dtype:8} "
        f"{row.ps:7.2f} {row.ps_with_replays:7.2f} "
        f"{row.floor_ps:6.2f} {beside} {row.cycles:7.2f} {row.instructions:7.3f} {row.registers:4} {row.shared:6} "
        f"{row.resident:2} x {row.warps}  {row.limit} ({', '.join(f'{pipe} {share:.0%}' for pipe, share in busiest)}); "
        f"{row.occupancy_limit}"
    )
    return text + (f"  SPILLS {row.stack} bytes a thread" if row.stack else "")


def table(rows: Sequence[Prediction], beside: Path | None = None) -> str:
    """JSON, a row a line, so that what changes in it has changed. With the rows of another table that `rows` do not
    renew; raises ValueError if that is another compiler's."""
    found = {key(row): row for row in (rounded(asdict(row)) for row in rows)}
    if beside is not None:
        if (its := json.loads(beside.read_text())["triton"]) != version("triton"):
            raise ValueError(f"{beside}: of Triton {its}, this is {version('triton')}; renew it whole, by --json")
        found = load(beside) | found
    lines = ",\n  ".join(json.dumps(row) for row in found.values())
    note = "Predictions of `python -m bench.static`, not measurements; see docs/static-model.md."
    return f'{{"note": "{note}",\n "triton": "{version("triton")}",\n "rows": [\n  {lines}\n]}}\n'


def rounded(value: Any) -> Any:
    """To four digits, far more than the model is good for."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value
