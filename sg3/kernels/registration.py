"""How the ops reach PyTorch's dispatcher, torch.compile and autograd.

What PyTorch cannot see through (a Triton launch, a loop over portions of planes) is registered as an op of the
namespace `sg3`, with a schema, an implementation, a fake for tracing, and a derivative. The derivative of an op is
written with registered ops again, each with a derivative of its own. This is the one arrangement in which gradients of
gradients (R1, path length) are right both eager and compiled; an autograd.Function whose backward is another
autograd.Function loses parameter gradients under torch.compile without a word.

Where nobody watches (nothing is traced or transformed), calling an op calls its implementation, and where a gradient is
wanted one autograd.Function around it and the same derivative: torch.library's way there takes longer than a launch.

What is plain PyTorch throughout (`impl='ref'`) is left to PyTorch's own autograd. Forward-mode derivatives (jvp) exist
there only: PyTorch drops the tangents of registered ops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sg3.kernels.arguments import no_autocast
from sg3.kernels.kept import PLAIN, unobserved

_library = torch.library.Library("sg3", "FRAGMENT")


def register(
    schema: str,
    implementation: Callable[..., Any],
    fake: Callable[..., Any],
    save: Callable[..., None],
    backward: Callable[..., Any],
) -> Callable[..., Any]:
    """Define `sg3::NAME` from 'NAME(Tensor x, ...) -> ...' and return a function that calls it.

    `implementation` and `fake` take the schema's arguments; the fake only allocates the result, contiguous
    (`x.new_empty`) unless the implementation says otherwise. `save(ctx, inputs, output)` keeps what `backward(ctx,
    *gradients)` needs, which returns one gradient or None per argument and consists of differentiable ops only.
    """

    def run(x: torch.Tensor, *rest: Any) -> Any:
        with no_autocast(x):  # an op follows its first argument's dtype, in its derivative too
            return implementation(x, *rest)

    name = schema.partition("(")[0]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, run, "CompositeExplicitAutograd")  # one for all devices
    torch.library.register_fake(f"sg3::{name}", fake, lib=_library)
    torch.library.register_autograd(f"sg3::{name}", backward, setup_context=save, lib=_library)
    op = getattr(torch.ops.sg3, name).default
    converters = [_CONVERTERS.get(str(argument.real_type)) for argument in op._schema.arguments]
    differentiable = _differentiable(name, run, save, backward)

    def call(*args: Any) -> Any:
        if torch.compiler.is_compiling() or _is_watched(args):  # the compiler need not look into the second
            return op(*args)
        converted = [a if convert is None or a is None else convert(a)
                     for a, convert in zip(args, converters, strict=True)]  # fmt: skip
        recorded = torch.is_grad_enabled() and any(isinstance(a, torch.Tensor) and a.requires_grad for a in args)
        return differentiable(*converted) if recorded else run(*converted)

    call.__name__ = call.__qualname__ = name
    return call


def _differentiable(
    name: str, run: Callable[..., Any], save: Callable[..., None], backward: Callable[..., Any]
) -> Callable[..., Any]:
    """What calls `run` and has the derivative `backward`, in the words of `register`."""

    def forward(ctx: Any, *args: Any) -> Any:
        output = run(*args)
        save(ctx, args, output)
        return output

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    apply: Callable[..., Any] = type(name, (torch.autograd.Function,), methods).apply  # type: ignore[attr-defined]
    return apply


# What the dispatcher makes of arguments that are almost of the schema's types: implementations count on it.
_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "int": int, "float": float, "bool": bool, "Optional[float]": float, "List[int]": list, "List[float]": list,
}  # fmt: skip

def _is_watched(args: tuple[Any, ...]) -> bool:
    """Whether anything but the implementation and autograd has to know of a call: what `unobserved` looks for, the
    profiler, or a tensor of a kind that has its own idea of what calling an op means."""
    if not unobserved() or torch._C._autograd._profiler_enabled():
        return True
    return any(isinstance(a, torch.Tensor) and type(a) not in PLAIN for a in args)
