"""How the ops reach PyTorch's dispatcher, torch.compile and autograd.

What PyTorch cannot see through (a Triton launch, a loop over portions of planes) is registered as an op of the
namespace `sg3`, with a schema, an implementation, a fake for tracing, and a derivative. The derivative of an op is
written with registered ops again, each with a derivative of its own. This is the one arrangement in which gradients of
gradients (R1, path length) are right both eager and compiled; an autograd.Function whose backward is another
autograd.Function loses parameter gradients under torch.compile without a word.

Where nobody watches (nothing is traced or transformed), calling an op calls its implementation, and where a gradient is
wanted one autograd.Function around it and the same derivative: torch.library's way there takes longer than a launch.
What transforms functions (torch.func.grad, vjp, jacrev, vmap) takes another autograd.Function, of the kind that it asks
for; torch.library's is not.

What is plain PyTorch throughout (`impl='ref'`) is left to PyTorch's own autograd. Forward-mode derivatives (jvp) exist
there only: PyTorch would drop the tangents of registered ops without a word, so asking for them raises.
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
    transformable = _transformable(name, run, op, save, backward)

    def call(*args: Any) -> Any:
        if torch.compiler.is_compiling():  # the compiler need not look into what follows
            return op(*args)
        transformed = _is_transformed()
        if not transformed and _is_watched(args):
            return op(*args)
        converted = [a if convert is None or a is None else convert(a)
                     for a, convert in zip(args, converters, strict=True)]  # fmt: skip
        if transformed:
            return transformable(*converted)
        return differentiable(*converted) if _is_recorded(args) else run(*converted)

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


def _transformable(
    name: str, run: Callable[..., Any], op: Callable[..., Any], save: Callable[..., None], backward: Callable[..., Any]
) -> Callable[..., Any]:
    """The same for torch.func, which asks that `forward` does not see the context. PyTorch takes longer to call it.

    Where anybody still watches, as torch.vmap does, which runs `op` for each image of its batch, it is `op` that runs.
    """

    def forward(*args: Any) -> Any:
        return op(*args) if _is_watched(args) else run(*args)

    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise NotImplementedError(f"{name}: has no forward-mode derivative (jvp); use impl='ref'")

    members = {
        "forward": staticmethod(forward), "setup_context": staticmethod(save), "backward": staticmethod(backward),
        "jvp": staticmethod(jvp), "generate_vmap_rule": True,
    }  # fmt: skip
    apply: Callable[..., Any] = type(name, (torch.autograd.Function,), members).apply  # type: ignore[attr-defined]
    return apply


def may_be_differentiated(*tensors: torch.Tensor | None) -> bool:
    """Whether a gradient of a call with these may be asked for; torch.vmap hides whether they require one."""
    if _is_recorded(tensors):
        return True
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return False
    top = torch._C._functorch.peek_interpreter_stack()
    return top is not None and bool(top.key() == torch._C._functorch.TransformType.Vmap)


def _is_recorded(args: tuple[Any, ...]) -> bool:
    return torch.is_grad_enabled() and any(isinstance(a, torch.Tensor) and a.requires_grad for a in args)


def _is_transformed() -> bool:
    """Whether torch.func differentiates or batches what is called, or forward-mode differentiation is under way."""
    top = torch._C._functorch.peek_interpreter_stack()
    if top is not None:
        return bool(top.key() != torch._C._functorch.TransformType.Functionalize)
    return bool(torch.autograd.forward_ad._current_level >= 0)


# What the dispatcher makes of arguments that are almost of the schema's types: implementations count on it.
_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "int": int, "float": float, "bool": bool, "Optional[float]": float, "List[int]": list, "List[float]": list,
    # What was saved within torch.func.grad comes wrapped when it is used behind it.
    "Tensor": torch._C._functorch.unwrap_if_dead, "Optional[Tensor]": torch._C._functorch.unwrap_if_dead,
}  # fmt: skip

def _is_watched(args: tuple[Any, ...]) -> bool:
    """Whether anything but the implementation and autograd has to know of a call: what `unobserved` looks for, the
    profiler, or a tensor of a kind that has its own idea of what calling an op means."""
    if not unobserved() or torch._C._autograd._profiler_enabled():
        return True
    return any(isinstance(a, torch.Tensor) and type(a) not in PLAIN for a in args)
