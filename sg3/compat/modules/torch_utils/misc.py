"""`torch_utils.misc`: what the original's networks and scripts use of it, written anew."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import nan_to_num as nan_to_num
from torch import nn

P = ParamSpec("P")
R = TypeVar("R")

symbolic_assert = torch._assert  # a check that tracing keeps


def constant(
    value: Any,
    shape: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    memory_format: torch.memory_format | None = None,
) -> torch.Tensor:
    """A constant tensor, the same object for the same arguments: it is copied to the device once. Never written to."""
    array = np.asarray(value)
    return _constant(array.tobytes(), array.dtype.str, array.shape, None if shape is None else tuple(shape),
                     dtype or torch.get_default_dtype(), torch.device(device or "cpu"), memory_format)  # fmt: skip


@functools.lru_cache(maxsize=256)  # networks and augmentations have a dozen
def _constant(
    data: bytes, kind: str, value_shape: tuple[int, ...], shape: tuple[int, ...] | None, dtype: torch.dtype,
    device: torch.device, memory_format: torch.memory_format | None,
) -> torch.Tensor:  # fmt: skip
    tensor = torch.tensor(np.frombuffer(data, kind).reshape(value_shape), dtype=dtype, device=device)
    if shape is not None:
        tensor = tensor.expand(shape)
    return tensor.contiguous(memory_format=memory_format or torch.contiguous_format)


@contextmanager
def suppress_tracer_warnings() -> Iterator[None]:
    """Within it, torch.jit.trace does not warn of what it cannot see."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        yield


def assert_shape(tensor: torch.Tensor, ref_shape: Sequence[int | None]) -> None:
    """Raises AssertionError unless the tensor has this shape; None stands for any size."""
    fits = tensor.ndim == len(ref_shape) and all(
        ref is None or size == ref for size, ref in zip(tensor.shape, ref_shape, strict=True)
    )
    if not fits:
        raise AssertionError(f"tensor of shape {list(tensor.shape)}, expected {list(ref_shape)}")


def profiled_function(fn: Callable[P, R]) -> Callable[P, R]:
    """Decorator: the function appears under its name in torch's profiler."""

    @functools.wraps(fn)
    def profiled(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.autograd.profiler.record_function(fn.__name__):
            return fn(*args, **kwargs)

    return profiled


class InfiniteSampler(torch.utils.data.Sampler[int]):
    """Indices of a dataset without end, every `num_replicas`-th of them, beginning with the `rank`-th.

    With `shuffle`, the first pass is a permutation; after that each index, once used, changes places with one of those
    up to `window_size` times the dataset's length before it. The order follows from `seed`.
    """

    def __init__(self, dataset: Any, rank: int = 0, num_replicas: int = 1, shuffle: bool = True, seed: int = 0,
                 window_size: float = 0.5) -> None:  # fmt: skip
        if len(dataset) < 1 or num_replicas < 1 or not 0 <= rank < num_replicas or not 0 <= window_size <= 1:
            raise ValueError(f"InfiniteSampler: got {len(dataset)} items, rank {rank} of {num_replicas}, "
                             f"window_size {window_size}")
        self.size = len(dataset)
        self.rank = rank
        self.num_replicas = num_replicas
        self.shuffle = shuffle
        self.seed = seed
        self.window_size = window_size

    def __iter__(self) -> Iterator[int]:
        order = np.arange(self.size)
        random = np.random.RandomState(self.seed)
        window = round(self.size * self.window_size) if self.shuffle else 0
        if self.shuffle:
            random.shuffle(order)
        step = 0
        while True:
            at = step % self.size
            if step % self.num_replicas == self.rank:
                yield int(order[at])
            if window >= 2:
                other = (at - random.randint(window)) % self.size
                order[[at, other]] = order[[other, at]]
            step += 1


def params_and_buffers(module: nn.Module) -> list[torch.Tensor]:
    """All parameters, then all buffers."""
    return [*module.parameters(), *module.buffers()]


def named_params_and_buffers(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """All parameters, then all buffers, with their names."""
    return [*module.named_parameters(), *module.named_buffers()]


def copy_params_and_buffers(src_module: nn.Module, dst_module: nn.Module, require_all: bool = False) -> None:
    """Copy what both have by the same name; with `require_all` the source must have all of it (else KeyError)."""
    source = dict(named_params_and_buffers(src_module))
    with torch.no_grad():
        for name, tensor in named_params_and_buffers(dst_module):
            if name in source:
                tensor.copy_(source[name])
            elif require_all:
                raise KeyError(f"{name}: is not in {type(src_module).__name__}")


def ddp_sync(module: nn.Module, sync: bool) -> AbstractContextManager[None]:
    """Within it, a DistributedDataParallel averages gradients over the ranks only if `sync`. Others are left alone."""
    if sync or not isinstance(module, nn.parallel.DistributedDataParallel):
        return nullcontext()
    return module.no_sync()


def check_ddp_consistency(module: nn.Module, ignore_regex: str | None = None) -> None:
    """Raises AssertionError unless all parameters and buffers, but those ignored, equal those of rank 0. The names
    that `ignore_regex` must match as a whole begin with the class of the module."""
    for name, tensor in named_params_and_buffers(module):
        full_name = f"{type(module).__name__}.{name}"
        if ignore_regex is not None and re.fullmatch(ignore_regex, full_name):
            continue
        mine = tensor.detach()
        theirs = mine.clone()
        torch.distributed.broadcast(theirs, src=0)
        if not torch.equal(mine.nan_to_num(), theirs.nan_to_num()):
            raise AssertionError(f"{full_name} differs from rank 0's")


def print_module_summary(
    module: nn.Module, inputs: Sequence[Any], max_nesting: int = 3, skip_redundant: bool = True
) -> Any:
    """Run the module on the inputs, print what its submodules made of them, and return its outputs.

    A line for each submodule down to `max_nesting` levels: parameters, buffers, shape and dtype of the output.
    `skip_redundant` leaves out those without parameters, buffers or outputs of their own.
    """
    calls: list[tuple[str, nn.Module, list[torch.Tensor]]] = []
    handles = []

    def note(name: str) -> Callable[..., None]:
        def hook(submodule: nn.Module, _inputs: Any, output: Any) -> None:
            if not name or name.count(".") < max_nesting:
                tensors = output if isinstance(output, tuple | list) else [output]
                calls.append((name, submodule, [t for t in tensors if isinstance(t, torch.Tensor)]))

        return hook

    try:
        handles += [submodule.register_forward_hook(note(name)) for name, submodule in module.named_modules()]
        outputs = module(*inputs)
    finally:
        for handle in handles:
            handle.remove()

    counted: set[int] = set()
    rows: list[tuple[str, ...]] = [("module", "parameters", "buffers", "output shape", "dtype")]
    for name, submodule, tensors in calls:
        counts = []
        for own in (submodule.parameters(), submodule.buffers()):
            fresh = [t for t in own if id(t) not in counted]
            counted.update(map(id, fresh))
            counts.append(sum(t.numel() for t in fresh))
        outputs_seen = [t for t in tensors if id(t) not in counted]
        counted.update(map(id, tensors))
        if skip_redundant and not any(counts) and not outputs_seen:
            continue
        shapes = [(str(list(t.shape)), str(t.dtype).removeprefix("torch.")) for t in tensors] or [("-", "-")]
        rows.append((name or "<top-level>", *(str(n) if n else "-" for n in counts), *shapes[0]))
        rows += [("", "", "", *shape) for shape in shapes[1:]]
    total = [sum(t.numel() for t in own) for own in (module.parameters(), module.buffers())]
    rows.append(("total", *map(str, total), "-", "-"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return outputs
