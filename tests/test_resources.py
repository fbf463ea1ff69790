"""Processors and memory within affinity and control groups, of both versions, as the system shows them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sg3.resources import memory, usable_cpus

GB = 2**30
MEMINFO = f"MemTotal: {8 * GB // 1024} kB\nMemFree: 1 kB\nMemAvailable: {6 * GB // 1024} kB\n"


def machine(root: Path, membership: str, files: dict[str, str]) -> Path:
    """A file system with what the kernel shows in these places."""
    for name, text in {"proc/self/cgroup": membership, "proc/meminfo": MEMINFO}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("", {}, 8),
        ("0::/", {"cgroup.procs": ""}, 8),
        ("0::/", {"cpu.max": "150000 100000\n"}, 2),  # a container of version 2, as it sees itself
        ("0::/", {"cpu.max": "max 100000\n"}, 8),
        ("0::/a/b", {"a/cpu.max": "100000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1),  # the group above limits
        ("0::/a/b", {"a/cpu.max": "700000 100000\n", "a/b/cpu.max": "300000 100000\n"}, 3),
        ("0::/a", {"a/cpu.max": "5000 100000\n"}, 1),
        ("0::/a", {"a/cpu.max": "6400000 100000\n"}, 8),  # more than there are
        ("0::/../a", {"cpu.max": "200000 100000\n"}, 2),  # the group is outside what is seen
        ("0::/a", {"a/cpu.max": "nonsense"}, 8),
        ("4:cpu,cpuacct:/docker/123\n", {"cpu,cpuacct/cpu.cfs_quota_us": "250000\n",
                                         "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 3),  # version 1, in a container
        ("1:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 8),
        ("1:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "50000\n", "cpu/a/cpu.cfs_period_us": "50000\n"}, 1),
        ("7:cpuset:/a\n", {"cpuset/a/cpu.cfs_quota_us": "50000\n", "cpuset/a/cpu.cfs_period_us": "50000\n"}, 8),
    ],
)  # fmt: skip
def test_processors(
    membership: str, files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert usable_cpus(machine(tmp_path, membership, files)) == expected


def test_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert usable_cpus(machine(tmp_path, "0::/", {"cpu.max": "200000 100000"})) == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cpus(machine(tmp_path, "", {})) == 6


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("", {}, (8, 6)),
        ("0::/", {"memory.max": f"{4 * GB}\n", "memory.current": f"{GB}\n"}, (4, 3)),
        ("0::/", {"memory.max": f"{4 * GB}\n", "memory.current": f"{3 * GB}\n",
                  "memory.stat": f"anon 5\ninactive_file {2 * GB}\n"}, (4, 3)),
        ("0::/", {"memory.max": "max\n", "memory.current": f"{GB}\n"}, (8, 6)),
        ("0::/a/b", {"a/memory.max": f"{2 * GB}\n", "a/memory.current": f"{3 * GB}\n",
                     "a/b/memory.max": "max\n"}, (2, 0)),
        ("4:memory:/x\n", {"memory/memory.limit_in_bytes": f"{GB}\n", "memory/memory.usage_in_bytes": "0\n"}, (1, 1)),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, (8, 6)),
    ],
)  # fmt: skip
def test_memory(membership: str, files: dict[str, str], expected: tuple[int, int], tmp_path: Path) -> None:
    found = memory(machine(tmp_path, membership, files))
    assert found == (expected[0] * GB, expected[1] * GB)


def test_a_system_that_says_nothing(tmp_path: Path) -> None:
    assert memory(tmp_path) is None
    assert usable_cpus(tmp_path) >= 1
