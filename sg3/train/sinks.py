"""Where a run's numbers and pictures can go beside its folder: TensorBoard, Weights & Biases, trackio.

A sink is fed by `forwarding.py`, from the run's own files. Each is an extra of its own, imported when it is opened.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Protocol

from sg3.errors import MissingInputError
from sg3.extras import install

PROJECT = "sg3"  # where neither WANDB_PROJECT nor TRACKIO_PROJECT says another one


class Sink(Protocol):
    """Takes what a run reports. Whatever it raises, the run goes on without it."""

    def numbers(self, values: Mapping[str, float], nimg: int) -> None:
        """Values by their names in stats.jsonl and metric-NAME.jsonl, after `nimg` images. `nimg` never decreases."""

    def picture(self, name: str, path: Path, nimg: int) -> None:
        """A grid of images, a PNG file."""

    def close(self) -> None:
        """There will be no more in this life of the run."""


class TensorBoard:
    """Events in the run folder, for `tensorboard --logdir RUN`; its steps are kimg, as the original's are."""

    def __init__(self, run_dir: Path, config: Mapping[str, Any], identity: str, start_nimg: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What a longer life has left behind this point is taken back.
        purge = start_nimg // 1000 + 1 if start_nimg else None
        self._writer = SummaryWriter(run_dir, purge_step=purge)

    def numbers(self, values: Mapping[str, float], nimg: int) -> None:
        """As scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, global_step=nimg // 1000)
        self._writer.flush()

    def picture(self, name: str, path: Path, nimg: int) -> None:
        """As an image."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        self._writer.add_image(name, pixels, nimg // 1000, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class WeightsAndBiases:
    """A run of https://wandb.ai, by its own variables (WANDB_API_KEY, WANDB_PROJECT, WANDB_MODE=offline, ...)."""

    def __init__(self, run_dir: Path, config: Mapping[str, Any], identity: str, start_nimg: int) -> None:
        import wandb  # type: ignore[import-not-found]

        self._wandb = wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), name=run_dir.name, id=identity, resume="allow",
            dir=run_dir, config=dict(config), settings=wandb.Settings(silent=True, console="off", init_timeout=60),
        )  # fmt: skip

    def numbers(self, values: Mapping[str, float], nimg: int) -> None:
        """With the number of images as the step. A step that it has had already, it leaves as it is."""
        self._run.log(dict(values), step=nimg)

    def picture(self, name: str, path: Path, nimg: int) -> None:
        """As an image."""
        self._run.log({name: self._wandb.Image(str(path))}, step=nimg)

    def close(self) -> None:
        """Send what is left."""
        self._run.finish(quiet=True)


class Trackio:
    """A run of trackio on this machine, or in a Space (TRACKIO_SPACE_ID)."""

    def __init__(self, run_dir: Path, config: Mapping[str, Any], identity: str, start_nimg: int) -> None:
        import trackio  # type: ignore[import-not-found]

        self._trackio = trackio
        with redirect_stdout(sys.stderr):  # it speaks there, where results are ours
            self._run = trackio.init(
                project=os.environ.get("TRACKIO_PROJECT", PROJECT), name=f"{run_dir.name}-{identity}", resume="allow",
                config=dict(config), embed=False,
            )  # fmt: skip

    def numbers(self, values: Mapping[str, float], nimg: int) -> None:
        """With the number of images as the step."""
        self._run.log(dict(values), step=nimg)

    def picture(self, name: str, path: Path, nimg: int) -> None:
        """As an image."""
        self._run.log({name: self._trackio.Image(path)}, step=nimg)

    def close(self) -> None:
        """Send what is left."""
        with redirect_stdout(sys.stderr):
            self._run.finish()  # (trackio.finish() knows only runs that were begun in the same thread)


# By their names in --log-to: the class, and the extra that brings the package of the same name.
SINKS: dict[str, tuple[Callable[[Path, Mapping[str, Any], str, int], Sink], str]] = {
    "tensorboard": (TensorBoard, "tb"), "wandb": (WeightsAndBiases, "wandb"), "trackio": (Trackio, "trackio"),
}  # fmt: skip
AUTO = ("tensorboard",)  # where it is installed


def is_installed(package: str) -> bool:
    """Whether it could be imported; nothing is."""
    return importlib.util.find_spec(package) is not None


def sink_names(text: str) -> tuple[str, ...]:
    """What --log-to says: 'auto', 'none' or names with commas."""
    if text == "auto":
        return tuple(name for name in AUTO if is_installed(name))
    return tuple(dict.fromkeys(name for name in text.split(",") if name and name != "none"))


def sink_problems(text: str) -> list[str]:
    """What of that is no sink, a line each."""
    names = [name for name in sink_names(text) if name not in SINKS]
    return [f"--log-to={name}: expected {', '.join(SINKS)}, auto or none" for name in names]


def require_sinks(text: str) -> None:
    """Raises MissingInputError for those of `--log-to` whose package is not installed."""
    missing = [name for name in sink_names(text) if not is_installed(name)]
    if missing:
        raise MissingInputError(
            "; ".join(f"--log-to={name}: is not installed; {install(SINKS[name][1])}" for name in missing)
        )
