"""How functions are compiled for the CPU, and how a kernel is started."""

from __future__ import annotations

import logging
import os
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numba
import torch
from numba.core.caching import NullCache

_functions: list[Any] = []
_one_at_a_time = threading.Lock()  # 'workqueue', on some systems Numba's only pool, ends a process that uses it twice
_pool_process: int | None = None   # the process that started Numba's threads; a forked child does not have them


def compiled(parallel: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """numba.njit, with the machine code kept on disk where there is a place for it."""

    def decorate(function: Callable[..., Any]) -> Any:
        # contract: a * b + c in one instruction. Sums keep their order, NaN and infinity their meaning.
        def jit(cache: bool) -> Any:
            return numba.njit(cache=cache, nogil=True, fastmath={"contract", "nsz"}, parallel=parallel)(function)

        try:
            result = jit(cache=True)
        except RuntimeError:  # neither the package's folder nor the user's cache can be written to
            result = jit(cache=False)
        _functions.append(result)
        return result

    return decorate


def start(by_threads: Callable[..., None], in_turn: Callable[..., None], *arguments: Any) -> None:
    """Start a kernel on as many threads as PyTorch has: `by_threads`, or for one thread `in_turn`.

    In turn also in a child that was forked after the threads were started: OpenMP would end it.
    """
    try:
        _run(by_threads, in_turn, *arguments)
    except (OSError, EOFError, pickle.UnpicklingError) as error:  # a full disk, or a file that is not whole
        logging.getLogger("sg3").warning(
            "sg3: Numba cannot keep or read its machine code (%s); compiling anew, which takes ten seconds. "
            "NUMBA_CACHE_DIR names another folder", error,
        )  # fmt: skip
        for function in _functions:
            function._cache = NullCache()
        _run(by_threads, in_turn, *arguments)


def _run(by_threads: Callable[..., None], in_turn: Callable[..., None], *arguments: Any) -> None:
    global _pool_process
    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    threads = min(torch.get_num_threads(), most)
    if threads == 1 or _pool_process not in (None, os.getpid()):
        in_turn(*arguments)
        return
    with _one_at_a_time:
        _pool_process = os.getpid()
        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        try:
            by_threads(*arguments)
        finally:
            numba.set_num_threads(before)
            if before != threads:  # with OpenMP as its pool, this was PyTorch's number, too
                torch.set_num_threads(threads)
