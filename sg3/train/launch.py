"""Starting, continuing and ending a run: folders, devices, and what is left behind for whoever waits."""

from __future__ import annotations

import dataclasses
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import torch

from sg3._version import __version__
from sg3.atomic import write_json
from sg3.cpu_sharing import share_cpus
from sg3.durations import format_time_brief
from sg3.errors import DataError, TrainingStopped
from sg3.processes import World, join
from sg3.resources import loaders
from sg3.run_folder import LOG, OPTIONS, create, find_run, locked, read_options, remove_unfinished
from sg3.terminal import printable, say
from sg3.threads import leave_cpus_to_others
from sg3.train.callbacks import NO_CALLBACKS, Callbacks
from sg3.train.changes import apply_changes, require_same_run
from sg3.train.compiled import check_device
from sg3.train.config import TrainConfig
from sg3.train.consistency import check_consistency
from sg3.train.dataset import open_dataset, probe_dataset, render_builtin, with_holdout
from sg3.train.display import Display
from sg3.train.ending import Exit, report_failure
from sg3.train.evaluation import check_metrics, open_evaluation
from sg3.train.loop import Loop
from sg3.train.options import Options
from sg3.train.recipes import read_config, recipe_of, resolve
from sg3.train.state import load_state, require_space
from sg3.train.state_check import check_state
from sg3.train.stop import StopSignals, WaitInterruptedError
from sg3.train.summary import summarize
from sg3.train.trainer import Trainer
from sg3.train.transfer import matches, transfer_weights
from sg3.train.watchdog import Watchdog

RUN_DIR_FILE = "SG3_RUN_DIR_FILE"  # variable: where rank 0 writes the run folder's name, for the launcher
CHOSEN = "SG3_CHOSEN"  # variable: names of the options that the launcher has set, and not the user


def configure(options: Options, outdir: Path) -> TrainConfig:
    """Render and probe the dataset, and resolve the options; say which have no effect. Raises UsageError or what the
    dataset raises."""
    options = with_holdout(dataclasses.replace(options, data=render_builtin(options.data, outdir)))
    config = resolve(options, probe_dataset(options))
    for note in config.notes(options):
        say(f"note: {note}")
    return config


def preview(config: TrainConfig) -> list[str]:
    """What a run would begin with, a line each; feature networks are not downloaded for that. Raises what would keep
    it from beginning."""
    lines = [f"{name}: its weights would be downloaded" for name in check_metrics(config, look_only=True)]
    if config.resume is not None:
        G, D = recipe_of(config.cfg).build_networks(config, torch.device("cpu"))
        found, notes = matches(config.resume, {"G": G, "D": D}, config.resume_least)
        lines += [*(match.line(config.resume) for match in found), *notes]
    return lines


def start(options: Options, outdir: Path, callbacks: Callbacks = NO_CALLBACKS) -> Path:
    """Train in a new run folder under `outdir`; returns the folder. With several ranks, all of them call it."""
    world = join(options.device or "auto", options.gpus)

    def prepare() -> tuple[TrainConfig, list[str], Path]:
        config = configure(dataclasses.replace(options, gpus=world.size), outdir)
        check_metrics(config)
        check_device(config.compile, world.device)
        config = dataclasses.replace(config, chosen=tuple(filter(None, os.environ.get(CHOSEN, "").split(","))))
        notes = []
        if world.device.type == "cpu" and config.threads is None:
            most = torch.get_num_threads()
            config = dataclasses.replace(config, threads=leave_cpus_to_others())
            if config.threads != most:
                notes.append(f"threads: {config.threads} of {most}, as many CPUs can be had (--threads={most} insists)")
        run_dir = create(outdir, config.run_name)
        _write_options(config, options, run_dir)
        return config, notes, run_dir

    with closing(world):
        config, notes, run_dir = world.on_main(prepare, told_once=True)
        return _run(world, config, run_dir, True, notes, callbacks)


def continue_run(
    run: str, outdir: Path | None, changes: Options, callbacks: Callbacks = NO_CALLBACKS
) -> Path:
    """Go on with a run folder, or with the newest one under `outdir` if `run` is 'latest'."""
    config, _ = read_run(find_run(run, outdir))
    world = join(changes.device or config.device, changes.gpus)

    def prepare() -> tuple[TrainConfig, list[str], Path]:
        older: list[str] = []
        run_dir = find_run(run, outdir, lambda newer: older.append(f"passed over: {newer}, it has no training state"))
        config, _ = read_run(run_dir)
        gpus, workers = world.size if world.size != config.gpus or changes.gpus else None, changes.workers
        if gpus is not None and workers is None and "workers" in config.chosen:
            workers = loaders()
        changed, notes = apply_changes(config, dataclasses.replace(changes, gpus=gpus, workers=workers))
        if gpus is not None:
            changed = dataclasses.replace(changed, chosen=())
        if changed.gpus != config.gpus and changes.threads is None and config.threads is not None:
            changed = dataclasses.replace(changed, threads=torch.get_num_threads())  # those of each process
        check_metrics(changed)
        check_device(changed.compile, world.device)
        return changed, older + notes, run_dir

    with closing(world):
        config, notes, run_dir = world.on_main(prepare, told_once=True)
        return _run(world, config, run_dir, False, notes, callbacks)


def read_run(run_dir: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """The configuration of a run folder and all of its training_options.json. Raises MissingInputError, DataError."""
    record = read_options(run_dir)
    try:
        return read_config(record["config"]), record
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        cause = printable(f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else error, limit=200)
        raise DataError(f"{run_dir / OPTIONS}: not written by this version of sg3 ({cause})") from error


def _run(
    world: World, config: TrainConfig, run_dir: Path, is_new: bool, notes: list[str], callbacks: Callbacks
) -> Path:
    """Set up, train, and leave an exit.json that says how it ended."""
    with ExitStack() as stack:
        world.on_main(lambda: stack.enter_context(locked(run_dir)), told_once=True)
        exit_file = Exit(run_dir, is_new)
        if world.is_main:
            exit_file.clear()
            if report := os.environ.get(RUN_DIR_FILE):
                Path(report).write_text(str(run_dir))  # whose exit.json is of this life by now
        watchdog = Watchdog(world, config.timeout, exit_file.leave)
        stop = stack.enter_context(StopSignals(world))  # to the end: a launcher sends SIGTERM when another rank fails
        try:
            code, kimg, message = _train(world, watchdog, stop, config, run_dir, is_new, notes, callbacks)
            if world.is_main:
                exit_file.leave(code, message, kimg)
            world.gather(None)  # end together: others still look into rank 0's store
        except BaseException as error:
            report_failure(error, world, watchdog, config, exit_file, run_dir)
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
    callbacks: Callbacks,
) -> tuple[int, float, str]:
    """Returns the exit code, how many kimg are trained and the last message. Errors carry `kimg` where training had
    begun."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if world.device.type == "cpu":
        share_cpus()
    torch.backends.cudnn.benchmark = not config.nobench
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.tf32
    display = Display(run_dir / LOG, quiet=not world.is_main)
    with display:
        display.note(f"{'started' if is_new else 'continued'} by process {os.getpid()} on {socket.gethostname()}, "
                     f"sg3 {__version__}, torch {torch.__version__}: {shlex.join(sys.argv)}")
        with _ending_at_once(stop, is_new, run_dir), display.doing("starting"):
            trainer = _set_up(world, watchdog, config, run_dir, is_new, notes, display)
            evaluation = open_evaluation(config, run_dir, world, display, trainer.nimg)
            loop = Loop(trainer, run_dir, display, evaluation, callbacks)
        code = 0
        try:
            if not is_new:
                loop.catch_up(stop)
            if world.as_main(trainer.is_over)[0]:
                done = f"{trainer.nimg / 1000:.2f} kimg in {format_time_brief(trainer.seconds)}"
                message = f"nothing to do: {done} are trained; a larger --kimg or --minutes continues"
            else:
                loop.run(stop)
                took = f"at {trainer.nimg / 1000:.2f} kimg after {format_time_brief(trainer.seconds)}"
                message = f"finished {took}"
                if not world.as_main(trainer.is_over)[0]:
                    code, message = TrainingStopped.exit_code, f"{loop.telling.asked}: stopped {took}"
            display.message(f"{message}; everything is in {run_dir}")
            if display.failed is not None:
                raise display.failed
        except BaseException as error:
            error.kimg = trainer.nimg / 1000  # type: ignore[attr-defined]
            raise
    return code, trainer.nimg / 1000, message


@contextmanager
def _ending_at_once(stop: StopSignals, is_new: bool, run_dir: Path) -> Iterator[None]:
    """Inside, where nothing is trained yet that had to be saved, a process alone obeys a signal as it comes."""
    try:
        with stop.waiting():
            yield
    except WaitInterruptedError:
        reason = stop.reason(0)
        if is_new:
            raise KeyboardInterrupt(f"{reason}: stopped before training began") from None
        raise TrainingStopped(f"{reason}: stopped before training went on; the state is in {run_dir}") from None


def _set_up(
    world: World,
    watchdog: Watchdog,
    config: TrainConfig,
    run_dir: Path,
    is_new: bool,
    notes: list[str],
    display: Display,
) -> Trainer:
    """The trainer at the run's beginning, or where it had come to."""
    dataset = open_dataset(config)
    trainer = Trainer(config, dataset, world, watchdog)
    if is_new:
        require_space(run_dir, summarize(config).state_bytes)
        if config.resume is not None:
            for line in transfer_weights(config.resume, trainer.networks, config.resume_least):
                display.message(line)
    else:
        if world.is_main:
            remove_unfinished(run_dir)
        state = load_state(run_dir, display.message)
        require_same_run(state.get("config"), config, str(run_dir))
        check_state(state, trainer.state_dict(), trainer.optimizers, str(run_dir))
        trainer.load_state_dict(state)
        if world.is_main and read_run(run_dir)[0] != config:
            _keep_changes(config, run_dir)
    check_consistency(world, trainer.networks)
    _announce(config, trainer, run_dir, display)
    for line in notes:
        display.message(line)
    return trainer


def _write_options(config: TrainConfig, options: Options, run_dir: Path) -> None:
    record = {
        # what --config=training_options.json takes up, for another machine, too
        "options": {name: value for name, value in options.said().items() if name not in config.chosen},
        "config": config.to_dict(),
        "command": sys.argv,
        "versions": {"sg3": __version__, "torch": torch.__version__, "python": sys.version.split()[0]},
    }
    write_json(run_dir / OPTIONS, record)


def _keep_changes(config: TrainConfig, run_dir: Path) -> None:
    """What was changed on continuing stays so when the run continues again. The options remain those of its start."""
    record = {**read_run(run_dir)[1], "config": config.to_dict()}
    write_json(run_dir / OPTIONS, record)


def never_called(G: torch.nn.Module) -> set[str]:
    """The ops that training this generator has no use for: only StyleGAN3's layers call them."""
    from sg3.models import stylegan3

    return set() if isinstance(G, stylegan3.Generator) else {"filtered_lrelu", "modulated_conv2d", "modulation"}


def _announce(config: TrainConfig, trainer: Trainer, run_dir: Path, display: Display) -> None:
    from sg3.canvas import spelled
    from sg3.kernels.dispatch import describe
    from sg3.models.augment import SPECS
    from sg3.models.layers import count_parameters

    d = config.dataset
    label = f", {d.label_dim} labels" if config.cond else ""
    size = f"G {count_parameters(trainer.G):,} and D {count_parameters(trainer.D):,} parameters"
    display.message(f"{config.cfg} on {d.name}: {d.size} images, {spelled(d.image_size)} x {d.channels}{label}")
    device, ranks = trainer.device, trainer.world.size
    where = f"{ranks} x {device.type}" if ranks > 1 else str(device)
    numbers = ", ".join(f"{name} {value}" for name, value in {**config.highlights, "batch": config.batch}.items())
    display.message(f"{size}, {numbers} on {where}, run folder {run_dir}")
    display.message(f"implementations: {describe(device, never_called(trainer.G))}")
    if d.visible is not None:
        display.message(f"note: images of {spelled(d.visible)} between bars, which pictures and metrics leave out")
    if not d.is_square and config.aug != "noaug" and SPECS[config.augpipe].get("rotate90"):
        display.message("note: images that are not square are turned by 180 degrees, never by 90, in augmentation")
    if d.has_labels and not config.cond:
        display.message("note: the dataset has labels, which are not used; --cond makes the run conditional")
    if trainer.nimg:
        display.message(f"continuing at {trainer.nimg / 1000:.2f} kimg")
