"""`sg3 info`."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rich_click as click

from sg3.cli import options
from sg3.terminal import show


@click.command("info", cls=options.SwitchesAnywhere)
@click.argument("path", type=options.NAME, metavar="PATH")
@options.as_json
def command(path: str, as_json: bool) -> None:
    """Describe a network file, a dataset (zip or folder), a run folder, or a folder of runs.

    A network may also be an address or the short name of a published one.

    Examples:

        sg3 info photos.zip

        sg3 info runs/00000-stylegan3-t-photos-gpus1-batch32-gamma2
    """
    facts = describe(path)
    if as_json:
        show(*json.dumps(facts, indent=2).splitlines())
        return
    lines = list(_flatten(_for_reading(facts) if facts["kind"] == "run" else facts))
    width = max(len(key) for key, _ in lines)
    for key, value in lines:
        show(f"{key:<{width}}  {value}")


def describe(source: str) -> dict[str, Any]:
    """What lies at a path or address."""
    from sg3.named_paths import nothing_at
    from sg3.run_folder import is_run

    path = Path(source)
    if not path.exists():
        from sg3.published import is_remote

        if is_remote(source):
            return describe_network(source)
        raise nothing_at(source)
    if is_run(path):
        return describe_run(path)
    if path.is_dir() and (runs := [folder for folder in sorted(path.iterdir()) if is_run(folder)]):
        return {"kind": "runs", "path": str(path), **{folder.name: _in_short(folder) for folder in runs}}
    if path.is_dir() or path.suffix == ".zip":
        return describe_dataset(path)
    return describe_network(path)


def describe_network(path: str | Path) -> dict[str, Any]:
    """What the networks of a file are."""
    import sg3
    from sg3.canvas import is_canvas, size_of, spelled
    from sg3.formats.snapshot import not_finite
    from sg3.models import Discriminator, Generator, StyleGenerator, family_of, stylegan3
    from sg3.models.augment import AugmentPipe
    from sg3.models.layers import count_parameters

    snapshot = sg3.load(path)
    facts: dict[str, Any] = {"kind": "network", "path": str(path), "format": snapshot.origin}
    for name in ("G_ema", "G", "D"):
        net = getattr(snapshot, name)
        if isinstance(net, Generator):
            facts[name] = {
                "family": family_of(net),
                "image": f"{spelled(size_of(net))} x {net.img_channels}",
                "z_dim": net.z_dim, "classes": net.c_dim, "parameters": count_parameters(net),
            }  # fmt: skip
            if isinstance(net, StyleGenerator):
                facts[name] |= {
                    "w_dim": net.w_dim, "num_ws": net.num_ws, "mapping_layers": net.mapping.num_layers,
                }  # fmt: skip
            if isinstance(net, stylegan3.Generator):
                radial = bool(net.init_kwargs.get("use_radial_filters", False))
                facts[name]["configuration"] = "R" if radial else "T"
                facts[name]["layers"] = net.synthesis.layer_names
        elif isinstance(net, Discriminator):
            image = None if net.img_resolution is None else f"{spelled(size_of(net))} x {net.img_channels}"
            facts[name] = {
                "family": family_of(net), "image": image, "classes": net.c_dim,
                "parameters": count_parameters(net),
            }  # fmt: skip
        if isinstance(net, (Generator, Discriminator)) and is_canvas(net):
            name_of_side = "sampling_rate" if isinstance(net, stylegan3.Generator) else "nominal_resolution"
            facts[name][name_of_side] = net.img_resolution
        if net is not None and (names := not_finite(net)):
            facts[name]["not_finite"] = names
    pipe = snapshot.augment_pipe
    if isinstance(pipe, AugmentPipe):
        parameters = inspect.signature(AugmentPipe).parameters
        used = [name for name, value in pipe.init_kwargs.items() if parameters[name].default == 0 and value != 0]
        facts["augment_pipe"] = {"p": float(pipe.p), "operations": used}
    facts["missing"] = [name for name in ("G_ema", "G", "D", "augment_pipe") if getattr(snapshot, name) is None]
    facts["licence"] = snapshot.licence
    facts["notes"] = snapshot.notes or None
    facts["training_set"] = snapshot.training_set_kwargs
    return facts


def describe_dataset(path: Path) -> dict[str, Any]:
    """Size, labels and origin of a dataset."""
    import numpy as np

    from sg3.canvas import spelled
    from sg3.data.dataset import ImageFolderDataset
    from sg3.data.dataset_json import read_manifest
    from sg3.data.image_files import open_images

    data = ImageFolderDataset(path, use_labels=True)
    facts: dict[str, Any] = {
        "kind": "dataset", "path": str(path), "name": data.name, "images": len(data),
        "image": f"{spelled(data.size)} x {data.num_channels}", "labels": None,
    }  # fmt: skip
    if data.has_labels:
        facts["labels"] = {"dimensions": data.label_dim, "one_hot": data.has_onehot_labels}
        if data.has_onehot_labels:
            raw = [int(data.get_details(i).raw_label) for i in range(len(data))]
            facts["labels"]["images_per_class"] = np.bincount(raw, minlength=data.label_dim).tolist()
    facts["notes"] = data.notes() or None
    facts["origin"] = (read_manifest(open_images(path)) or {}).get("sg3")  # what `sg3 dataset` recorded
    return facts


def describe_run(path: Path) -> dict[str, Any]:
    """How far a run has come, and how it ended."""
    from sg3 import run_folder

    options = run_folder.read_options(path)
    facts: dict[str, Any] = {"kind": "run", "path": str(path), "config": options.get("config")}
    if (path / run_folder.EXIT).is_file():
        facts["exit"] = run_folder.read_object(path / run_folder.EXIT)
    last: dict[str, Any] = next(run_folder.read_lines(path / run_folder.STATS, newest_first=True), {})
    for fact, name in (("kimg", "Progress/kimg"), ("sec_per_kimg", "Timing/sec_per_kimg")):
        entry = last.get(name)
        if isinstance(entry, dict) and isinstance(entry.get("mean"), (int, float)):
            facts[fact] = entry["mean"]
    saved = run_folder.saved_kimg(path)
    if saved is not None and saved >= facts.get("kimg", 0):  # a run that is stopped saves a state, and ends no tick
        facts["kimg"] = saved
    facts["snapshots"] = [p.name for p in run_folder.snapshots(path)]
    facts["states"] = [p.name for p in reversed(run_folder.states(path))]
    if facts["states"]:
        facts["continue"] = f"sg3 train --continue={path}"
    return facts


def _in_short(path: Path) -> str:
    """A run of several, in one line."""
    from sg3.errors import Sg3Error

    try:
        facts = describe_run(path)
    except Sg3Error as error:
        return f"unreadable: {error}"
    kimg, ended = facts.get("kimg"), facts.get("exit") or {}
    words = ["nothing shown yet" if kimg is None else f"{kimg:g} kimg", f"{len(facts['snapshots'])} snapshots"]
    if "exit_code" in ended:
        words.append(f"ended with exit code {ended['exit_code']}")
    return ", ".join(words)


def _for_reading(run: dict[str, Any]) -> dict[str, Any]:
    """A run's facts with times as dates, and names that say what the last line of the statistics tells: it is older
    than the end, where no state is newer."""
    from sg3.run_folder import saved_kimg

    last = {"kimg": "kimg at the last tick", "sec_per_kimg": "sec_per_kimg at the last tick"}
    if run.get("kimg") == saved_kimg(Path(run["path"])):
        del last["kimg"]
    shown = {last.get(name, name): value for name, value in run.items()}
    ended = {
        name: _moment(value) if name in ("started", "ended") and isinstance(value, (int, float)) else value
        for name, value in run.get("exit", {}).items()
    }
    return {**shown, "exit": ended} if ended else shown


def _moment(seconds: float) -> str:
    """Seconds since 1970 as date and time here; as they are if they are none that a calendar has."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return str(seconds)


def _flatten(facts: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in facts.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            shown = [str(v) for v in value]
            text = ", ".join(shown[:3]) + f", ... {shown[-1]} ({len(shown)})" if len(shown) > 16 else ", ".join(shown)
            yield prefix + key, text or "none"
        elif value is not None:
            yield prefix + key, f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
