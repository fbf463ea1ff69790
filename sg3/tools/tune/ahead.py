"""Kernels compiled in parallel processes, for a GPU that need not be there. Triton keeps them in its cache.

In these processes launches are written down instead of carried out (`triton_aot.recorded`), so they see no GPU, and the
tensors of calls are memory that nobody touches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch

from sg3.kernels import tuning
from sg3.kernels.triton_aot import Launch, recorded
from sg3.tools.tune.calls import Blank, Call

CPU = torch.device("cpu")
Classes = tuple[tuple[str, str], ...]  # of a call: names of tunables and of their classes


@dataclass(frozen=True)
class Target:
    """A GPU to compile for: its architecture as 80, 90 ..., and its name, which tables go by, if it is known."""

    arch: int
    gpu: str | None


@dataclass
class Outcome:
    """How many kernels were compiled, and one line for each that could not be."""

    compiled: int = 0
    failed: list[str] = field(default_factory=list)


@contextmanager
def compilers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes for the functions below."""
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _begin)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)  # after an error what is still to be done need not be


def _begin() -> None:
    torch.set_num_threads(1)


def by_classes(pool: ProcessPoolExecutor, calls: Iterable[Call], target: Target) -> dict[Classes, list[Call]]:
    """The calls whose kernels have the same choice of configurations, in the order given."""
    calls = list(calls)
    groups: dict[Classes, list[Call]] = {}
    for call, classes in zip(calls, pool.submit(_classes, calls, target).result(), strict=True):
        groups.setdefault(classes, []).append(call)
    return groups


def compile_groups(
    pool: ProcessPoolExecutor, groups: Iterable[Sequence[Call]], target: Target, every_candidate: bool
) -> Iterator[Outcome]:
    """Compile what the calls launch: with the configuration that tables or rules give, or with every candidate.

    A group's calls are compiled one after the other, for most of them need the same kernels. An outcome for each group,
    in their order, while later ones are being compiled.
    """
    task = partial(_compile, target=target, every_candidate=every_candidate)
    return pool.map(task, [list(group) for group in groups])


def _classes(calls: Sequence[Call], target: Target) -> list[Classes]:
    """In a process of the pool: the classes of each call."""
    found: list[Classes] = []
    seen: list[tuple[str, str]] = []

    def note(tunable: Any, group: Any, arguments: tuple[Any, ...]) -> Sequence[torch.Tensor]:
        seen.append((tunable.name, tuning.class_name(group)))
        written: Sequence[torch.Tensor] = tunable.launch(tunable.rule(group, target.arch), *arguments)
        return written

    with torch.no_grad(), recorded(target.arch), tuning.observed(note):
        for call in calls:
            seen.clear()
            call.run(_untouched, CPU)
            found.append(tuple(seen))
    return found


def _compile(calls: Sequence[Call], target: Target, every_candidate: bool) -> Outcome:
    """In a process of the pool: compile the launches of these calls."""
    outcome = Outcome()
    with torch.no_grad(), recorded(target.arch) as launches:

        def launch(tunable: Any, group: Any, arguments: tuple[Any, ...]) -> Sequence[torch.Tensor]:
            configurations = [tuning.look_up(tunable, group, target.arch, target.gpu)]
            if every_candidate:
                configurations = tunable.candidates(group, target.arch)
            for configuration in configurations:
                written: Sequence[torch.Tensor] = tunable.launch(configuration, *arguments)
            return written

        with tuning.observed(launch):
            for call in calls:
                call.run(_untouched, CPU)
    for launch_ in launches:
        _compile_one(launch_, target, outcome)
    return outcome


def _compile_one(launch: Launch, target: Target, outcome: Outcome) -> None:
    try:
        launch.compile(target.arch)
    except OSError:  # of the disk that Triton's cache is on, not of this kernel
        raise
    except Exception as error:  # a candidate that asks for too much; of the compiler's errors there are many kinds
        outcome.failed.append(f"{launch.kernel.__name__}: {' '.join(str(error).split())[:200]}")
    else:
        outcome.compiled += 1


def _untouched(blank: Blank) -> torch.Tensor:
    return blank.empty(CPU)
