"""torch.compile for the main phases (`--compile`).

G's synthesis and D are compiled, for the gradients that Gmain, Gboth and Dmain need. R1 and path length differentiate a
gradient, which torch.compile cannot: they run the networks as they are.

`graphs` also records what the GPU is told to do, as CUDA graphs, and repeats it without the host. What a graph returns
lies in memory that its next run overwrites, so gradients need memory of their own: `reserve_gradients`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from sg3.errors import Sg3Error, UsageError
from sg3.models import Discriminator, StyleGenerator


def compiled(network: nn.Module, mode: str) -> Callable[..., torch.Tensor]:
    """The network as a function of the same arguments, compiled at its first call and for every new kind of call."""
    if mode == "off":
        return network
    kind = "reduce-overhead" if mode == "graphs" else None
    function: Callable[..., torch.Tensor] = torch.compile(network, fullgraph=True, dynamic=False, mode=kind)
    return function


def check_device(mode: str, device: torch.device) -> None:
    """Raises UsageError for CUDA graphs without CUDA."""
    if mode == "graphs" and device.type != "cuda":
        raise UsageError(f"--compile=graphs: CUDA graphs need a GPU, and this run is on {device}; try --compile=on")


def warm_up(G: StyleGenerator, D: Discriminator, batch: int, device: torch.device) -> None:
    """Run both networks once, forward and backward, before the first graph is recorded.

    Ops keep what they prepare at their first call (filters as matrices, compiled kernels); inside a recording that
    would lie in the graph's memory, and be overwritten.
    """
    ws = torch.zeros([batch, G.num_ws, G.synthesis.w_dim], device=device, requires_grad=True)
    logits = D(G.synthesis(ws), torch.zeros([batch, D.c_dim], device=device))
    torch.autograd.grad(logits.sum(), [ws])


def reserve_gradients(module: nn.Module) -> None:
    """Give every parameter without a gradient one of zeros, for backward passes to add to."""
    for parameter in module.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def as_user_error(error: BaseException) -> Sg3Error | None:
    """One line for what torch.compile raises where it fails, None for other errors."""
    from torch._dynamo.exc import TorchDynamoException

    if not isinstance(error, TorchDynamoException):
        return None
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = next((line for line in lines if "error" in line.lower()), lines[0] if lines else type(error).__name__)
    return Sg3Error(f"--compile: torch.compile failed ({cause}); try --compile=off")
