"""Results as a Markdown table on stdout and, with --plot, as a picture:

    python -m bench.report bench/results/*.json --plot=bench.png
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

Result = dict[str, Any]
PEERS = ("ref", "torch", "numba", "compile(ref)", "triton", "compile(triton)", "original")

# Goals on a CPU: name -> (what is meant, how many times faster than ref the default should be).
TARGETS = {
    "filtered_lrelu": ("filtered_lrelu forward+backward, up 2 down 2, at 36, 84, 148 and 276 px (geometric mean)", 4.0),
    "step": ("StyleGAN3-T 64 px generator step, cbase 1024, cmax 32, batch 8", 4.0),
}


def load(path: Path) -> Result:
    """A result file. Raises ValueError for one that is none."""
    try:
        result: Result = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error}); expected a file that `pytest bench` wrote") from None
    if not isinstance(result, dict) or "cases" not in result or "hardware" not in result:
        raise ValueError(f"{path}: has no cases; expected a file that `pytest bench` wrote")
    return result


def markdown(result: Result) -> str:
    """Head, one table per op, what was left out and why, and the goals."""
    parts = [head(result)]
    for op in dict.fromkeys(case["op"] for case in result["cases"]):
        parts.append(f"### {op}\n\n{table([case for case in result['cases'] if case['op'] == op])}")
    parts += [text for text in (skips(result), goals(result)) if text]
    return "\n\n".join(parts)


def head(result: Result) -> str:
    """Where the numbers come from."""
    versions = ", ".join(f"{name} {v}" for name, v in result["versions"].items() if v)
    lines = [
        f"## {result['hardware']}", "",
        f"{result['date']}, commit {result['commit'] or 'unknown'}, {versions}, load before {result['load_before']} on "
        f"{result['cores']} cores, `{result['command']}`. Milliseconds: median [quartiles], times faster than ref.",
    ]  # fmt: skip
    if rates := result.get("rates"):
        lines[-1] += (
            f" Floors for {rates['bandwidth'] / 1e12:.2f} TB/s, {rates['fp16'] / 1e12:.0f} TFLOP/s in half precision "
            f"and {rates['fp32'] / 1e12:.0f} in float32, measured in the same run; % of the floor (byte floor) reached."
        )
    return "\n".join(lines)


def table(cases: list[dict[str, Any]]) -> str:
    """A row per case and mode, a column per peer that ran in one of them."""
    names = [name for name in PEERS if any("median_ms" in case["peers"].get(name, {}) for case in cases)]
    floors = any("floor_ms" in case for case in cases)
    columns = ["case", "mode", "type", *names, *(["floor"] if floors else [])]
    lines = ["| " + " | ".join(columns) + " |", "|---|---|---|" + "--:|" * (len(columns) - 3)]
    for case in cases:
        cells = [case["case"], case["mode"], case["dtype"], *(cell(case["peers"].get(name, {})) for name in names)]
        if floors:
            cells.append(f"{case['floor_ms']:.3g} ({case['byte_floor_ms']:.3g})" if "floor_ms" in case else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(peer: dict[str, Any]) -> str:
    """A peer's figures."""
    if "median_ms" not in peer:
        return ""
    text = f"{peer['median_ms']:.3g} [{peer['q1_ms']:.3g}, {peer['q3_ms']:.3g}]"
    if "vs_ref" in peer:
        text += f" {peer['vs_ref']:.2f}x"
    if "of_floor" in peer:
        text += f" {peer['of_floor']:.0%} ({peer['of_byte_floor']:.0%})"
    if peer.get("unchecked"):
        text += " (unchecked: no reference fits)"
    if "peak_mb" in peer:
        text += f" {peer['peak_mb']:.0f} MB"
    if "first_call_s" in peer:
        text += f" first {peer['first_call_s']:.1f} s"
    return text


def skips(result: Result) -> str:
    """Peers that did not run, by reason."""
    reasons: dict[tuple[str, str], int] = {}
    for case in result["cases"]:
        for name, peer in case["peers"].items():
            if "skipped" in peer:
                key = name, peer["skipped"]
                reasons[key] = reasons.get(key, 0) + 1
    return "\n".join(f"- {name} left out of {n} cases: {why}" for (name, why), n in reasons.items())


def goals(result: Result) -> str:
    """How far the CPU targets are met in this run: speed, and peak memory no higher than the reference's."""
    lines = []
    for target, (what, goal) in TARGETS.items():
        cases = [case for case in result["cases"] if case.get("target") == target]
        ratios = {name: speedup(cases, name) for name in PEERS[1:]}
        default = "torch" if ratios["numba"] is None else "numba"
        fast = ratios[default]
        if fast is None:
            continue
        beside = "".join(f", {name} {r:.2f}x" for name, r in ratios.items() if r is not None and name != default)
        verdict = "met" if fast >= goal else "MISSED"
        lines.append(f"- {what}: {default} {fast:.2f}x{beside}; target {goal:.0f}x {verdict}")
        peaks = [[case["peers"][name].get("peak_mb") for name in (default, "ref")] for case in cases]
        if all(None not in pair for pair in peaks):
            met = all(ours <= plain for ours, plain in peaks)
            each = ", ".join(f"{ours:.0f} against {plain:.0f} MB" for ours, plain in peaks)
            lines.append(f"- ... its peak memory: {each}; target no higher than ref {'met' if met else 'MISSED'}")
    return "\n".join(lines)


def speedup(cases: list[dict[str, Any]], name: str) -> float | None:
    """Geometric mean of a peer's ratios to ref; None if it did not run in all of the cases."""
    ratios = [case["peers"].get(name, {}).get("vs_ref") for case in cases]
    if not ratios or None in ratios:
        return None
    return math.exp(sum(math.log(r) for r in ratios) / len(ratios))


def plot(results: list[Result], path: Path) -> None:
    """One panel per file: how many times faster than ref each peer is, case by case."""
    from matplotlib import pyplot  # optional, and slow to import

    rows = max(len(result["cases"]) for result in results)
    figure, axes = pyplot.subplots(
        1, len(results), figsize=(11 * len(results), 1.5 + 0.24 * rows), squeeze=False, layout="constrained"
    )
    for axis, result in zip(axes[0], results, strict=True):
        cases = result["cases"]
        for name in PEERS[1:]:
            points = [
                (case["peers"][name]["vs_ref"], y) for y, case in enumerate(cases)
                if "vs_ref" in case["peers"].get(name, {})
            ]
            if points:
                axis.plot(*zip(*points, strict=True), "o", label=name)
        axis.axvline(1, color="black", linewidth=1)
        axis.set_xscale("log")
        ticks = [0.25, 0.5, 1, 2, 4, 8, 16, 32]
        axis.set_xticks(ticks, [f"{t:g}" for t in ticks], minor=False)
        axis.minorticks_off()
        labels = [f"{case['op']}: {case['case']}, {case['mode']}" for case in cases]
        axis.set_yticks(range(len(cases)), labels, fontsize=7)
        axis.invert_yaxis()
        axis.set_xlabel("times faster than ref")
        axis.set_title(f"{result['hardware']}, {result['date']}")
        axis.grid(axis="x", alpha=0.3)
        axis.legend(loc="lower right")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> None:
    """Read result files, print, and draw if asked to."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, help="what `pytest bench` wrote")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the ratios to ref into this file")
    options = parser.parse_args(arguments)
    try:
        results = [load(path) for path in options.files]
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print("\n\n".join(map(markdown, results)))
    if options.plot:
        try:
            plot(results, options.plot)
        except ImportError:
            sys.exit("error: --plot needs matplotlib: pip install 'sg3[plot]'")


if __name__ == "__main__":
    main()
