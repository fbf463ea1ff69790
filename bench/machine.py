"""What a result must say of where it comes from: hardware, versions, commit, how busy the machine was."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent


def hardware(device: torch.device, threads: int) -> str:
    """Name of the GPU, or of the processor and the number of threads used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {threads} thread{'s' if threads > 1 else ''}"


def processor() -> str:
    """The processor's model name, where the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def slug(name: str) -> str:
    """A file name: 'AMD EPYC, 2 threads' -> 'amd-epyc-2-threads'."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def facts(device: torch.device, threads: int, command: str) -> dict[str, Any]:
    """The head of a result file."""
    load = os.getloadavg()[0]
    return {
        "hardware": hardware(device, threads), "device": device.type, "threads": threads,
        "cores": os.cpu_count(), "load_before": round(load, 2),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(), "command": command,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "triton", "numba", "pytest-benchmark")},
            **({"cuda": torch.version.cuda} if device.type == "cuda" else {}),
        },
    }  # fmt: skip


def version(package: str) -> str | None:
    """Installed version of a distribution."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The checkout's commit, with a + if sg3/ differs from it; None outside of a checkout."""
    def git(*words: str) -> str:
        command = ["git", "-c", f"safe.directory={ROOT}", "--no-optional-locks", "-C", str(ROOT), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "sg3") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
