"""The model card of a network: what it is, what it was trained on, how well it draws and under which terms, as far as
the file and its run say so. No path of this machine is in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sg3._version import __version__
from sg3.canvas import size_of
from sg3.formats.hub import NETWORK
from sg3.metrics.results import short
from sg3.models import Generator, family_of
from sg3.models.layers import count_parameters
from sg3.run_folder import kimg_of, metric_names, metric_path, read_lines
from sg3.terminal import printable

SAMPLES = "samples.png"
# Of a run's configuration: what somebody needs to train the same, and nothing that is about the machine.
RECIPE_LEAVES_OUT = {
    "dataset", "device", "threads", "workers", "nobench", "timeout", "restart_every", "profile", "gpus", "batch_gpu",
    "tick", "snap", "grid", "metrics", "detector_dir", "keep_snapshots", "log_to", "desc", "resume", "resume_least",
    "on_error", "compile", "minutes",
}  # fmt: skip
# Of a metric's recipe: what has a column of its own, what says where it was computed and not what, and notes.
HOW_LEAVES_OUT = {
    "num_gen", "num_real", "dataset", "detector", "detector_sha256", "seed", "device", "batch", "network_sha256",
    "cur_nimg", "notes",
}  # fmt: skip
DATA_FACTS = ("name", "size", "resolution", "channels", "label_dim")


def model_card(
    G: Generator, repo: str, licence: str, snapshot: Path, config: Mapping[str, Any] | None, run: Path | None
) -> str:
    """README.md of a repository OWNER/NAME on the Hub: metadata as YAML, then a page.

    `snapshot` is the network's file, `config` the configuration of its run and `run` the folder of it, if there is one.
    """
    family, side = family_of(G), _size(G)
    measured = [] if run is None else list(_measured(run, snapshot.name))
    lines = [
        "---", f"license: {json.dumps(licence)}", "library_name: sg3", "pipeline_tag: unconditional-image-generation",
        "tags:", "- sg3", f"- {family.lower().replace(' ', '-')}", "- gan", *_model_index(repo, measured, config),
        "---", "",
        f"# {repo.partition('/')[2]}", "",
        f"A {family} generator of {side} pictures with {G.img_channels} channels, {count_parameters(G):,} parameters"
        + (f", {G.c_dim} classes" if G.c_dim else "") + f". Written by sg3 {__version__}.", "",
        f"![pictures of seeds from 0 on]({SAMPLES})", "",
        "```python", "import sg3", "",
        f'pictures = sg3.generate("hf://{repo}", range(8){", class_idx=0" if G.c_dim else ""})    # uint8 [8, H, W, C]',
        f'G = sg3.load("hf://{repo}").G_ema                    # a torch.nn.Module; nothing in the file is executed',
        "```", "",
        f"`{NETWORK}` is the averaged generator (G_ema), from `{printable(snapshot.name)}`.", "",
    ]  # fmt: skip
    lines += ["## Training", ""]
    if config is None:
        lines += ["The file does not say how it was trained.", ""]
    else:
        data = config.get("dataset")
        data = data if isinstance(data, dict) else {}
        facts = {name: data[name] for name in DATA_FACTS if name in data}
        said = {name: value for name, value in config.items() if name not in RECIPE_LEAVES_OUT and value is not None}
        kimg = kimg_of(snapshot.name)
        lines += [f"{kimg} kimg were shown to the discriminator." if kimg is not None else "", ""]
        lines += ["| data | |", "|---|---|", *(f"| {k} | {_cell(v)} |" for k, v in facts.items()), ""]
        lines += ["| option | |", "|---|---|", *(f"| `{k}` | {_cell(v)} |" for k, v in said.items()), ""]
    lines += ["## Metrics", ""]
    if measured:
        lines += ["| metric | value | generated | real | detector (sha256) | seed | how |",
                  "|---|--:|--:|--:|---|--:|---|"]  # fmt: skip
        for name, value, recipe in measured:
            detector = f"{_cell(recipe.get('detector', ''))} ({_cell(str(recipe.get('detector_sha256', ''))[:12])})"
            counts = " | ".join(_cell(recipe.get(key, "")) for key in ("num_gen", "num_real"))
            lines.append(f"| {name} | {value:.6g} | {counts} | {detector if recipe.get('detector') else ''} | "
                         f"{_cell(recipe.get('seed', ''))} | {_cell(_how(recipe))} |")
        lines += ["", "Values of other detectors, counts or datasets, or measured otherwise, are not comparable.", ""]
    else:
        lines += ["Not measured.", ""]
    lines += ["## Licence", "", f"{licence}. The networks' method and the training images have terms of their own.", ""]
    return "\n".join(lines)


def _size(G: Generator) -> str:
    height, width = size_of(G)
    return f"{width} x {height}"


def _measured(run: Path, snapshot: str) -> Iterator[tuple[str, float, Mapping[str, Any]]]:
    """Name, value and recipe of the newest results of each metric of this snapshot."""
    for metric in metric_names(run):
        for line in read_lines(metric_path(run, metric), newest_first=True):
            results, recipe = line.get("results"), line.get("recipe")
            if line.get("snapshot_pkl") == snapshot and isinstance(results, dict):
                for name, value in results.items():
                    if isinstance(value, (int, float)):
                        yield printable(name), float(value), recipe if isinstance(recipe, dict) else {}
                break


def _how(recipe: Mapping[str, Any]) -> str:
    """What else a value depends on: the real images, background, bars, the constants of its definition ..."""
    data = recipe.get("dataset")
    said = {name: value for name, value in recipe.items() if name not in HOW_LEAVES_OUT}
    said = {"data": data.get("sha256") if isinstance(data, dict) else None, **said}
    plain = {name: value for name, value in said.items() if isinstance(value, str | int | float)}
    return ", ".join(f"{name} {short(str(value))}" for name, value in plain.items())


def _model_index(
    repo: str, measured: list[tuple[str, float, Mapping[str, Any]]], config: Mapping[str, Any] | None
) -> list[str]:
    """The metadata that the Hub shows beside the page, by data set: it refuses results without one."""
    if not measured:
        return []
    trained_on = (config or {}).get("dataset")
    by_data: dict[str, list[tuple[str, float]]] = {}
    for name, value, recipe in measured:
        said = next((facts["name"] for facts in (recipe.get("dataset"), trained_on)
                     if isinstance(facts, dict) and isinstance(facts.get("name"), str)), "none")  # fmt: skip
        by_data.setdefault(printable(said, 60), []).append((name, value))
    lines = ["model-index:", f"- name: {json.dumps(repo.partition('/')[2])}", "  results:"]
    for data, values in by_data.items():
        lines += ["  - task:", "      type: unconditional-image-generation", "    dataset:",
                  f"      type: {json.dumps(data)}", f"      name: {json.dumps(data)}", "    metrics:"]  # fmt: skip
        for name, value in values:
            lines += [f"    - type: {json.dumps(name)}", f"      value: {_yaml_number(value)}"]
    return lines


def _yaml_number(value: float) -> str:
    """With a point, without which YAML 1.1 takes 1e-05 for a text."""
    text = repr(value)
    return text if "." in text else text.replace("e", ".0e")


def _cell(value: object) -> str:
    return printable(value, limit=200).replace("|", "\\|")
