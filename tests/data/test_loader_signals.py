"""Processes that load images leave it to the main process what a signal to the whole group means."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

from sg3.data.loader_signals import LoaderSignals


def test_a_loader_ends_only_when_loading_is_over() -> None:
    signals, ready = LoaderSignals(), multiprocessing.Event()

    def load() -> None:
        signals(0)
        ready.set()
        while True:
            time.sleep(60)

    process = multiprocessing.get_context("fork").Process(target=load)
    process.start()
    try:
        assert ready.wait(10)
        assert process.pid is not None
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
            os.kill(process.pid, number)
        process.join(0.2)
        assert process.is_alive()
        signals.over()
        os.kill(process.pid, signal.SIGTERM)
        process.join(10)
        assert process.exitcode == 0
    finally:
        process.kill()
