"""Running the command line, and what can be seen of its processes."""

from __future__ import annotations

import os
import re
import resource
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    def error_line(self) -> str:
        """The one line of a failure, without anything else on either stream."""
        assert self.out == ""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


def start(*args: object, group: bool = False) -> subprocess.Popen[str]:
    """`sg3 ARGS` as a process, with `group` as the leader of a new process group."""
    command = [sys.executable, "-m", "sg3", *map(str, args)]
    pipe = subprocess.PIPE
    # One thread, as in the test process: two that wait for each other are slow where something else runs as well.
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=group, env=alone)


def children_seconds() -> float:
    """Processor time of all processes started so far: what a command takes on a machine with nothing else to do."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def spent_seconds(pid: int) -> float:
    """Processor time of a process that runs and of those that it has started."""
    ticks, tree = 0, [pid]
    for each in tree:
        with suppress(OSError):  # it has ended meanwhile
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))  # its own, and of children that it has seen end
            tree += [int(word) for task in Path(f"/proc/{each}/task").iterdir()
                     for word in (task / "children").read_text().split()]  # fmt: skip
    return ticks / os.sysconf("SC_CLK_TCK")


def wait_for_state(outdir: Path, process: subprocess.Popen[str], seconds: float = 60) -> Path:
    """The run folder, once its first state is complete. On a busy machine, where the run has spent less of the
    processor in that time, it gets ten times as long."""
    began = time.monotonic()
    while (waited := time.monotonic() - began) < seconds or (
        waited < 10 * seconds and spent_seconds(process.pid) < seconds
    ):
        states = list(outdir.glob("*/training-state-*.pt"))
        if states:
            return states[0].parent
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.kill()
    raise AssertionError(f"no state within {seconds:g} s")


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """Process ids of the ranks, by rank."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    found = {}
    for pid in children:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        ranks = [int(entry.removeprefix(b"RANK=")) for entry in environment if entry.startswith(b"RANK=")]
        if ranks:
            found[ranks[0]] = int(pid)
    return [found[rank] for rank in sorted(found)]


def gone(pids: list[int], seconds: float) -> bool:
    """Whether all processes end in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{pid}").exists() and "Z" not in state_of(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def listened_at(pids: list[int]) -> set[str]:
    """The addresses, in the kernel's hexadecimal form, at which these processes take connections."""
    links = [entry for pid in pids for entry in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {match[1] for entry in links if (match := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(entry)))}
    table = "".join(Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6"))
    rows = [line.split() for line in table.splitlines()]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]
