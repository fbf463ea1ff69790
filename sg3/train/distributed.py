"""The processes of a run: which one this is, which device is its own, and what they tell each other.

One process per GPU. Whoever starts them says so in the environment: `sg3 train --gpus=N` and `torchrun` as RANK,
WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, Slurm's `srun` in its own words. A run of one process needs no
environment and exchanges nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import PrefixStore, Store

from sg3.device import choose_device
from sg3.errors import NumericalError, Sg3Error, UsageError

T = TypeVar("T")
CONNECT_SECONDS = 300  # for all processes to appear
SLOWEST_COLLECTIVE = timedelta(hours=2)  # the watchdog names a rank that hangs long before


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


class World:
    """All processes of a run, seen from one of them. With one process every exchange is the identity."""

    def __init__(self, rank: int, size: int, device: torch.device, store: Store | None = None) -> None:
        self.rank = rank
        self.size = size
        self.device = device
        self.store = store  # None if and only if there is one process

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and speaks to the user."""
        return self.rank == 0

    def add_up(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, value: T) -> list[T]:
        """Every process's value (plain data), by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def on_main(self, make: Callable[[], T]) -> T:
        """What `make` returns on rank 0, on every rank. If it raises there, the others leave with the same code."""
        if self.size == 1:
            return make()
        answer: list[Any] = [None, None]
        error: Exception | None = None
        if self.is_main:
            try:
                answer[0] = make()
            except Exception as caught:
                error, answer[1] = caught, getattr(caught, "exit_code", 70)
        dist.broadcast_object_list(answer, src=0)
        if error is not None:
            raise error
        if answer[1] is not None:
            raise SystemExit(answer[1])
        return answer[0]

    def as_main(self, *answers: bool) -> list[bool]:
        """Rank 0's answers, on every rank: what a clock or a signal decides must be decided once."""
        if self.size == 1:
            return list(answers)
        told = torch.tensor(answers, dtype=torch.uint8)
        dist.broadcast(told, src=0)
        return [bool(answer) for answer in told.tolist()]

    def close(self) -> None:
        """Say goodbye: from now on the others may end, too."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def join(device: str, gpus: int | None) -> World:
    """Find the other processes, if there are any, and the device of this one.

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
    if "MASTER_ADDR" not in os.environ or "MASTER_PORT" not in os.environ:
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = slurm_address(os.environ)
    os.environ.update(RANK=str(place.rank), WORLD_SIZE=str(place.size))
    from torch.distributed.rendezvous import rendezvous

    try:
        store, rank, size = next(rendezvous("env://", timeout=timedelta(seconds=CONNECT_SECONDS)))
        backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(
            backend, store=PrefixStore("group", store), rank=rank, world_size=size, timeout=SLOWEST_COLLECTIVE
        )
        if chosen.type == "cuda":
            # NCCL connects when it is first used. Here everyone is at the same place, and a GPU that cannot be reached,
            # or is someone else's, is an error of this function's.
            dist.all_reduce(torch.zeros([], device=chosen))
            torch.cuda.synchronize()
    except (RuntimeError, ValueError) as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        cause = str(error).splitlines()[0]
        raise Sg3Error(f"rank {place.rank} of {place.size}: cannot meet the others at {address}: {cause}") from error
    return World(rank, size, chosen, PrefixStore("sg3", store))


def _chosen(name: str) -> torch.device:
    """The device, which becomes torch's current one: streams, events and synchronisation mean that."""
    device = choose_device(name)
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def check_consistency(world: World, modules: Mapping[str, nn.Module]) -> None:
    """Raises NumericalError naming the first tensors, and the ranks, that are not bit for bit those of rank 0."""
    if world.size == 1:
        return
    named = [(f"{name}.{key}", t) for name, module in modules.items() for key, t in module.state_dict().items()]
    sums = torch.stack([_checksum(tensor) for _, tensor in named]).cpu().tolist()
    everyones = world.gather(sums)
    problems = []
    for index, (name, _) in enumerate(named):
        ranks = [rank for rank, theirs in enumerate(everyones) if theirs[index] != everyones[0][index]]
        if ranks:
            problems.append(f"{name} on rank {', '.join(map(str, ranks))}")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise NumericalError(
            f"the processes have drifted apart, different from rank 0: {'; '.join(problems[:3])}{more}; continue from "
            "the last state, and look for differing GPUs, drivers or versions"
        )


def _checksum(tensor: torch.Tensor) -> torch.Tensor:
    """Two 64-bit sums over the bits of a tensor, the second one weighted by place: int64 [2]."""
    bytes_ = tensor.detach().contiguous().flatten().view(torch.uint8).to(torch.int64)
    place = torch.arange(bytes_.numel(), device=bytes_.device) % 65521 + 1
    return torch.stack([bytes_.sum(), (bytes_ * place).sum()])
