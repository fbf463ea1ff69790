"""Starting, continuing and ending a run: folders, devices, signals, and what is left behind for whoever waits."""

from __future__ import annotations

import fcntl
import json
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import sg3
from sg3.data.dataset import ImageFolderDataset
from sg3.device import choose_device
from sg3.errors import DataError, MissingInputError, Sg3Error, StorageError, TrainingStopped, UsageError
from sg3.formats.atomic import write_atomic
from sg3.train.config import DatasetFacts, Options, TrainConfig, resolve
from sg3.train.display import Display, format_time
from sg3.train.loop import Trainer
from sg3.train.state import load_state
from sg3.train.transfer import transfer_weights

OPTIONS_FILE = "training_options.json"

# What may change when a run is continued: nothing that decides which numbers it computes.
CONTINUABLE = ("data", "kimg", "minutes", "tick", "snap", "grid", "workers", "nobench", "device")


def render_builtin(data: str | None, outdir: Path) -> str | None:
    """`openmoji[:SUBSET][:RESOLUTION]` -> the path of that dataset under `outdir`, rendered now if it is not there.

    Any other `data` comes back as it is.
    """
    if data is None or data.split(":")[0] != "openmoji" or Path(data).exists():
        return data
    words = data.split(":")[1:]
    sizes = [int(word) for word in words if word.isdigit()]
    subsets = [word for word in words if not word.isdigit()]
    if len(sizes) > 1 or len(subsets) > 1:
        raise UsageError(f"--data={data}: expected openmoji, openmoji:64 or openmoji:faces:64")
    from sg3.data.openmoji import ATTRIBUTION, prepare_openmoji

    resolution, subset = (sizes or [32])[0], (subsets or ["faces"])[0]
    path = outdir / f"openmoji-{subset}-{resolution}x{resolution}.zip"
    if not path.exists():
        try:
            outdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"--outdir={outdir}: cannot be made: {error.strerror}") from error
        made = prepare_openmoji(path, resolution, subset)
        print(f"{made.path}: {made.num_images} images drawn from {ATTRIBUTION}", file=sys.stderr)
    return str(path)


def probe_dataset(options: Options) -> DatasetFacts:
    """Open the dataset once and note what the configuration needs to know. Raises what the dataset raises."""
    if options.data is None:
        raise UsageError("--data: needed, a folder or zip of images (or --preset=demo for a ready-made start)")
    cond = bool(options.cond)
    data = ImageFolderDataset(options.data, max_size=options.subset, use_labels=cond, xflip=bool(options.mirror))
    return DatasetFacts(
        path=str(Path(options.data).resolve()), name=data.name, resolution=data.resolution, channels=data.num_channels,
        size=len(data), label_dim=data.label_dim if cond and data.has_labels else 0, has_labels=data.labels_available,
    )  # fmt: skip


def configure(options: Options) -> TrainConfig:
    """Probe the dataset and resolve the options. Raises UsageError or what the dataset raises."""
    return resolve(options, probe_dataset(options))


def start(config: TrainConfig, outdir: Path) -> Path:
    """Train in a new run folder under `outdir`; returns the folder."""
    choose_device(config.device)  # before there is a folder
    return _run(config, _create_run_dir(outdir, config), is_new=True)


def continue_run(run: str, outdir: Path | None, changes: Options) -> Path:
    """Go on with a run folder, or with the newest one under `outdir` if `run` is 'latest'."""
    run_dir = _find_run(run, outdir)
    try:
        config = TrainConfig.from_dict(json.loads((run_dir / OPTIONS_FILE).read_text())["config"])
    except FileNotFoundError:
        raise MissingInputError(f"{run_dir}: is no run folder (it has no {OPTIONS_FILE})") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{run_dir / OPTIONS_FILE}: not written by this version of sg3 ({error})") from error
    return _run(_apply_changes(config, changes), run_dir, is_new=False)


def _apply_changes(config: TrainConfig, changes: Options) -> TrainConfig:
    from dataclasses import asdict, replace

    said = {name: value for name, value in asdict(changes).items() if value is not None}
    refused = [name for name in said if name not in CONTINUABLE]
    if refused:
        flags = ", ".join("--" + name.replace("_", "-") for name in refused)
        allowed = ", ".join("--" + name for name in CONTINUABLE)
        raise UsageError(f"{flags}: cannot change in a run that continues (only {allowed} can); start a new one")
    if "data" in said:  # the same images at another place
        said["dataset"] = replace(config.dataset, path=str(Path(said.pop("data")).resolve()))
    if "nobench" in said:
        said["cudnn_benchmark"] = not said.pop("nobench")
    return replace(config, **said)


def _run(config: TrainConfig, run_dir: Path, is_new: bool) -> Path:
    """Set up, train, and leave an exit.json that says how it ended."""
    device = choose_device(config.device)
    with _locked(run_dir):
        (run_dir / "exit.json").unlink(missing_ok=True)  # of an earlier life
        return _train(config, run_dir, is_new, device)


def _train(config: TrainConfig, run_dir: Path, is_new: bool, device: torch.device) -> Path:
    torch.backends.cudnn.benchmark = config.cudnn_benchmark
    display = Display(run_dir / "log.txt", config.kimg * 1000)
    began = time.time()
    trainer: Trainer | None = None
    code, message = 70, "crashed"
    try:
        with _stop_signals() as stop_reason, display:
            dataset = _open_dataset(config)
            trainer = Trainer(config, dataset, run_dir, device, display)
            if is_new:
                _write_options(config, run_dir)
                if config.resume is not None:
                    networks = {"G": trainer.G, "D": trainer.D, "G_ema": trainer.G_ema}
                    for line in transfer_weights(config.resume, networks):
                        display.message(line)
            else:
                state = load_state(run_dir, display.message)
                if state["fingerprint"] != config.fingerprint():
                    raise DataError(f"{run_dir}: its state was saved with other options than its {OPTIONS_FILE} holds")
                trainer.load_state_dict(state)
            _announce(config, trainer, run_dir, device, display)
            if config.minutes is not None:
                display.budget_seconds = config.minutes * 60 - trainer.seconds
            out_of_time = display.budget_seconds is not None and display.budget_seconds <= 0
            if trainer.nimg >= config.kimg * 1000 or out_of_time:
                done = f"{trainer.nimg / 1000:.2f} kimg in {format_time(trainer.seconds)}"
                message = f"nothing to do: {done} are trained; a larger --kimg or --minutes continues"
            else:
                trainer.run(stop_reason)
                message = f"finished at {trainer.nimg / 1000:.2f} kimg after {format_time(trainer.seconds)}"
            code = 0
            display.message(f"{message}; everything is in {run_dir}")
    except TrainingStopped as error:
        code, message = error.exit_code, str(error)
        raise TrainingStopped(f"{error}; continue with: sg3 train --continue={run_dir}") from None
    except Sg3Error as error:
        code, message = error.exit_code, str(error)
        raise
    except KeyboardInterrupt:
        code, message = 130, "interrupted a second time, before the state was saved"
        raise
    except torch.cuda.OutOfMemoryError:
        code = 70
        smaller = max(config.batch_gpu // 2, 1)
        message = f"out of GPU memory with --batch-gpu={config.batch_gpu}; try --batch-gpu={smaller}"
        raise Sg3Error(message) from None
    finally:
        summary = {
            "exit_code": code, "message": message, "kimg": trainer.nimg / 1000 if trainer else 0,
            "started": began, "ended": time.time(),
        }  # fmt: skip
        with suppress(StorageError):  # it must not hide what it reports
            write_atomic(run_dir / "exit.json", lambda file: file.write(json.dumps(summary, indent=2).encode() + b"\n"))
    return run_dir


@contextmanager
def _locked(run_dir: Path) -> Iterator[None]:
    """Hold the run folder for this process; the system lets go of it however the process ends."""
    with open(run_dir / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{run_dir}: another process is training there; wait for it or stop it") from None
        yield


def _open_dataset(config: TrainConfig) -> ImageFolderDataset:
    facts = config.dataset
    dataset = ImageFolderDataset(
        facts.path, resolution=facts.resolution, max_size=config.subset, use_labels=config.cond, xflip=config.mirror,
        random_seed=config.seed,
    )  # fmt: skip
    if len(dataset) != facts.size or dataset.num_channels != facts.channels:
        raise DataError(
            f"{facts.path}: has changed since the run began, {len(dataset)} images of {dataset.num_channels} channels "
            f"instead of {facts.size} of {facts.channels}"
        )
    return dataset


def _write_options(config: TrainConfig, run_dir: Path) -> None:
    record = {
        "config": config.to_dict(),
        "command": sys.argv,
        "versions": {"sg3": sg3.__version__, "torch": torch.__version__, "python": sys.version.split()[0]},
    }
    write_atomic(run_dir / OPTIONS_FILE, lambda file: file.write(json.dumps(record, indent=2).encode() + b"\n"))


def _announce(config: TrainConfig, trainer: Trainer, run_dir: Path, device: torch.device, display: Display) -> None:
    from sg3.kernels.dispatch import describe
    from sg3.models.layers import count_parameters

    d = config.dataset
    label = f", {d.label_dim} labels" if config.cond else ""
    size = f"G {count_parameters(trainer.G):,} and D {count_parameters(trainer.D):,} parameters"
    display.message(f"{config.cfg} on {d.name}: {d.size} images, {d.resolution} x {d.resolution} x {d.channels}{label}")
    display.message(f"{size}, gamma {config.gamma:g}, batch {config.batch} on {device}, run folder {run_dir}")
    display.message(f"implementations: {describe(device)}")
    if d.has_labels and not config.cond:
        display.message("note: the dataset has labels, which are not used; --cond makes the run conditional")
    if trainer.nimg:
        display.message(f"continuing at {trainer.nimg / 1000:.2f} kimg")


def _create_run_dir(outdir: Path, config: TrainConfig) -> Path:
    """outdir/NNNNN-name with the next free number. Raises StorageError where it cannot be made."""
    try:
        outdir.mkdir(parents=True, exist_ok=True)
        while True:
            taken = [int(m[1]) for p in outdir.iterdir() if (m := re.match(r"(\d{5})(-|$)", p.name))]
            run_dir = outdir / f"{max(taken, default=-1) + 1:05d}-{config.run_name}"
            try:
                run_dir.mkdir()
                return run_dir
            except FileExistsError:  # another run took the number a moment ago
                if not run_dir.is_dir():
                    raise
    except OSError as error:
        raise StorageError(f"--outdir={outdir}: cannot create a run folder there: {error.strerror}") from error


def _find_run(run: str, outdir: Path | None) -> Path:
    if run != "latest":
        if not Path(run).is_dir():
            raise MissingInputError(f"--continue={run}: no such run folder")
        return Path(run)
    if outdir is None:
        raise UsageError("--continue=latest: needs --outdir, the folder that holds the runs")
    runs = sorted(p for p in outdir.glob("[0-9]" * 5 + "-*") if (p / OPTIONS_FILE).is_file())
    if not runs:
        raise MissingInputError(f"--continue=latest: {outdir} holds no run")
    return runs[-1]


@contextmanager
def _stop_signals() -> Iterator[Callable[[], str | None]]:
    """While active, the first SIGINT, SIGTERM or SIGUSR1 is noted for the loop; a second one acts as usual."""
    caught: list[str] = []
    signals = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]

    def note(number: int, _frame: FrameType | None) -> None:
        caught.append(signal.Signals(number).name)
        for each in signals:
            signal.signal(each, previous[each])

    previous: dict[signal.Signals, Any] = {each: signal.signal(each, note) for each in signals}
    try:
        yield lambda: caught[0] if caught else None
    finally:
        for each in signals:
            signal.signal(each, previous[each])
