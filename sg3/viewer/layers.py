"""What the layers of a network give for a picture: sizes and statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from math import isfinite
from typing import Any

import torch
from torch import nn

from sg3.models import stylegan2, stylegan3
from sg3.viewer.pictures import Painter
from sg3.viewer.state import State

Watch = Callable[[str, torch.Tensor], None]


def statistics(painter: Painter, state: State, check: Callable[[], None] = lambda: None) -> list[dict[str, Any]]:
    """For each layer, in the order they run: name, shape [C, H, W], type, mean, std and largest magnitude; None for
    what is no finite number."""
    found: list[dict[str, Any]] = []

    def note(name: str, x: torch.Tensor) -> None:
        check()
        values = x.detach()[0].double()
        found.append({
            "name": name, "shape": list(values.shape), "type": str(x.dtype).removeprefix("torch."),
            "mean": finite(float(values.mean())), "std": finite(float(values.std(unbiased=False))),
            "max": finite(float(values.abs().max())),
        })  # fmt: skip

    with watched(painter, note):
        painter.stepwise.forget()  # a layer that is not run shows nothing
        painter.image(state, check, by_layers=True)
    return found


def finite(value: float) -> float | None:
    """The number; None for what JSON has no word for."""
    return value if isfinite(value) else None


@contextmanager
def watched(painter: Painter, watch: Watch) -> Iterator[None]:
    """Inside, `watch` gets the name of each layer that runs and what it gives, [1, C, H, W]."""

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def see(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and output.ndim == 4:
                watch(name, output)

        return see

    with ExitStack() as stack:
        for name, module in layer_modules(painter):
            handle = module.register_forward_hook(hook(name))
            stack.callback(handle.remove)
        yield


def layer_modules(painter: Painter) -> list[tuple[str, nn.Module]]:
    """The parts of a network that one would call its layers, by name."""
    network = painter.walkable.synthesis
    if isinstance(network, stylegan3.SynthesisNetwork):
        return [(name, network.get_submodule(name)) for name in ("input", *network.layer_names)]
    if isinstance(network, stylegan2.SynthesisNetwork):
        kinds = (stylegan2.SynthesisLayer, stylegan2.ToRGBLayer)
        return [(name, module) for name, module in network.named_modules() if isinstance(module, kinds)]
    # FastGAN, R3GAN: what is neither the whole nor a detail.
    found = []
    for name, module in painter.G.named_modules():
        if name and name.count(".") <= 2 and not isinstance(module, nn.ModuleList):
            found.append((name, module))
    return found
