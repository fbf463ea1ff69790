"""Independent pieces of work on a CPU: each on one thread, as many at a time as there are threads.

Threads that share one operation meet at the end of each of its loops, and where others want the CPUs, too, each meeting
waits for the one that has none. Threads that share out whole pieces never wait for each other: beside others they get
their fair share, and on an idle machine nothing is lost to meetings (docs/busy-machines.md has what was measured).
"""

from __future__ import annotations

import atexit
import ctypes
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

MOST_IDLE = 0.05  # share of the threads' time for which there may be no piece left
MANY = 2**30  # pieces at a time, where nothing limits them but the threads
NAME = "side by side"  # of the threads


class _Left(BaseException):
    """Nobody wants the results any more."""


def side_by_side(
    work: Callable[[T], R], items: Iterable[T], count: int, device: torch.device, most: int
) -> Generator[R, None, None]:
    """The results of `work` on so many items, in their order; without gradients.

    On a CPU at most `most` pieces are at work at a time, each in a thread of its own. They come one after the other, in
    this thread, on other devices, where PyTorch has one thread, and where too few pieces would leave threads idle at
    the end. What a piece computes must depend on its item alone. An error is raised in its item's place.

    To be closed by who does not ask for all results: what is at work then ends after the operation that it is in.
    """
    workers = min(torch.get_num_threads(), most)
    if device.type == "cpu" and workers > 1 and -(-count // workers) * workers * (1 - MOST_IDLE) <= count:
        yield from _by_threads(work, items, workers)
        return
    for item in items:
        with torch.no_grad():
            result = work(item)
        yield result


def _by_threads(work: Callable[[T], R], items: Iterable[T], workers: int) -> Generator[R, None, None]:
    threads = torch.get_num_threads()
    due: SimpleQueue[tuple[T, Future[R]] | None] = SimpleQueue()
    begun = threading.Barrier(workers + 1)

    def run() -> None:
        with suppress(_Left, threading.BrokenBarrierError):
            torch.set_num_threads(threads // workers)
            torch.get_num_threads()  # PyTorch sets a thread up when it is first asked, and only now as just said
            begun.wait()
            while (piece := due.get()) is not None:
                item, future = piece
                try:
                    with torch.no_grad():
                        result = work(item)
                except _Left:
                    raise
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del piece, item, future, result  # while it waits for the next piece

    # Daemons, so that a process can end that has not asked for all results.
    team = [threading.Thread(target=run, name=NAME, daemon=True) for _ in range(workers)]
    pending: deque[Future[R]] = deque()

    def leave() -> None:
        begun.abort()
        started = {thread.ident: thread for thread in team if thread.ident is not None}
        if not all(future.done() for future in pending):
            for number in started:  # all of them are within `run`: none ends before it is told to
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(number), ctypes.py_object(_Left))
        for _ in started:
            due.put(None)
        for thread in started.values():
            thread.join()

    atexit.register(leave)
    try:
        for thread in team:
            thread.start()
        begun.wait()
        torch.set_num_threads(threads)  # which threads that are started from now on begin with
        for item in items:
            future: Future[R] = Future()
            pending.append(future)
            due.put((item, future))
            if len(pending) > workers:  # one waits, so that none is without a piece, and no more are kept
                result = pending[0].result()
                pending.popleft()
                yield result
        while pending:
            result = pending[0].result()
            pending.popleft()
            yield result
    finally:
        leave()
        atexit.unregister(leave)
