"""A run's folder: what the files in it are called, and what is done to the folder as a whole.

    training_options.json            what was asked for and what came of it; it makes a folder a run
    log.txt, stats.jsonl             what was shown, and the statistics, a line per tick
    reals.png, fakes*.png            image grids: real images, what G made before training and at every snapshot
    network-snapshot-{kimg}.pkl      the networks; .safetensors if their images are no squares of 2^n
    power-ema-{nimg}.pt              averages of G, from which `sg3 ema` makes others (--posthoc-ema)
    training-state-{nimg}.pt         everything that a run needs to go on, with its checksum in ....pt.sha256
    metric-NAME.jsonl, best.json     results of a metric, a line per snapshot; the best snapshot by each metric
    exit.json                        how the last life of the run ended
    logged.json                      how much of it --log-to has passed on, and where to
    failure-{nimg}.json, trace.json  what a numerical breakdown and --profile leave

The first ones have the original's names. This is the only module that spells them; what the files contain is the
business of those who write them. No torch in here.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sg3 import limits
from sg3.atomic import write_atomic
from sg3.errors import DataError, MissingInputError, StorageError, UsageError
from sg3.named_paths import Kind, nothing_at, to_read
from sg3.plain_files import open_plain, refuse_special
from sg3.portable import lock_for_this_process

OPTIONS = "training_options.json"
LOG = "log.txt"
STATS = "stats.jsonl"
REALS = "reals.png"
FAKES_INIT = "fakes_init.png"
BEST = "best.json"
EXIT = "exit.json"
LOGGED = "logged.json"
TRACE = "trace.json"
LOCK = ".lock"
SNAPSHOTS = "network-snapshot-*.pkl"
RECTANGULAR = "network-snapshot-*.safetensors"  # .pkl files have no place for these networks
STATES = "training-state-*.pt"
METRICS = "metric-*.jsonl"
AVERAGES = "power-ema-*.pt"
# What there may be before the first training state.
BEGINNINGS = (OPTIONS, LOG, STATS, REALS, FAKES_INIT, EXIT, LOGGED, TRACE, LOCK, "events.out.tfevents.*")


# ---- names ----------------------------------------------------------------------------------------------------------


def fakes_path(folder: Path, nimg: int) -> Path:
    """The image grid after `nimg` images."""
    return folder / f"fakes{nimg // 1000:06d}.png"


def fakes(folder: Path) -> dict[int, Path]:
    """Its image grids by thousands of images, but for that before training."""
    found = ((re.fullmatch(r"fakes(\d{6,18})\.png", path.name), path) for path in folder.iterdir())
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def snapshot_path(folder: Path, nimg: int, is_plain: bool = True) -> Path:
    """The networks, for squares of a power of two or other images, after `nimg` images."""
    return folder / (SNAPSHOTS if is_plain else RECTANGULAR).replace("*", f"{nimg // 1000:06d}")


def kimg_of(snapshot: object) -> int | None:
    """Thousands of images from the name of a snapshot; None if it says nothing, or is no name."""
    text = snapshot if isinstance(snapshot, str) else ""
    found = re.search(SNAPSHOTS.removesuffix("*.pkl") + r"(\d{1,18})", text)
    return int(found[1]) if found else None


def state_path(folder: Path, nimg: int) -> Path:
    """The training state after `nimg` images."""
    return folder / STATES.replace("*", f"{nimg:010d}")


def averages_path(folder: Path, nimg: int) -> Path:
    """Averages of G's weights after `nimg` images."""
    return folder / AVERAGES.replace("*", f"{nimg:010d}")


def digest_path(state: Path) -> Path:
    """The checksum of a training state."""
    return state.with_name(state.name + ".sha256")


def unverified_path(state: Path) -> Path:
    """Where a training state is written, until it has been read back."""
    return state.with_name(state.name + ".new")


def metric_path(folder: Path, metric: str) -> Path:
    """The results of a metric."""
    return folder / METRICS.replace("*", metric)


def failure_path(folder: Path, nimg: int) -> Path:
    """What is known of a numerical breakdown after `nimg` images."""
    return folder / f"failure-{nimg:010d}.json"


# ---- finding --------------------------------------------------------------------------------------------------------


def is_run(folder: Path) -> bool:
    """Whether a run was started in this folder."""
    return (folder / OPTIONS).is_file()


def find_run(run: str, outdir: Path | None, passed_over: Callable[[Path], object] = lambda _: None) -> Path:
    """The run folder named, or for 'latest' the newest under `outdir` that has a training state.

    `passed_over` gets the newer ones, which have none. Raises MissingInputError, UsageError.
    """
    if run != "latest":
        folder = to_read(run, Kind.FOLDER, "--continue")
        if not folder.is_dir():
            raise nothing_at(folder, Kind.FOLDER, "--continue")
        return folder
    if outdir is None:
        raise UsageError("--continue=latest: needs --outdir, the folder that holds the runs")
    runs = _runs_in(outdir)
    if not runs:
        raise MissingInputError(f"--continue=latest: {outdir} holds no run")
    for folder in runs:
        if states(folder):
            return folder
        passed_over(folder)
    raise MissingInputError(f"--continue=latest: no run in {outdir} has a training state to go on from")


def _runs_in(folder: Path) -> list[Path]:
    """The runs begun in a folder, the newest first."""
    return sorted((path for path in folder.glob("[0-9]" * 5 + "-*") if is_run(path)), reverse=True)


def snapshots(folder: Path) -> list[Path]:
    """Its network-snapshot-N, by their numbers: file times do not survive copying."""
    name = re.compile("|".join((re.escape(SNAPSHOTS), re.escape(RECTANGULAR))).replace(r"\*", r"(\d+)"))
    numbered = [(int(found[1] or found[2]), path) for path in folder.iterdir() if (found := name.fullmatch(path.name))]
    return [path for _, path in sorted(numbered)]


def newest_snapshot(folder: Path) -> Path:
    """Raises MissingInputError if there is none, with the newest run that has some where the folder holds runs."""
    paths = snapshots(folder)
    if paths:
        return paths[-1]
    runs = [run for run in _runs_in(folder) if snapshots(run)]
    meant = f"one of the runs in it, such as {runs[0]}" if runs else "a run folder, which has some, or a network file"
    raise MissingInputError(f"{folder}: holds no {SNAPSHOTS}; name {meant}")


def going_on(snapshot: Path) -> str | None:
    """What to say of a run's newest snapshot where the run has gone on since: a stopped run saves a state only."""
    kimg, saved = kimg_of(snapshot.name), saved_kimg(snapshot.parent)
    if kimg is None or saved is None or saved < kimg + 1:
        return None
    return f"the run went on to {saved:.2f} kimg; this network, its newest, is of {kimg} kimg"


def saved_kimg(folder: Path) -> float | None:
    """Thousands of images that the run had seen at its newest training state; None if it has none."""
    found = [int(match[1]) for path in states(folder)
             if path.is_file() and (match := re.search(r"-(\d{1,18})\.pt$", path.name))]  # fmt: skip
    return max(found) / 1000 if found else None


def states(folder: Path) -> list[Path]:
    """Its training states, the newest first."""
    return sorted(folder.glob(STATES), reverse=True)


def averages(folder: Path) -> list[Path]:
    """Its averages of G's weights, the oldest first."""
    return sorted(folder.glob(AVERAGES))


def drop_averages_after(folder: Path, nimg: int) -> None:
    """Remove those that a longer life of the run has left, which continues from `nimg` images."""
    for path in averages(folder):
        if path > averages_path(folder, nimg):
            path.unlink(missing_ok=True)


def metric_names(folder: Path) -> list[str]:
    """Names of the metrics that it has results of."""
    before, after = METRICS.split("*")
    return sorted(path.name.removeprefix(before).removesuffix(after) for path in folder.glob(METRICS))


# ---- reading and adding ---------------------------------------------------------------------------------------------


def read_options(folder: Path) -> dict[str, Any]:
    """All of its training_options.json. Raises MissingInputError if it is no run, DataError if the file is damaged."""
    try:
        return read_object(folder / OPTIONS)
    except FileNotFoundError:
        runs = _runs_in(folder)
        meant = f"; name one of the runs in it, such as {runs[0]}" if runs else ""
        raise MissingInputError(f"{folder}: is not a run folder, it has no {OPTIONS}{meant}") from None


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object. Raises FileNotFoundError, DataError."""
    try:
        content = limits.parse_shallow(_read_all(path))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise DataError(f"{path}: is not a JSON object; the run is damaged")
    return content


def read_lines(path: Path, newest_first: bool = False, most: int | None = None) -> Iterator[dict[str, Any]]:
    """The objects in a .jsonl file, but for lines that a crash has cut off. None without the file. `most`: of more
    lines, so many that are spread evenly, with the last one; the others are not parsed."""
    lines = _read_all(path).decode(errors="replace").splitlines() if path.is_file() else []
    if most is not None and len(lines) > most:
        while lines and _parse(lines[-1]) is None:
            lines.pop()
        step = max(1, -(-len(lines) // most))
        lines = lines[(len(lines) - 1) % step :: step]
    for line in reversed(lines) if newest_first else lines:
        if (entry := _parse(line)) is not None:
            yield entry


def _parse(line: str) -> dict[str, Any] | None:
    try:
        entry = limits.parse_shallow(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _read_all(path: Path) -> bytes:
    """Raises FileNotFoundError, DataError, StorageError."""
    try:
        refuse_special(path)
        if path.stat().st_size > limits.RUN_FILE:
            raise DataError(f"{path}: has more than {limits.RUN_FILE >> 20} MiB, which no run writes there")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error


def append_line(path: Path, line: str) -> None:
    """Add a line to a .jsonl file. Raises StorageError if it cannot be written."""
    line += "\n"
    try:
        with path.open("a+b") as file:
            if file.tell() > 0:  # a line that a crash cut off must not swallow this one
                file.seek(-1, 2)
                line = line if file.read(1) == b"\n" else "\n" + line
            file.write(line.encode())
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror or error}") from error


# ---- creating and locking -------------------------------------------------------------------------------------------


def create(outdir: Path, name: str) -> Path:
    """outdir/NNNNN-name with the next free number. Raises StorageError where it cannot be made."""
    try:
        outdir.mkdir(parents=True, exist_ok=True)
        while True:
            taken = [int(m[1]) for p in outdir.iterdir() if (m := re.match(r"(\d{5})(-|$)", p.name))]
            folder = outdir / f"{max(taken, default=-1) + 1:05d}-{name}"
            try:
                folder.mkdir()
                return folder
            except FileExistsError:  # another run took the number a moment ago
                if not folder.is_dir():
                    raise
    except OSError as error:
        raise StorageError(f"--outdir={outdir}: cannot create a run folder there: {error.strerror}") from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the system lets go of it however the process ends. Raises UsageError where
    another one does, DataError where the run's files are none, and whoever opens them would wait."""
    for path in sorted(folder.iterdir()):
        refuse_special(path, advice="; remove it")
    try:
        opened = open_plain(folder / LOCK, "a+")
    except OSError as error:
        raise StorageError(f"{folder / LOCK}: {error.strerror or error}") from error
    with opened as file:
        if not lock_for_this_process(file):
            file.seek(0)
            who = file.read(200).decode("utf8", "replace").strip() or "process unknown"
            raise UsageError(f"{folder}: another process is training there ({who}); wait for it or stop it")
        with suppress(OSError):
            os.truncate(file.fileno(), 0)
            os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield


# ---- trimming -------------------------------------------------------------------------------------------------------


def keep_lines(path: Path, is_kept: Callable[[dict[str, Any]], bool]) -> None:
    """Drop the other lines of a .jsonl file, and what a crash has cut off."""
    if not path.exists():
        return
    lines = path.read_text(errors="replace").splitlines(keepends=True)
    whole = [(line, _parse(line)) for line in lines if line.endswith("\n")]
    kept = [line for line, entry in whole if entry is not None and is_kept(entry)]
    if kept != lines:
        write_atomic(path, lambda file: file.write("".join(kept).encode()))


def drop_snapshots(folder: Path, keep: int, besides: Collection[str]) -> None:
    """Remove network snapshots but the newest `keep`, one at least, and those of the names `besides`."""
    for path in snapshots(folder)[:-keep]:
        if path.name not in besides:
            path.unlink(missing_ok=True)


def discard(folder: Path) -> None:
    """Remove what a run that has not got anywhere has written, and the folder unless it holds something else."""
    for pattern in (*BEGINNINGS, ".*.tmp"):
        for path in folder.glob(pattern):
            with suppress(OSError):
                path.unlink()
    with suppress(OSError):
        folder.rmdir()


def remove_unfinished(folder: Path) -> None:
    """Remove what a process that was killed while it wrote a state or a snapshot has left. Nobody else may write."""
    for pattern in (f".{STATES}*.tmp", f"{STATES}.new", f".{SNAPSHOTS}.*.tmp", f".{RECTANGULAR}.*.tmp"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
    for path in folder.glob(f"{STATES}.sha256"):
        if not path.with_suffix("").exists():
            path.unlink(missing_ok=True)
