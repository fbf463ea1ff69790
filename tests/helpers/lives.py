"""Processes that train, and what happens to them: forked from a server that has imported everything, so that a life
costs a fraction of a second. And a watch over the calls that change a folder, to disturb any one of them.
"""

from __future__ import annotations

import builtins
import io
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # (by the optimiser; what is imported here need not be by the children)
from PIL import Image

import sg3.cli
import sg3.cli.train
import sg3.metrics
import sg3.train.launch
from sg3.run_folder import STATES
from sg3.train.config import TrainConfig
from sg3.train.state import load_state
from tests.helpers.trainers import StopAfter, new_trainer, run_loop

with suppress(ImportError):
    import torch.utils.tensorboard
torch.set_num_threads(1)
Image.init()
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["__main__", "tests.helpers.lives"])

Before = Callable[[str, str], object]  # (kind of call, path)
WRITE_FLAGS = frozenset("wax+")


def begin(function: Callable[..., object], *args: object) -> BaseProcess:
    """Start `function(*args)` in a new process."""
    process = context.Process(target=function, args=args)
    process.start()
    return process


def wait_for(condition: Callable[[], object], process: BaseProcess, seconds: float = 60) -> None:
    """Until the condition holds. Fails when the process ends before, or after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.is_alive(), f"ended too early, with {process.exitcode}"
        if time.monotonic() > deadline:
            process.kill()  # or Python would wait for it at its own end
            raise AssertionError("waited in vain")
        time.sleep(0.01)


def command(words: list[str], folder: Path, prepare: Callable[..., object] | None = None, *more: object) -> None:
    """`sg3 WORDS` after `prepare(*more)`, with its output in out.txt and err.txt of `folder`."""
    for stream, name in ((1, "out.txt"), (2, "err.txt")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    multiprocessing.set_start_method("fork", force=True)  # as in a process that was not made by `begin`
    if prepare is not None:
        prepare(*more)
    sg3.cli.main(words)


@contextmanager
def watched(folder: Path, before: Before) -> Iterator[None]:
    """Call `before(kind, path)` ahead of every call of this process that changes something below `folder`: open (to
    write), write, fsync, rename and unlink. Writes are those that reach the system, not those to a buffer."""
    real_open, real_fsync, real_replace, real_unlink = builtins.open, os.fsync, os.replace, os.unlink
    root = os.path.realpath(folder)

    def is_inside(path: object) -> bool:
        return isinstance(path, (str, os.PathLike)) and os.path.realpath(path).startswith(root)

    class Watched(io.FileIO):
        def write(self, data: Any) -> int:
            before("write", str(self.name))
            return super().write(data)

    def open_(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        if not is_inside(file) or not WRITE_FLAGS & set(mode):
            return real_open(file, mode, *args, **more)
        before("open", str(file))
        raw = Watched(file, mode.replace("b", ""))
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered)

    def fsync(handle: int) -> None:
        path = os.readlink(f"/proc/self/fd/{handle}")
        if is_inside(path):
            before("fsync", path)
        real_fsync(handle)

    def replace(source: Any, target: Any) -> None:
        if is_inside(target):
            before("rename", str(target))
        real_replace(source, target)

    def unlink(path: Any, **more: Any) -> None:
        if is_inside(path):
            before("unlink", str(path))
        real_unlink(path, **more)

    places = [(builtins, "open", open_), (io, "open", open_), (os, "fsync", fsync), (os, "replace", replace),
              (os, "unlink", unlink)]  # fmt: skip
    kept = [(module, name, getattr(module, name)) for module, name, _ in places]
    try:
        for module, name, function in places:
            setattr(module, name, function)
        yield
    finally:
        for module, name, function in kept:
            setattr(module, name, function)


def killer(kind: str, number: int) -> Before:
    """Kills this process, as nothing can be caught, ahead of the call of that kind with that number (from 1)."""
    seen = 0

    def before(what: str, _path: str) -> None:
        nonlocal seen
        seen += what == kind
        if what == kind and seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return before


def live(config: TrainConfig, folder: Path, begun: Any, steps: int, kind: str = "", number: int = 0) -> None:
    """Go on with a run in `folder` until `steps` steps in all, with a state after each; `begun.value` is the number of
    images up to the last state that began to be saved. Is killed at a call of that kind, if any."""
    import sg3.train.saving

    sg3.train.saving.STATE_MINUTES = -1  # a state is always due
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (the process's own, to its end)
    trainer = new_trainer(config)
    if list(folder.glob(STATES)):
        trainer.load_state_dict(load_state(folder, lambda line: os.abort()))

    def note() -> None:
        begun.value = trainer.nimg

    with watched(folder, killer(kind, number)):
        try:
            run_loop(trainer, folder, StopAfter(steps, note))
        except sg3.errors.TrainingStopped:
            os._exit(0)
