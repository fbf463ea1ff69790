"""A thread of each process that notices when another one has died or hangs, and ends this one with its name.

The main thread cannot: it waits inside a collective operation that will never complete. With one process there is
nothing to watch.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from sg3.train.distributed import World

LOOK_SECONDS = 0.5
FIRST_STEP_FACTOR = 10  # kernels are compiled in the first step, by one rank earlier than by another


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
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        if world.store is not None:
            world.store.set(f"process/{world.rank}", f"{socket.gethostname()} {os.getpid()}")
            self._thread.start()

    def beat(self) -> None:
        """This rank is alive and goes on, be it only to wait for the others."""
        self._beats += 1
        self._last = time.monotonic()

    def fail(self, code: int, message: str) -> None:
        """Tell the other ranks why this one ends. The first reason counts."""
        if self._world.store is not None:
            with suppress(RuntimeError):
                self._world.store.compare_set("failed", "", f"{code} {self._world.rank} {message}")

    def end(self) -> None:
        """Stop watching, here, and by the others this rank."""
        if self._world.store is not None:
            with suppress(RuntimeError):  # the store's host may have gone first
                self._world.store.set(f"ended/{self._world.rank}", "1")
            self._ended.set()
            self._thread.join()

    def dead_ranks(self) -> list[int]:
        """Ranks on this machine whose process is gone without having said so."""
        store = self._world.store
        assert store is not None
        dead = []
        for rank in range(self._world.size):
            if rank == self._world.rank or not store.check([f"process/{rank}"]):
                continue
            host, pid = store.get(f"process/{rank}").decode().split()
            if host == socket.gethostname() and not _is_alive(int(pid)) and not store.check([f"ended/{rank}"]):
                dead.append(rank)
        return dead

    def _watch(self) -> None:
        store = self._world.store
        assert store is not None
        published = -1
        while not self._ended.wait(LOOK_SECONDS):
            try:
                if self._beats != published:
                    store.set(f"beats/{self._world.rank}", str(self._beats))
                    published = self._beats
                if store.check(["failed"]):
                    code, rank, message = store.get("failed").decode().split(" ", 2)
                    if int(rank) != self._world.rank:
                        self._exit(message, [int(rank)], int(code), is_said=True)
                if dead := self.dead_ranks():
                    self._exit(f"{_name(dead)} died; continue from the last state", dead)
                limit = self._timeout * (1 if self._beats else FIRST_STEP_FACTOR)
                if time.monotonic() - self._last > limit:
                    behind = self._behind()
                    what = f"{_name(behind)} hung" if behind else "all ranks hung"
                    self._exit(f"{what}: no progress for {limit:g} s (--timeout); continue from the last state", behind)
            except RuntimeError:
                if not self._ended.is_set():
                    self._exit("lost the connection to rank 0", [0])

    def _behind(self) -> list[int]:
        store = self._world.store
        assert store is not None
        keys = [f"beats/{rank}" for rank in range(self._world.size)]
        beats = [int(store.get(key)) if store.check([key]) else 0 for key in keys]
        return [rank for rank, count in enumerate(beats) if count < max(beats)]

    def _exit(self, message: str, ranks: list[int], code: int = 70, is_said: bool = False) -> None:
        others = [rank for rank in range(self._world.size) if rank not in ranks]
        if not others or self._world.rank == others[0]:  # one of them is enough to say it
            self._leave(code, message)
            if not is_said:
                print(f"error: {message}", file=sys.stderr, flush=True)
        os._exit(code)


def _is_alive(pid: int) -> bool:
    """Whether a process runs. One that has ended, and that nobody has waited for yet, does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _name(ranks: list[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
