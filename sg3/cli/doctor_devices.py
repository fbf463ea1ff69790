"""What `sg3 doctor` says of the devices: what runs each op on them, and whether Triton's kernels compile and launch."""

from __future__ import annotations

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

from sg3 import resources

if TYPE_CHECKING:
    import torch

TRIAL_KERNEL = Path(__file__).parents[1] / "kernels" / "triton_self_test.py"
TRIAL_STUB = "#include <Python.h>\nint sg3_trial(void) { return PY_VERSION_HEX; }\n"

# On a CPU, beside what threads run that share each operation (sg3/side_by_side.py, sg3/train/sharing.py).
ALONE = "in threads that take whole batches (generate, video, metrics) and in processes of one thread (train)"


@dataclass(frozen=True)
class Row:
    """One line of the report: a name, what a person reads, what a machine reads."""

    name: str
    text: str
    facts: dict[str, Any] = field(default_factory=dict)


def device_rows(notes: list[str]) -> list[Row]:
    import torch

    model, memory, threads = _cpu_model(), resources.memory(), torch.get_num_threads()
    cores = os.cpu_count() or 1
    usable = resources.usable_cpus()
    text = f"{model}, {usable} of {cores} logical cores, {threads} PyTorch threads"
    facts = {"model": model, "cores": cores, "usable_cores": usable, "threads": threads}
    if memory is not None:
        text += f", {bytes_in_words(memory[0])} memory, {bytes_in_words(memory[1])} free"
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
                                         f"{bytes_in_words(gpu.total_memory)} memory, driver {driver or 'unknown'}",
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
    ok, text = in_own_process(query, seconds=20)
    return text.split()[0] if ok and text.strip() else None


def implementation_rows(notes: list[str]) -> list[Row]:
    """What runs each op on each device, and on a CPU besides, where each thread has work of its own, or a process one
    thread."""
    import torch

    threads, rows = torch.get_num_threads(), []
    for device in _torch_devices():
        answers = _answers(device, notes)
        rows += _rows_of(device, answers)
        if device.type == "cpu" and threads > 1:
            torch.set_num_threads(1)
            try:
                alone = _answers(device, notes)
            finally:
                torch.set_num_threads(threads)
            others = {op: answer for op, answer in alone.items() if answer != answers[op]}
            rows += [Row(row.name, f"{row.text}, {ALONE}",
                         {op: {**_facts(answers[op]), "on_one_thread": facts} for op, facts in row.facts.items()})
                     for row in _rows_of(device, others)]
    return rows


def _answers(device: torch.device, notes: list[str]) -> dict[str, tuple[str | None, str]]:
    """Op -> what runs it, None for nothing, and why."""
    from sg3.kernels.dispatch import IMPLEMENTATIONS, ImplUnavailableError, UnknownImplError, explain

    answers: dict[str, tuple[str | None, str]] = {}
    for op in IMPLEMENTATIONS:
        try:
            answers[op] = explain(op, device)
        except (ImplUnavailableError, UnknownImplError) as error:
            answers[op] = (None, str(error).removeprefix(f"{op}: "))
            if answers[op][1] not in notes:
                notes.append(answers[op][1])
    return answers


def _rows_of(device: torch.device, answers: dict[str, tuple[str | None, str]]) -> list[Row]:
    """A row for each answer that some ops share."""
    from sg3.kernels.dispatch import IMPLEMENTATIONS

    rows = []
    for answer in dict.fromkeys(answers.values()):
        ops = [op for op in answers if answers[op] == answer]
        names = "every op" if len(ops) == len(IMPLEMENTATIONS) else ", ".join(ops)
        rows.append(Row(str(device), f"{answer[0] or 'nothing'} for {names}: {answer[1]}",
                        {op: _facts(answer) for op in ops}))
    return rows


def _facts(answer: tuple[str | None, str]) -> dict[str, str | None]:
    return {"impl": answer[0], "reason": answer[1]}


def _torch_devices() -> list[torch.device]:
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.device("cpu"), *(torch.device("cuda", index) for index in range(gpus))]


def distributed_rows(notes: list[str]) -> list[Row]:
    from sg3.processes import backends

    have = backends()
    if not have["gloo"]:
        notes.append("this build of PyTorch has no gloo: no training in several processes on the CPU")
    return [Row(name, "available" if yes else "not in this build of PyTorch", {"available": yes})
            for name, yes in have.items()]


def triton_rows(notes: list[str]) -> list[Row]:
    import torch

    from sg3.kernels import dispatch, toolchain

    devices = _torch_devices()
    verdicts = {str(device): dispatch.triton_status(device) for device in devices}
    rows = [Row(name, ("kernels run: " if status.usable else "no kernels: ") + status.reason,
                {"usable": status.usable, "reason": status.reason, "fix": status.fix})
            for name, status in verdicts.items()]
    if not sys.platform.startswith("linux") or installed("triton") is None:
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
            ok, text = in_own_process(words, seconds=300, environ=variables)  # a first call of Zig takes long
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


def in_own_process(
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


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def bytes_in_words(count: int) -> str:
    for unit, step in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count / 1024:.0f} KiB"
