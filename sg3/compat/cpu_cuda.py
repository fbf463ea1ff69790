"""`--device=cpu`: what `torch.cuda` answers where everything is on the CPU.

There is no GPU: `is_available()` is false and `device_count()` 0, which scripts that ask obey by themselves. For those
that do not, whatever waits for a GPU returns at once, its memory is 0 bytes, and its random numbers are the CPU's, so
that `torch.cuda.manual_seed` seeds them.
"""

from __future__ import annotations

import os
import platform
import time
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

from sg3.compat.changes import Changes
from sg3.resources import memory

QUIET = (  # nothing to do
    "synchronize", "empty_cache", "ipc_collect", "set_device", "init", "set_stream", "set_per_process_memory_fraction",
    "reset_peak_memory_stats", "reset_max_memory_allocated", "reset_max_memory_cached",
    "reset_accumulated_memory_stats",
)  # fmt: skip
MEMORY = (
    "memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved", "memory_cached",
    "max_memory_cached",
)  # fmt: skip
TYPES = ("Float", "Double", "Half", "BFloat16", "Byte", "Char", "Short", "Int", "Long", "Bool")


class Event:
    """Notes the time when it is recorded."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._time: float | None = None

    def record(self, stream: Any = None) -> None:
        self._time = time.perf_counter()

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this event to that one. Raises RuntimeError if one was not recorded."""
        if self._time is None or end_event._time is None:
            raise RuntimeError("Both events must be recorded before calculating elapsed time.")
        return (end_event._time - self._time) * 1000

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass

    def wait(self, stream: Any = None) -> None:
        pass


class Stream:
    """The one there is: all is done in the order in which it is asked for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.cuda_stream = 0

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record()
        return event

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass

    def wait_event(self, event: Any) -> None:
        pass

    def wait_stream(self, stream: Any) -> None:
        pass

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: Any) -> None:
        pass


def answers_without_a_gpu(torch: ModuleType, changes: Changes) -> None:
    """Give `torch.cuda` these answers."""
    cuda = torch.cuda
    answers: dict[str, Any] = {
        "is_available": lambda: False, "device_count": lambda: 0, "is_initialized": lambda: False,
        "is_bf16_supported": lambda *_, **__: False, "current_device": lambda: 0,
        "get_device_name": lambda device=None: platform.processor() or platform.machine(),
        "get_device_capability": lambda device=None: (0, 0), "get_arch_list": list,
        "get_device_properties": lambda device=None: _properties(),
        "mem_get_info": lambda device=None: (memory() or (0, 0))[::-1],
        "memory_stats": lambda device=None: {}, "memory_summary": lambda *_, **__: "no GPU, --device=cpu",
        "manual_seed": torch.default_generator.manual_seed, "manual_seed_all": torch.default_generator.manual_seed,
        "seed": torch.default_generator.seed, "seed_all": torch.default_generator.seed,
        "initial_seed": torch.default_generator.initial_seed,
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "get_rng_state_all": lambda: [torch.get_rng_state()],
        "set_rng_state": lambda state, device=None: torch.set_rng_state(state),
        "set_rng_state_all": lambda states: [torch.set_rng_state(state) for state in states],
        "default_generators": (torch.default_generator,), "Event": Event, "Stream": Stream,
        "current_stream": lambda device=None: Stream(), "default_stream": lambda device=None: Stream(),
        "stream": _anything, "device": _anything, "device_of": _anything,
        **{name: lambda *_, **__: None for name in QUIET}, **{name: lambda device=None: 0 for name in MEMORY},
        **{f"{name}Tensor": getattr(torch, f"{name}Tensor") for name in TYPES},
    }  # fmt: skip
    for name, answer in answers.items():
        changes.set(cuda, name, answer)
    for name in ("range_push", "range_pop", "range_start", "range_end", "mark"):
        changes.set(cuda.nvtx, name, lambda *_, **__: 0)
    changes.set(cuda.nvtx, "range", _anything)


def _anything(*_: Any, **__: Any) -> AbstractContextManager[None]:
    """A context in which all is as outside."""
    return nullcontext()


def _properties() -> SimpleNamespace:
    name = platform.processor() or platform.machine()
    return SimpleNamespace(name=name, major=0, minor=0, total_memory=(memory() or (0, 0))[0],
                           multi_processor_count=os.cpu_count() or 1)  # fmt: skip
