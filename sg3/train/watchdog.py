"""A thread of each process that notices when another one has died or hangs, and ends this one with its name.

The main thread cannot: it waits inside a collective operation that will never complete. With one process there is
nothing to watch.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sg3.processes import LAUNCHER_DIED, World
from sg3.terminal import say

LOOK_SECONDS = 0.5
PAUSED_SECONDS = 10.0  # between two looks: longer than any load makes it wait
# Kernels are compiled in the first step, by one rank earlier than by another; and at the end of a tick the others may
# wait for what the first one writes and computes.
PATIENCE = 10


class Watchdog:
    """`timeout` seconds without a `beat` end the process with exit code 70, after `leave(code, message)`.

    How often each rank has beaten is published in the world's store; those behind are named. So a rank beats before it
    waits for the others, too. Processes of the same machine are also checked for being alive, and a rank that fails
    for a reason of its own says so to the others, which end with its exit code.
    """

    def __init__(self, world: World, timeout: float, leave: Callable[[int, str], None]) -> None:
        self._world = world
        self._timeout = timeout
        self._leave = leave
        self._beats = 0
        self._last = time.monotonic()
        self._patience = PATIENCE
        self._pids: dict[int, int] = {}  # of the other ranks on this machine, as far as they have appeared
        self._elsewhere = {world.rank}  # ranks whose processes cannot be seen, and this one
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        if world.store is not None:
            # A connection of its own: on the other one the main thread can wait for minutes, with a lock on it.
            try:
                self._store = world.store.clone()  # type: ignore[attr-defined]
                self._store.set(f"process/{world.rank}", f"{_machine()} {os.getpid()}")
            except RuntimeError:
                self._exit_without_store()
            self._thread.start()

    def beat(self) -> None:
        """This rank is alive and goes on, be it only to wait for the others."""
        self._beats += 1
        self._last = time.monotonic()

    def step_done(self) -> None:
        """A whole step is over, everything compiled: from now on the timeout is as it was asked for."""
        self.beat()
        self._patience = 1

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Inside, ranks may wait for each other for longer."""
        before, self._patience = self._patience, PATIENCE
        yield
        self.beat()
        self._patience = before

    def fail(self, code: int, message: str) -> bool:
        """Tell the other ranks why this one ends. The first reason counts; returns whether this is it."""
        if self._world.store is None:
            return True
        said = f"{code} {self._world.rank} {message}"
        try:
            counts = self._world.store.compare_set("failed", "", said).decode() == said
        except RuntimeError:  # the store's host has gone first
            return True
        if counts:
            self._ended.set()  # what becomes of the others now is no news
        time.sleep(2 * LOOK_SECONDS)  # the store may end with this process: let everyone look
        return counts

    def end(self) -> None:
        """Stop watching, here, and by the others this rank."""
        if self._world.store is not None:
            with suppress(RuntimeError):  # the store's host may have gone first
                self._world.store.set(f"ended/{self._world.rank}", "1")
            self._ended.set()
            self._thread.join()

    def dead_ranks(self) -> list[int]:
        """Ranks on this machine whose process is gone without having said so."""
        for rank in set(range(self._world.size)) - self._elsewhere - set(self._pids):
            if self._store.check([f"process/{rank}"]):
                machine, pid = self._store.get(f"process/{rank}").decode().split()
                if machine == _machine():
                    self._pids[rank] = int(pid)
                else:
                    self._elsewhere.add(rank)
        gone = [rank for rank, pid in sorted(self._pids.items()) if not _is_alive(pid)]
        return [rank for rank in gone if not self._store.check([f"ended/{rank}"])]

    def _watch(self) -> None:
        store = self._store
        published, looked = -1, time.monotonic()
        while not self._ended.wait(LOOK_SECONDS):
            now = time.monotonic()
            if now - looked > PAUSED_SECONDS:  # this process was not at work: Ctrl-Z
                self._last += now - looked
            looked = now
            try:
                if self._beats != published:
                    store.set(f"beats/{self._world.rank}", str(self._beats))
                    published = self._beats
                if store.check(["failed"]):
                    code, rank, message = store.get("failed").decode().split(" ", 2)
                    if int(rank) != self._world.rank:
                        self._exit(message, [int(rank)], int(code), is_said=True)
                if store.check(["left"]):  # by a rank that found out first, and has ended since
                    self._exit("another rank has ended; continue from the last state", [])
                if dead := self.dead_ranks():
                    self._exit(f"{_name(dead)} died; continue from the last state", dead)
                limit = self._timeout * self._patience
                if time.monotonic() - self._last > limit:
                    behind = self._behind()
                    what = f"{_name(behind)} hung" if behind else "all ranks hung"
                    self._exit(f"{what}: no progress for {limit:g} s (--timeout); continue from the last state", behind)
            except RuntimeError:
                if not self._ended.is_set():
                    self._exit_without_store()

    def _exit_without_store(self) -> None:
        """The store is in the process that started the others, or in rank 0."""
        if self._world.rank == 0 or (0 in self._pids and _is_alive(self._pids[0])):
            self._exit(f"{LAUNCHER_DIED}; continue from the last state", [])
        self._exit("lost the connection to rank 0; continue from the last state", [0])

    def _behind(self) -> list[int]:
        keys = [f"beats/{rank}" for rank in range(self._world.size)]
        beats = [int(self._store.get(key)) if self._store.check([key]) else 0 for key in keys]
        return [rank for rank, count in enumerate(beats) if count < max(beats)]

    def _exit(self, message: str, ranks: list[int], code: int = 70, is_said: bool = False) -> None:
        if not is_said:
            message, ranks = self._first_to_leave(message, ranks)
        others = [rank for rank in range(self._world.size) if rank not in ranks]
        if not others or self._world.rank == others[0]:  # one of them is enough to say it
            if not (is_said and 0 in ranks):  # rank 0 has left it itself
                self._leave(code, message)
            if not is_said:
                say(f"error: {message}")
        if self._world.rank == 0:
            time.sleep(2 * LOOK_SECONDS)  # as above
        os._exit(code)

    def _first_to_leave(self, message: str, ranks: list[int]) -> tuple[str, list[int]]:
        """The reason of the rank that ends first, and the ranks it blames: to the others it would look like a dead
        one, for it may leave it to one of them to say why."""
        mine = f"{','.join(map(str, ranks))} {message}"
        with suppress(RuntimeError):  # without a store each speaks for itself
            blamed, message = self._store.compare_set("left", "", mine).decode().split(" ", 1)
            ranks = [int(rank) for rank in blamed.split(",") if rank]
        return message, ranks


def _machine() -> str:
    """One word, the same for processes that can see each other: containers may share a name, but not these numbers."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return "/".join(parts)


def _is_alive(pid: int) -> bool:
    """Whether a process runs. One that has ended, and that nobody has waited for yet, does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return not os.path.exists("/proc/self")  # without a /proc nobody can tell
    except OSError:
        return True


def _name(ranks: list[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
