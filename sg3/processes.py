"""The processes that share a piece of work: which one this is, which device is its own, and what they tell each other.

One process per GPU. Whoever starts them says so in the environment: `start_processes` (`sg3 train --gpus=N`) and
`torchrun` as RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, Slurm's `srun` in its own words. One process
alone needs no environment and exchanges nothing.

Training and metrics exchange through `World`, and know nothing of torch.distributed.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Thread, Timer
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist

import sg3.errors
from sg3.device import choose_device
from sg3.errors import Sg3Error, UsageError
from sg3.local_ranks import LAUNCHER
from sg3.portable import loopback
from sg3.terminal import say

if TYPE_CHECKING:  # there are builds of torch without it
    from torch.distributed import Work
    from torch.distributed.distributed_c10d import Store

T = TypeVar("T")
CONNECT_SECONDS = 300  # for all processes to appear
LAUNCHER_SECONDS = 5.0  # after whose death they end, unless something that knows more has ended them
LAUNCHER_DIED = "the process that started the others died"
SAY_SECONDS = 10  # after which one that waits for the others to appear says so
# Whoever waits longer has lost the others. In training the watchdog names a rank that hangs long before; in metrics the
# others wait while the first process compares features.
SLOWEST_IN_TRAINING = timedelta(hours=2)
SLOWEST_IN_METRICS = timedelta(hours=12)


class Stopped(Exception):
    """Work was ended early because a process was asked to."""


# ---- exchange -------------------------------------------------------------------------------------------------------


class World:
    """All processes, seen from one of them. With one process every exchange is the identity."""

    def __init__(self, rank: int, size: int, device: torch.device, store: Store | None = None) -> None:
        self.rank = rank
        self.size = size
        self.device = device
        self.store = store  # of a run of several processes: what they tell each other beside the work

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and speaks to the user."""
        return self.rank == 0

    def mine(self, items: Sequence[T]) -> Sequence[T]:
        """Every size-th item, beginning with this rank's."""
        return items[self.rank :: self.size]

    def add_up(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def begin_to_add_up(self, tensor: torch.Tensor) -> Work:
        """The same, of several processes, while this one goes on; the sum is there after `wait()` of what is returned.
        All processes begin their sums in the same order."""
        return dist.all_reduce(tensor, async_op=True)

    def gather(self, value: T) -> list[T]:
        """Every process's value (plain data), by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def together(self, work: Callable[[], T]) -> T:
        """Run `work`, which must not communicate; if it fails in one process, every process raises.

        Otherwise the others would wait for the failed one, in their next exchange, until a timeout.
        """
        if self.size == 1:
            return work()
        result, error = None, None
        try:
            result = work()
        except Exception as caught:
            error = caught
        reports = self.gather(None if error is None else _report(error))
        if error is not None:
            raise error
        for report in reports:
            if report is not None:
                raise _error_of(report)
        return result  # type: ignore[return-value]  # there was no error, so there is a result

    def on_main(self, work: Callable[[], T], told_once: bool = False) -> T:
        """Run `work` on rank 0 only, and give its result (plain data), or raise its error, on every rank.

        With `told_once` the other ranks leave silently, with the error's exit code: the user is to read it once.
        """
        if self.size == 1:
            return work()
        answer: list[Any] = [None, None]  # result, report of an error
        error: Exception | None = None
        if self.is_main:
            try:
                answer[0] = work()
            except Exception as caught:
                error, answer[1] = caught, _report(caught)
        dist.broadcast_object_list(answer, src=0)
        if error is not None:
            raise error
        if answer[1] is not None:
            theirs = _error_of(answer[1])
            raise SystemExit(getattr(theirs, "exit_code", Sg3Error.exit_code)) if told_once else theirs
        return answer[0]

    def as_main(self, *answers: bool) -> list[bool]:
        """Rank 0's answers, on every rank: what a clock or a signal decides must be decided once."""
        if self.size == 1:
            return list(answers)
        told = torch.tensor(answers, dtype=torch.uint8)
        dist.broadcast(told, src=0)
        return [bool(answer) for answer in told.tolist()]

    def in_order(self, rows: torch.Tensor, positions: torch.Tensor, total: int) -> torch.Tensor | None:
        """Rows [n, ...] of all processes, each at its position [n]: [total, ...] on rank 0, None on the others."""
        if self.size > 1:
            counts = [torch.zeros_like(positions[:1].sum()) for _ in range(self.size)]
            dist.all_gather(counts, torch.full_like(counts[0], len(rows)))
            longest = max(int(count) for count in counts)
            parts: list[list[torch.Tensor]] = []
            for tensor in (rows, positions):
                padded = tensor.new_zeros(longest, *tensor.shape[1:])
                padded[: len(tensor)] = tensor
                gathered = [torch.empty_like(padded) for _ in range(self.size)]
                dist.all_gather(gathered, padded)
                parts.append([part[: int(count)] for part, count in zip(gathered, counts, strict=True)])
            if not self.is_main:
                return None
            rows, positions = (torch.cat(each) for each in parts)
        assert len(positions) == total
        result = torch.empty_like(rows)
        result[positions] = rows
        return result

    def close(self) -> None:
        """Say goodbye: from now on the others may end, too."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def _report(error: Exception) -> tuple[str, str]:
    return type(error).__name__, str(error)


def _error_of(report: tuple[str, str]) -> Exception:
    """What another process has raised, as this one raises it."""
    kind, message = report
    if kind == Stopped.__name__:
        return Stopped()
    known: type[Sg3Error] = getattr(sg3.errors, kind, Sg3Error)
    return known(message if known is not Sg3Error else f"{kind} in another process: {message}")


# ---- meeting --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A process among those of a run."""

    rank: int
    size: int
    local_rank: int


def find_place(env: Mapping[str, str]) -> Place | None:
    """The place that torchrun or srun gave this process, None for a process of its own. Raises UsageError."""
    if "RANK" in env and "WORLD_SIZE" in env:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        values = [env.get(name, "0") for name in names]
    elif "SLURM_STEP_ID" in env and int(env.get("SLURM_STEP_NUM_TASKS", "1")) > 1:  # inside srun, not in sbatch's shell
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        values = [env.get(name, "") for name in names]
    else:
        return None
    if not all(value.isdigit() for value in values) or int(values[0]) >= int(values[1]):
        said = ", ".join(f"{name}={value!r}" for name, value in zip(names, values, strict=True))
        raise UsageError(f"environment: {said}: expected the numbers that torchrun and srun set")
    return Place(*map(int, values))


def slurm_address(env: Mapping[str, str]) -> tuple[str, str]:
    """Where rank 0 of a Slurm step listens: the first node of the list, and a port made of the job's number."""
    nodes = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST") or "localhost"
    first = re.match(r"([^,\[]+)(?:\[(\d+)[^\]]*\]([^,]*))?", nodes)
    assert first is not None  # a list has at least one character
    host = first[1] + (first[2] or "") + (first[3] or "")
    return env.get("MASTER_ADDR", host), env.get("MASTER_PORT", str(12000 + int(env.get("SLURM_JOB_ID", "0")) % 20000))


def join(device: str, gpus: int | None, slowest: timedelta = SLOWEST_IN_TRAINING) -> World:
    """Find the other processes that the environment speaks of, if it does, and the device of this one. `slowest`: after
    which they give up waiting for one another.

    Raises UsageError if `gpus` contradicts how many were started, or a device is not there; Sg3Error if the others
    do not appear.
    """
    place = find_place(os.environ)
    if place is None:
        return World(0, 1, _chosen(device))
    if gpus not in (None, place.size):
        raise UsageError(f"--gpus={gpus}: {place.size} processes were started; leave the option out or make it agree")
    if device in ("auto", "cuda") and torch.cuda.is_available():
        # Slurm can show each process a GPU of its own, which is then the only one.
        is_own = torch.cuda.device_count() == 1 and "SLURM_LOCALID" in os.environ
        device = f"cuda:{0 if is_own else place.local_rank}"
    elif device.startswith("cuda:") and place.size > 1:
        raise UsageError(f"--device={device}: one GPU for {place.size} processes; --device=cuda gives each its own")
    chosen = _chosen(device)
    if place.size == 1:
        return World(0, 1, chosen)
    if LAUNCHER in os.environ:
        Thread(target=_end_with, args=(int(os.environ[LAUNCHER]), place.rank), name="launcher", daemon=True).start()
    if "MASTER_ADDR" not in os.environ or "MASTER_PORT" not in os.environ:
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = slurm_address(os.environ)
    os.environ.update(RANK=str(place.rank), WORLD_SIZE=str(place.size))
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    who = f"rank {place.rank} of {place.size}"
    waiting = Timer(SAY_SECONDS, say, [f"{who}: waiting for the others at {address}, {CONNECT_SECONDS} s at most"])
    waiting.daemon = True
    waiting.start()
    try:
        store, rank, size = next(rendezvous("env://", timeout=timedelta(seconds=CONNECT_SECONDS)))
        backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(
            backend, store=PrefixStore("group", store), rank=rank, world_size=size, timeout=slowest
        )
        if chosen.type == "cuda":
            # NCCL connects when it is first used. Here everyone is at the same place, and a GPU that cannot be reached,
            # or is someone else's, is an error of this function's.
            dist.all_reduce(torch.zeros([], device=chosen))
            torch.cuda.synchronize()
    except (RuntimeError, ValueError) as error:
        cause = str(error).splitlines()[0]
        raise Sg3Error(f"{who}: cannot meet the others at {address}: {cause}") from error
    finally:
        waiting.cancel()
    return World(rank, size, chosen, PrefixStore("sg3", store))


def _end_with(launcher: int, rank: int) -> None:
    """End this process when that one has gone, where the others meet: they would wait for each other for minutes."""
    while os.getppid() == launcher:
        time.sleep(1)
    time.sleep(LAUNCHER_SECONDS)  # a run's watchdog is faster, and leaves an exit.json
    if rank == 0:
        say(f"error: {LAUNCHER_DIED}; start again")
    os._exit(Sg3Error.exit_code)


def meet_in(folder: Path, rank: int, size: int, device: torch.device) -> World:
    """Find the other processes of this machine, all of which name the same empty folder and a rank of their own."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    if (own := loopback()) is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", own)
    address = f"file://{folder}/meeting-point"
    dist.init_process_group(backend, init_method=address, rank=rank, world_size=size, timeout=SLOWEST_IN_METRICS)
    return World(rank, size, device)


def already_met(device: torch.device) -> World:
    """The processes of torch.distributed's default group, if there is one; else this one alone."""
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size(), device)
    return World(0, 1, device)


def _chosen(name: str) -> torch.device:
    """The device, which becomes torch's current one: streams, events and synchronisation mean that."""
    device = choose_device(name)
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def backends() -> dict[str, bool]:
    """What processes can exchange through, gloo on the CPU and nccl between GPUs, and whether this torch has it."""
    built = dist.is_available()
    return {"gloo": built and dist.is_gloo_available(), "nccl": built and dist.is_nccl_available()}
