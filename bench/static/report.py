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


DETAILS = ("busy", "unknown_accesses")  # what is only printed


def table(rows: Sequence[Prediction], beside: Path | None = None) -> str:
    """JSON, a row a line, so that what changes in it has changed. With the rows of another table that `rows` do not
    renew; raises ValueError if that is another compiler's."""
    plain = ({name: rounded(value) for name, value in asdict(row).items() if name not in DETAILS} for row in rows)
    found = {key(row): row for row in plain}
    if beside is not None:
        if (its := json.loads(beside.read_text())["triton"]) != version("triton"):
            raise ValueError(f"{beside}: of Triton {its}, this is {version('triton')}; renew it whole, by --json")
        found = load(beside) | found
    lines = ",\n  ".join(json.dumps(row) for row in found.values())
    note = "Predictions of `python -m bench.static`, not measurements; see docs/static-model.md."
    return f'{{"note": "{note}",\n "triton": "{version("triton")}",\n "rows": [\n  {lines}\n]}}\n'


def against(rows: Mapping[Key, Mapping[str, Any]], plugin: Mapping[Key, Mapping[str, Any]]) -> str:
    """Markdown: what of a table the plugin's figures are known for, ps an output, and the ratio to them."""
    archs = sorted({name[0] for name in plugin})
    lines = ["| class | | type | " + " | ".join(f"{arch} | plugin | ratio" for arch in archs) + " |",
             "|---|---|---|" + "--:|" * 3 * len(archs)]  # fmt: skip
    for what in dict.fromkeys(name[1:] for name in plugin):
        cells = []
        for name in ((arch, *what) for arch in archs):
            new, old = (table[name]["ps"] if name in table else None for table in (rows, plugin))
            cells += ["" if ps is None else f"{ps:.1f}" for ps in (new, old)]
            cells.append("" if new is None or old is None else f"{new / old:.2f}")
        lines.append("| " + " | ".join([*what[1:], *cells]) + " |")
    return "\n".join(lines)


MOST = 1.05  # times what the table says


def worse(now: Mapping[Key, Mapping[str, Any]], before: Mapping[Key, Mapping[str, Any]]) -> list[str]:
    """A line for each of the rows `now` that is more than 5 % slower than in the table `before`, that spills, or that
    the table lacks."""
    lines = []
    for name, row in now.items():
        found = [] if name in before else ["is not in the table"]
        for what in ("ps", "ps_with_replays") if name in before else ():
            if not row[what] <= MOST * before[name][what]:
                found.append(f"{what} {before[name][what]} -> {row[what]}")
        if row["stack"]:
            found.append(f"spills {row['stack']} bytes a thread")
        lines += [f"{'/'.join(name)}: {text}" for text in found]
    return lines


def rounded(value: Any) -> Any:
    """To four digits, far more than the model is good for."""
    return float(f"{value:.4g}") if isinstance(value, float) else value
