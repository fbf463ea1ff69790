"""What a layer computes from its weights alone, kept between calls in inference.

Normalised, scaled or cast weights are the same in every call until somebody changes the weights. A layer that owns a
`Kept` computes them once. It never keeps anything while gradients are recorded, while PyTorch traces or transforms
(torch.compile, export, vmap, fake tensors), or while a CUDA graph is captured, which has to contain what it needs.

PyTorch counts writes to a tensor, in place of any kind, by optimizers, `load_state_dict` and averages of weights; that
count and the memory's address tell whether a value still holds. Writes through `.data` are not counted: after one, call
`forget` or `torch.autograd.graph.increment_version`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch

Value = TypeVar("Value")

PLAIN = (torch.Tensor, torch.nn.Parameter)


def unobserved() -> bool:
    """Whether nothing looks on as operations run: no mode (fake tensors, export), functorch, forward-mode
    differentiation, tracer or compiler."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._get_tracing_state() is not None
    )


class Kept:
    """Values by name, each with what it was computed from. Copies and pickles of it are empty: it belongs to one layer.

    An entry holds on to the memory of its sources, so their addresses cannot come to mean others.
    """

    def __init__(self) -> None:
        self._entries: dict[str, tuple[Hashable, list[torch.Tensor], Any]] = {}

    def get(
        self, name: str, sources: tuple[torch.Tensor, ...], how: Hashable, compute: Callable[[], Value]
    ) -> Value:
        """`compute()`, or what it gave when it was last called for these sources as they are now.

        `how` is what else the value depends on. The value is a tensor or a tuple of them, not to be written to.
        """
        if torch.is_grad_enabled() or not may_keep(sources):
            return compute()
        now = how, tuple(identity(source) for source in sources)
        entry = self._entries.get(name)
        if entry is not None and entry[0] == now:
            value: Value = entry[2]
            return value
        with torch.inference_mode(False), torch.no_grad():  # what is kept must serve outside of inference_mode, too
            value = compute()
        self._entries[name] = now, [source.detach() for source in sources], value
        return value

    def forget(self) -> None:
        """Drop everything."""
        self._entries.clear()

    def __deepcopy__(self, memo: object) -> Kept:
        return Kept()

    def __copy__(self) -> Kept:
        return Kept()

    def __reduce__(self) -> tuple[type[Kept], tuple[()]]:
        return Kept, ()


def may_keep(sources: tuple[torch.Tensor, ...]) -> bool:
    """Whether a change of all sources would be noticed, and nobody needs to see how the value comes about."""
    if not unobserved():
        return False
    if any(type(source) not in PLAIN or source.is_inference() for source in sources):
        return False
    return not (sources[0].is_cuda and torch.cuda.is_current_stream_capturing())


def identity(source: torch.Tensor) -> Hashable:
    # On a GPU, what another stream computes may not be there yet.
    stream = torch.cuda.current_stream(source.device).stream_id if source.is_cuda else None
    return source.data_ptr(), source._version, source.dtype, source.device, source.shape, source.stride(), stream
