"""What signals mean to the processes that load images."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal


class LoaderSignals:
    """Nothing, but for SIGTERM once the loading is over. A loader's `worker_init_fn`.

    Ctrl-C, a closed terminal, `timeout` and job schedulers signal the whole process group, and the main process decides
    what it means.
    """

    def __init__(self) -> None:
        self._is_over = multiprocessing.RawValue(ctypes.c_bool, False)

    def __call__(self, _worker: int) -> None:
        """Called in the loader's process."""
        signal.signal(signal.SIGTERM, lambda *_: self._is_over.value and os._exit(0))
        for name in ("SIGINT", "SIGHUP", "SIGUSR1"):  # Windows has one of them
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)

    def over(self) -> None:
        """From now on processes may be ended."""
        self._is_over.value = True
