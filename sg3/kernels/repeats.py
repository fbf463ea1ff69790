"""A call made again: the launch that one call has come to serves the next call like it.

Before a Triton kernel starts, a call checks its arguments, finds what was prepared for its filters, chooses a
configuration and works out some fifty numbers. In inference, where a layer makes the same call for every image, that
takes several times as long as handing the launch over. So a launch is kept under a key: everything that it depends on
but the contents of the call's own tensors. Tensors beside those are constants, and the key says which they are: where
they lie in memory and how often they were written to.

Nothing is kept where something looks on (`kept.unobserved`, autocast, the profiler), nor during the capture of a CUDA
graph, nor while somebody changes how launches come about (`tuning.observed`, `triton_aot.recorded`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from sg3.kernels.arguments import autocasting
from sg3.kernels.kept import PLAIN, unobserved

MOST = 512  # calls; a StyleGAN3 generator has 15 for each batch size


class Start(NamedTuple):
    """What started a kernel. `fixed`: those of the arguments that are the same tensors in every call of its kind;
    `room`: those that it fills for others of the call."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    fixed: tuple[torch.Tensor, ...]
    room: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Repeat:
    """Launches that fill y from x and other tensors, to be made again with others of their sizes.

    The call's own tensors are numbered: y, x, the others, then the room that its launches need.
    """

    starts: tuple[Start, ...]                       # without the call's own tensors
    places: tuple[tuple[tuple[int, int], ...], ...]  # in each one, which argument is which of those
    size: tuple[int, ...]                           # of y
    strides: tuple[int, ...]
    room: tuple[tuple[tuple[int, ...], torch.dtype], ...]
    constants: tuple[object, ...]  # of which the key holds the addresses: they must not come to mean others

    def __call__(self, x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        """y, of x's dtype."""
        y = x.new_empty_strided(self.size, self.strides)
        own = [y, x, *others, *(x.new_empty(size, dtype=dtype) for size, dtype in self.room)]
        with torch.cuda.device_of(x):
            for (kernel, grid, given, options, *_), places in zip(self.starts, self.places, strict=True):
                arguments = list(given)
                for place, number in places:
                    arguments[place] = own[number]
                kernel[grid](*arguments, **options)
        return y


class Repeats:
    """What calls come to, by their keys. The oldest go first: one that is made again is kept again."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._calls: dict[Hashable, Repeat] = {}
        self._lock = threading.Lock()
        self._paused = 0

    def get(self, key: Hashable) -> Repeat | None:
        return None if self._paused else self._calls.get(key)

    def keep(
        self, key: Hashable, starts: Sequence[Start], y: torch.Tensor, own: Sequence[torch.Tensor],
        constants: Sequence[object],
    ) -> None:  # fmt: skip
        """What the call `key` has started, if that takes no tensors but its own, y, x and others, fixed ones and room.
        It was given `constants`, too."""
        if not starts or self._paused:
            return
        room = [tensor for start in starts for tensor in start.room]
        mine = [y, *own, *room]
        bare, places = [], []
        for start in starts:
            arguments, of_start = list(start.arguments), []
            for place, argument in enumerate(arguments):
                if not isinstance(argument, torch.Tensor) or any(argument is fixed for fixed in start.fixed):
                    continue
                number = next((i for i, tensor in enumerate(mine) if argument is tensor), None)
                if number is None:
                    return  # it was copied for the launch, say
                of_start.append((place, number))
                arguments[place] = None
            bare.append(start._replace(arguments=tuple(arguments), room=()))
            places.append(tuple(of_start))
        repeat = Repeat(tuple(bare), tuple(places), tuple(y.shape), y.stride(),
                        tuple((tuple(r.shape), r.dtype) for r in room), tuple(constants))  # fmt: skip
        with self._lock:
            while len(self._calls) >= self._most:
                del self._calls[next(iter(self._calls))]
            self._calls[key] = repeat

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within it, calls are made in full, and none is kept."""
        with self._lock:
            self._paused += 1
        try:
            yield
        finally:
            with self._lock:
                self._paused -= 1

    def forget(self) -> None:
        """Drop everything."""
        with self._lock:
            self._calls.clear()

    def __len__(self) -> int:
        return len(self._calls)


repeats = Repeats(MOST)


def may_repeat(x: torch.Tensor, *others: torch.Tensor | None) -> bool:
    """Whether all that a call of these tensors leads to is launches, so that nobody misses the rest of it."""
    if torch.compiler.is_compiling() or not unobserved() or torch._C._autograd._profiler_enabled():
        return False
    recording = torch.is_grad_enabled()
    for t in (x, *others):
        if t is not None and (type(t) not in PLAIN or (recording and t.requires_grad)):
            return False
    if x.is_cuda:
        return not (torch.cuda.is_current_stream_capturing() or autocasting(x))
    return x.is_cpu and not autocasting(x)


def place_of(x: torch.Tensor) -> Hashable:
    """Of a call's own tensor: all but its contents and where it lies, of which only the alignment counts."""
    return x.shape, x.stride(), x.dtype, x.device, x.data_ptr() % 16


def value_of(f: torch.Tensor | None) -> Hashable:
    """Of a constant: what changes when its values do. Writes to what was made under inference_mode are not counted."""
    if f is None:
        return None
    version = None if f.is_inference() else f._version
    return f.data_ptr(), version, f.shape, f.stride(), f.dtype, f.device, f.requires_grad


def stream_of(x: torch.Tensor) -> int | None:
    """On a GPU, PyTorch has to know which streams use a constant, so that each has its own launches."""
    return torch.cuda.current_stream(x.device).stream_id if x.is_cuda else None


def float32_switches() -> Hashable:
    """What says how float32 may be multiplied (`triton_launch.dot_precision`, `exact_float32`)."""
    ours, newer, older = os.environ.get("SG3_FLOAT32"), torch.backends.cuda.matmul.fp32_precision, None
    if newer == "tf32":
        with suppress(RuntimeError):  # it is not to be asked after the newer switch was used
            older = torch.get_float32_matmul_precision()
    return ours, newer, older
