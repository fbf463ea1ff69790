"""Starting, continuing and ending a run: folders, devices, and what is left behind for whoever waits."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import torch

import sg3
from sg3.data.dataset import ImageFolderDataset
from sg3.durations import format_time_brief
from sg3.errors import (
    DataError,
    MissingInputError,
    NumericalError,
    Sg3Error,
    StorageError,
    TrainingStopped,
    UsageError,
)
from sg3.formats import OPTIONS_FILE
from sg3.formats.atomic import write_json
from sg3.train.changes import apply_changes, require_same_run
from sg3.train.compiled import as_user_error, check_device
from sg3.train.config import DatasetFacts, Options, TrainConfig, resolve
from sg3.train.display import Display
from sg3.train.distributed import World, check_consistency, join
from sg3.train.evaluate import check_metrics, open_evaluation
from sg3.train.loop import Loop
from sg3.train.state import load_state, remove_unfinished, require_space
from sg3.train.stop import StopSignals
from sg3.train.summary import summarize
from sg3.train.trainer import Trainer
from sg3.train.transfer import transfer_weights
from sg3.train.watchdog import Watchdog

RUN_DIR_FILE = "SG3_RUN_DIR_FILE"  # variable: where rank 0 writes the run folder's name, for the launcher


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
    from sg3.data.openmoji import ATTRIBUTION
    from sg3.data.prepare import prepare_openmoji

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
        content=data.content_hash(),
    )  # fmt: skip


def configure(options: Options, outdir: Path) -> TrainConfig:
    """Render and probe the dataset, and resolve the options. Raises UsageError or what the dataset raises."""
    options = dataclasses.replace(options, data=render_builtin(options.data, outdir))
    config = resolve(options, probe_dataset(options))
    check_metrics(config)
    return config


def start(options: Options, outdir: Path) -> Path:
    """Train in a new run folder under `outdir`; returns the folder. With several ranks, all of them call it."""
    world = join(options.device or "auto", options.gpus)

    def prepare() -> tuple[TrainConfig, Path]:
        config = configure(dataclasses.replace(options, gpus=world.size), outdir)
        check_device(config.compile, world.device)
        run_dir = _create_run_dir(outdir, config)
        _write_options(config, options, run_dir)
        return config, run_dir

    with closing(world):
        config, run_dir = world.on_main(prepare)
        return _run(world, config, run_dir, is_new=True, notes=[])


def continue_run(run: str, outdir: Path | None, changes: Options) -> Path:
    """Go on with a run folder, or with the newest one under `outdir` if `run` is 'latest'."""
    config, _ = read_run(find_run(run, outdir))
    world = join(changes.device or config.device, changes.gpus)

    def prepare() -> tuple[TrainConfig, list[str], Path]:
        run_dir = find_run(run, outdir)
        config, _ = read_run(run_dir)
        gpus = world.size if world.size != config.gpus or changes.gpus else None
        changed, notes = apply_changes(config, dataclasses.replace(changes, gpus=gpus))
        check_metrics(changed)
        check_device(changed.compile, world.device)
        return changed, notes, run_dir

    with closing(world):
        config, notes, run_dir = world.on_main(prepare)
        return _run(world, config, run_dir, is_new=False, notes=notes)


def read_run(run_dir: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """The configuration of a run folder and all of its training_options.json. Raises MissingInputError, DataError."""
    try:
        record = json.loads((run_dir / OPTIONS_FILE).read_text())
        return TrainConfig.from_dict(record["config"]), record
    except FileNotFoundError:
        raise MissingInputError(f"{run_dir}: is no run folder (it has no {OPTIONS_FILE})") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{run_dir / OPTIONS_FILE}: not written by this version of sg3 ({error})") from error


def _run(world: World, config: TrainConfig, run_dir: Path, is_new: bool, notes: list[str]) -> Path:
    """Set up, train, and leave an exit.json that says how it ended."""
    with ExitStack() as stack:
        world.on_main(lambda: stack.enter_context(_locked(run_dir)))
        began = time.time()

        def leave(code: int, message: str, kimg: float | None = None) -> None:
            summary = {"exit_code": code, "message": message, "kimg": kimg, "started": began, "ended": time.time()}
            with suppress(StorageError):  # it must not hide what it reports
                write_json(run_dir / "exit.json", summary)

        if world.is_main:
            (run_dir / "exit.json").unlink(missing_ok=True)  # of an earlier life
            if report := os.environ.get(RUN_DIR_FILE):
                Path(report).write_text(str(run_dir))  # from now on what is there is of this life
        watchdog = Watchdog(world, config.timeout, leave)
        stop = stack.enter_context(StopSignals(world))  # to the end: a launcher sends SIGTERM when another rank fails
        try:
            kimg, message = _train(world, watchdog, stop, config, run_dir, is_new, notes)
            if world.is_main:
                leave(0, message, kimg)
            world.gather(None)  # end together: others still look into rank 0's store
        except BaseException as error:
            _report_failure(error, world, watchdog, config, run_dir, leave)
            raise  # not reached: something was raised above
        finally:
            watchdog.end()
    return run_dir


def _train(
    world: World,
    watchdog: Watchdog,
    stop: StopSignals,
    config: TrainConfig,
    run_dir: Path,
    is_new: bool,
    notes: list[str],
) -> tuple[float, str]:
    """Returns how many kimg are trained and the last message. Errors carry `kimg` where training had begun."""
    torch.backends.cudnn.benchmark = not config.nobench
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.tf32
    display = Display(run_dir / "log.txt", config.kimg * 1000, quiet=not world.is_main)
    with display:
        dataset = _open_dataset(config)
        trainer = Trainer(config, dataset, world, watchdog)
        if is_new:
            require_space(run_dir, summarize(config).state_bytes)
            if config.resume is not None:
                for line in transfer_weights(config.resume, trainer.networks):
                    display.message(line)
        else:
            if world.is_main:
                remove_unfinished(run_dir)
            state = load_state(run_dir, display.message)
            require_same_run(state["config"], config, str(run_dir))
            trainer.load_state_dict(state)
            if notes and world.is_main:
                _keep_changes(config, run_dir)
        check_consistency(world, trainer.networks)
        _announce(config, trainer, run_dir, display)
        for line in notes:
            display.message(line)
        if config.minutes is not None:
            display.budget_seconds = config.minutes * 60 - trainer.seconds
        out_of_time = display.budget_seconds is not None and display.budget_seconds <= 0
        try:
            if trainer.nimg >= config.kimg * 1000 or out_of_time:
                done = f"{trainer.nimg / 1000:.2f} kimg in {format_time_brief(trainer.seconds)}"
                message = f"nothing to do: {done} are trained; a larger --kimg or --minutes continues"
            else:
                evaluation = open_evaluation(config, run_dir, world, display, trainer.nimg)
                Loop(trainer, run_dir, display, evaluation).run(stop)
                message = f"finished at {trainer.nimg / 1000:.2f} kimg after {format_time_brief(trainer.seconds)}"
        except BaseException as error:
            error.kimg = trainer.nimg / 1000  # type: ignore[attr-defined]
            raise
        display.message(f"{message}; everything is in {run_dir}")
    return trainer.nimg / 1000, message


def _report_failure(
    error: BaseException, world: World, watchdog: Watchdog, config: TrainConfig, run_dir: Path,
    leave: Callable[[int, str, float | None], None],
) -> NoReturn:  # fmt: skip
    """Leave exit.json, tell the other ranks, and raise what the user should see, once for all ranks."""
    kimg = getattr(error, "kimg", 0)
    shown: BaseException = error
    if isinstance(error, TrainingStopped):
        shown = TrainingStopped(f"{error}; continue with: sg3 train --continue={run_dir}")
    elif isinstance(error, KeyboardInterrupt):
        leave(130, "interrupted a second time, before the state was saved", kimg)
        raise error
    elif isinstance(error, torch.cuda.OutOfMemoryError):
        smaller = max(config.batch_gpu // 2, 1)
        shown = Sg3Error(f"out of GPU memory with --batch-gpu={config.batch_gpu}; try --batch-gpu={smaller}")
    elif isinstance(error, OSError):
        shown = StorageError(f"{error.filename or run_dir}: {error.strerror or error}")
    elif config.compile != "off" and (said := as_user_error(error)) is not None:
        shown = said
    elif isinstance(error, RuntimeError) and world.size > 1:
        time.sleep(3)  # a rank that is gone breaks the others' connections; the watchdog will name it and end this one
        if any(word in str(error) for word in ("gloo", "NCCL", "c10d")):  # it was on another machine
            cause = str(error).splitlines()[0]
            shown = Sg3Error(f"lost the connection to another rank ({cause}); continue from the last state")
    code = getattr(shown, "exit_code", 70)
    if world.is_main:
        leave(code, str(shown), kimg)
    if isinstance(error, (TrainingStopped, NumericalError)):  # raised by all ranks together
        # A launcher ends all processes as soon as one has, and rank 0 may still be writing.
        try:
            world.gather(None)
        except RuntimeError:
            time.sleep(3)  # as above
        if not world.is_main:
            raise SystemExit(code)
    elif not watchdog.fail(code, str(shown)):
        raise SystemExit(code)  # another rank says why
    raise shown from None


@contextmanager
def _locked(run_dir: Path) -> Iterator[None]:
    """Hold the run folder for this process; the system lets go of it however the process ends."""
    with open(run_dir / ".lock", "a+") as file:
        try:
            # This process's own: flock's would pass on to the loader's processes, which outlive it by seconds.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            who = file.read().strip() or "process unknown"
            raise UsageError(f"{run_dir}: another process is training there ({who}); wait for it or stop it") from None
        with suppress(OSError):
            os.truncate(file.fileno(), 0)
            os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield


def _open_dataset(config: TrainConfig) -> ImageFolderDataset:
    facts = config.dataset
    dataset = ImageFolderDataset(
        facts.path, resolution=facts.resolution, max_size=config.subset, use_labels=config.cond, xflip=config.mirror,
        random_seed=config.seed,
    )  # fmt: skip
    found = (len(dataset), dataset.num_channels)
    if found != (facts.size, facts.channels):
        raise DataError(
            f"{facts.path}: has changed since the run began, {found[0]} images of {found[1]} channels instead of "
            f"{facts.size} of {facts.channels}; give the old one with --data, or start a new run"
        )
    if dataset.content_hash() != facts.content:
        raise DataError(
            f"{facts.path}: has changed since the run began, other images or labels under the same names; give the old "
            "one with --data, or start a new run"
        )
    return dataset


def _write_options(config: TrainConfig, options: Options, run_dir: Path) -> None:
    record = {
        "options": options.said(),  # what --config=training_options.json takes up
        "config": config.to_dict(),
        "command": sys.argv,
        "versions": {"sg3": sg3.__version__, "torch": torch.__version__, "python": sys.version.split()[0]},
    }
    write_json(run_dir / OPTIONS_FILE, record)


def _keep_changes(config: TrainConfig, run_dir: Path) -> None:
    """What was changed on continuing stays so when the run continues again. The options remain those of its start."""
    record = {**read_run(run_dir)[1], "config": config.to_dict()}
    write_json(run_dir / OPTIONS_FILE, record)


def _announce(config: TrainConfig, trainer: Trainer, run_dir: Path, display: Display) -> None:
    from sg3.kernels.dispatch import describe
    from sg3.models.layers import count_parameters

    d = config.dataset
    label = f", {d.label_dim} labels" if config.cond else ""
    size = f"G {count_parameters(trainer.G):,} and D {count_parameters(trainer.D):,} parameters"
    display.message(f"{config.cfg} on {d.name}: {d.size} images, {d.resolution} x {d.resolution} x {d.channels}{label}")
    device, ranks = trainer.device, trainer.world.size
    where = f"{ranks} x {device.type}" if ranks > 1 else str(device)
    display.message(f"{size}, gamma {config.gamma:g}, batch {config.batch} on {where}, run folder {run_dir}")
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


def find_run(run: str, outdir: Path | None) -> Path:
    """The run folder named, or for 'latest' the newest under `outdir`. Raises MissingInputError, UsageError."""
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
