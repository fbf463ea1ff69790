"""Processes of this machine that share a piece of work: started, told of signals, and ended together.

torch's elastic launcher does that, too, but for many machines: its processes meet at a port that is open to the
network, and believe what is said there. Here the port is this machine's own.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType

import torch

from sg3 import limits
from sg3.errors import Sg3Error, UsageError
from sg3.portable import loopback, signals
from sg3.resources import usable_cpus
from sg3.shortage import shortage

LAUNCHER = "SG3_LAUNCHER"  # variable: the process that has started this one and others, where they meet
HOST = "127.0.0.1"
HANDLES = 16  # that this process needs for the others
LOOK_SECONDS = 0.1
ENDING_SECONDS = 30.0  # for the others when one has failed, or when a signal comes again
FORWARDED = signals("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGXCPU")
ONCE = signals("SIGXCPU")  # it comes every second, once a process has had its processor time (ulimit -t)
PAUSE = signals("SIGTSTP")  # Ctrl-Z


def check_ranks(count: int) -> None:
    """Raises UsageError for more processes than this machine could ever run side by side."""
    cpus, gpus = usable_cpus(), torch.cuda.device_count()
    if count > max(gpus, limits.RANKS_PER_CPU * cpus):
        raise UsageError(f"--gpus={count}: this machine has {gpus} GPUs, and CPUs for {limits.RANKS_PER_CPU * cpus} "
                         "processes without one")  # fmt: skip


def can_meet() -> bool:
    """Whether processes can meet at all: a sandbox may be without even a network of its own."""
    try:
        with socket.create_server((HOST, 0)) as server, socket.create_connection(server.getsockname(), timeout=1):
            return True
    except OSError:
        return False


def start_processes(count: int, words: Sequence[str]) -> int:
    """Run `sg3 WORDS` in `count` processes of this machine, as ranks of one world.

    Signals go to all of them, Ctrl-Z pauses them. If one fails, the others are ended. Threads are shared out among
    them. Returns 0, the exit code of one that failed by itself, 70 if all of those were ended by signals, 128 + N if
    this process got signal N. Raises UsageError for too many, Sg3Error where they cannot meet.
    """
    check_ranks(count)
    _require_handles()
    from torch._C._distributed_c10d import TCPStore

    try:
        meeting = socket.create_server((HOST, 0))
        port = meeting.getsockname()[1]
        store = TCPStore(HOST, port, is_master=True, wait_for_workers=False, master_listen_fd=meeting.detach())
    except (OSError, RuntimeError) as error:
        raise Sg3Error(f"--gpus={count}: processes cannot meet at {HOST}: {error}") from error
    environment = {
        "OMP_NUM_THREADS": str(max(usable_cpus() // count, 1)),
        **({"GLOO_SOCKET_IFNAME": name} if (name := loopback()) else {}),
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # whoever loses another says so in a line; torch, in 50
        **os.environ,
        LAUNCHER: str(os.getpid()), "WORLD_SIZE": str(count), "MASTER_ADDR": HOST, "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0",  # the store is here, not in rank 0
    }  # fmt: skip
    ranks: list[subprocess.Popen[bytes]] = []
    with _told_of_signals(ranks) as told:
        try:
            for rank in range(count):
                place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                # A session of its own, so that a terminal's signals come by this process, and once.
                ranks.append(subprocess.Popen(
                    [sys.executable, "-m", "sg3", *words], env=environment | place, start_new_session=True
                ))  # fmt: skip
            if told:  # before all were there
                _tell(ranks, told[0])
            failed = _wait(ranks, told)
        finally:
            _tell(ranks, getattr(signal, "SIGKILL", signal.SIGTERM))
    del store  # to the end, it is where they meet
    if told:
        return 128 + told[0]
    return next((code for code in failed if code > 0), Sg3Error.exit_code if failed else 0)


def _require_handles() -> None:
    """Raises MachineError where few are left: torch would try to connect for five minutes, or abort."""
    with ExitStack() as opened:
        try:
            for _ in range(HANDLES):
                opened.enter_context(open(os.devnull, "rb"))
        except OSError as error:
            raise shortage(error) or error from error


def _wait(ranks: Sequence[subprocess.Popen[bytes]], told: Sequence[int]) -> list[int]:
    """Until all have ended; returns how those have that failed first (negative: by a signal). Where one has failed, or
    a second signal has come, the others have some time to end."""
    end = None
    failed: list[int] = []
    while True:
        codes = [process.poll() for process in ranks]
        failed = failed or [code for code in codes if code]
        if None not in codes or (end is not None and time.monotonic() > end):
            return failed
        if end is None and (len(told) > 1 or failed):
            end = time.monotonic() + ENDING_SECONDS
            if not told:
                _tell(ranks, signal.SIGTERM)
        time.sleep(LOOK_SECONDS)


def _tell(ranks: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    """Send a signal to those that run, and to what they have started."""
    for process in ranks:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number) if hasattr(os, "killpg") else process.send_signal(number)


@contextmanager
def _told_of_signals(ranks: Sequence[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Inside, signals that come here go to the ranks, too; gives those that ask for the end, in their order. What is
    ignored, as SIGHUP under nohup, stays so."""
    told: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        if number in ONCE:
            signal.signal(number, signal.SIG_IGN)
        told.append(number)
        _tell(ranks, number)

    def pause(_number: int, _frame: FrameType | None) -> None:
        _tell(ranks, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)  # until somebody says SIGCONT
        _tell(ranks, signal.SIGCONT)

    handlers = {**dict.fromkeys(FORWARDED, forward), **dict.fromkeys(PAUSE, pause)}
    before = {number: signal.getsignal(number) for number in handlers}
    heard = {number: handlers[number] for number, known in before.items() if known is not signal.SIG_IGN}
    if threading.current_thread() is not threading.main_thread():  # no other one may hear signals
        heard = {}
    for number, handler in heard.items():
        signal.signal(number, handler)
    try:
        yield told
    finally:
        for number in heard:
            signal.signal(number, before[number])
