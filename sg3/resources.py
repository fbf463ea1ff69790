"""What this process may use of its machine: processors and memory, within its affinity and its control groups.

A container does not hide the machine's processors and memory, it limits their use: by control groups, which the system
shows as files (version 2, or version 1 with a tree for each kind), and each of which lies within those above it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path

ROOT = Path("/")
GROUPS = Path("sys/fs/cgroup")


def usable_cpus(root: Path = ROOT) -> int:
    """How many processors this process can keep busy, at least 1; a part of one counts as one."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for quota in _quotas(root):
        count = min(count, ceil(quota - 0.01))
    return max(count, 1)


def loaders() -> int:
    """How many processes load images where nobody says: three keep a GPU busy, more than processors only wait."""
    return min(3, usable_cpus())


def memory(root: Path = ROOT) -> tuple[int, int] | None:
    """Total and free bytes of memory; None where the system does not tell."""
    try:
        lines = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines())
        total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        return None
    names = {"memory.max": "memory.current", "memory.limit_in_bytes": "memory.usage_in_bytes"}
    for folder in _groups("memory", root):
        for limit_name, used_name in names.items():
            limit, used = _number(folder / limit_name), _number(folder / used_name)
            if limit is not None:
                # What is used there includes cached files, which the system drops before it says no.
                cached = _statistic(folder / "memory.stat", "inactive_file")
                total, free = min(total, limit), min(free, max(limit - (used or 0) + cached, 0))
    return total, free


def _quotas(root: Path) -> Iterator[float]:
    """Processors that each control group around this process may use."""
    for folder in _groups("cpu", root):
        words = _text(folder / "cpu.max").split()  # "150000 100000" or "max 100000"
        if len(words) == 2 and words[0].isdecimal() and int(words[1]):
            yield int(words[0]) / int(words[1])
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if quota and period:
            yield quota / period


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of the control groups around this process that may limit what the controller controls.

    In a container the path that the process is told may be that on the host, of which it sees only the end.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():  # "0::/a/b", "4:cpu,cpuacct:/a/b"
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if not names:
            mounts = [GROUPS, GROUPS / "unified"]
        elif controller in names.split(","):
            mounts = [GROUPS / names, GROUPS / controller]
        else:
            continue
        inner = Path(path.lstrip("/"))
        for mount in mounts:
            for part in [inner, *inner.parents] if path.strip("/") else [Path()]:
                if ".." not in part.parts and (root / mount / part).is_dir():
                    yield root / mount / part


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):  # there is no such limit
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None  # ("max" and -1 are no limits)


def _statistic(path: Path, name: str) -> int:
    words = next((line.split() for line in _text(path).splitlines() if line.startswith(f"{name} ")), [])
    return int(words[1]) if len(words) == 2 and words[1].isdecimal() else 0
