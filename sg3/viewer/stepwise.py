"""A synthesis network run layer by layer, from the first layer on that sees something new.

The steps are those of the network's own `forward`, in the same order on the same numbers, so pictures are equal to the
last bit. Between them there is time to stop, and what comes out of a step is kept for the next picture: another style
of a late layer, or other noise, runs only what follows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from sg3.models import stylegan2, stylegan3

KEPT_BYTES = 2**29  # of features of one network

Carry = Any  # what goes from step to step: features, for StyleGAN2 with the image so far


@dataclass(frozen=True)
class Noise:
    """How StyleGAN2's and FastGAN's noise is made."""

    mode: str = "const"
    seed: int = 0  # of random noise
    strength: float = 1.0  # factor on StyleGAN2's
    maps: str = ""  # a name of the maps that take the place of StyleGAN2's own


@dataclass(frozen=True)
class Step:
    """`run(carry, ws of these layers, noise, fp32)`; `other` is what else the result depends on."""

    first: int
    stop: int
    run: Callable[[Carry, torch.Tensor, Noise, bool], Carry]
    has_noise: bool
    other: Callable[[], Hashable] = lambda: None


class Stepwise:
    """`network` is the synthesis network of any generator; those of StyleGAN3 and StyleGAN2 are run in steps."""

    def __init__(self, network: nn.Module) -> None:
        self._maps: dict[str, torch.Tensor] = {}
        self._steps = _steps(network, self._maps)
        self._kept: list[tuple[Hashable, Carry]] = []

    def run(
        self, ws: torch.Tensor, noise: Noise, fp32: bool, check: Callable[[], None],
        maps: Mapping[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """ws [1, num_ws, w_dim] -> image [1, C, R, R], float32. `check` is called before each step and may raise.

        `maps` are StyleGAN2's constant noise by the names of its buffers, if it is not the network's own.
        """
        carry = self.run_to(len(self._steps) - 1, ws, noise, fp32, check, maps)
        image: torch.Tensor = carry[1] if isinstance(carry, tuple) else carry
        return image

    def run_to(
        self, last: int, ws: torch.Tensor, noise: Noise, fp32: bool, check: Callable[[], None],
        maps: Mapping[str, torch.Tensor] | None = None,
    ) -> Carry:  # fmt: skip
        """The same, but only up to a step, and what it gives."""
        self._maps.clear()
        self._maps.update(maps or {})
        keys = self._keys(ws, noise, fp32)
        done = 0
        while done < min(last + 1, len(self._kept)) and self._kept[done][0] == keys[done]:
            done += 1
        if done <= last:
            del self._kept[done:]
        carry: Carry = self._kept[done - 1][1] if done else None
        bytes_kept = sum(_bytes(kept) for _, kept in self._kept)
        goes_on = done == len(self._kept)
        for index in range(done, last + 1):
            check()
            step = self._steps[index]
            with torch.no_grad(), _random(noise, index, ws.device) if step.has_noise else nullcontext():
                carry = step.run(carry, ws[:, step.first : step.stop], noise, fp32)
            bytes_kept += _bytes(carry)
            goes_on = goes_on and bytes_kept <= KEPT_BYTES
            if goes_on:
                self._kept.append((keys[index], carry))
        return carry

    def forget(self) -> None:
        """Drop what is kept."""
        self._kept.clear()

    def _keys(self, ws: torch.Tensor, noise: Noise, fp32: bool) -> list[Hashable]:
        """For each step, what its result depends on beside the step before."""
        host = ws.detach().cpu()
        return [
            (host[:, step.first : step.stop].numpy().tobytes(), noise if step.has_noise else None, fp32, step.other())
            for step in self._steps
        ]


def _steps(network: nn.Module, maps: Mapping[str, torch.Tensor]) -> list[Step]:
    if isinstance(network, stylegan3.SynthesisNetwork):
        return _stylegan3_steps(network)
    if isinstance(network, stylegan2.SynthesisNetwork):
        return _stylegan2_steps(network, maps)

    def whole(_: Carry, ws: torch.Tensor, noise: Noise, fp32: bool) -> Carry:
        return network(ws, noise_mode=noise.mode)

    return [Step(0, 1, whole, has_noise=True)]


def _stylegan3_steps(network: stylegan3.SynthesisNetwork) -> list[Step]:
    def start(_: Carry, ws: torch.Tensor, noise: Noise, fp32: bool) -> Carry:
        return network.input(ws[:, 0].to(torch.float32))

    def layer(name: str) -> Callable[[Carry, torch.Tensor, Noise, bool], Carry]:
        module = network.get_submodule(name)
        return lambda x, ws, noise, fp32: module(x, ws[:, 0].to(torch.float32), noise.mode, fp32, False)

    def last(x: Carry, ws: torch.Tensor, noise: Noise, fp32: bool) -> Carry:
        return (x.to(torch.float32) * network.output_scale).contiguous()

    def transform() -> Hashable:
        return network.input.transform.detach().cpu().numpy().tobytes()

    layers = [Step(i, i + 1, layer(name), False) for i, name in enumerate(network.layer_names, 1)]
    return [Step(0, 1, start, False, transform), *layers, Step(0, 0, last, False)]


def _stylegan2_steps(network: stylegan2.SynthesisNetwork, maps: Mapping[str, torch.Tensor]) -> list[Step]:
    def block(name: str, module: stylegan2.SynthesisBlock) -> Callable[[Carry, torch.Tensor, Noise, bool], Carry]:
        strengths = {key: p for key, p in module.named_parameters() if key.endswith("noise_strength")}

        def run(carry: Carry, ws: torch.Tensor, noise: Noise, fp32: bool) -> Carry:
            x, image = (None, None) if carry is None else carry
            arguments = (x, image, ws.to(torch.float32), noise.mode, fp32)
            if noise.strength == 1 and not maps:
                return module(*arguments)
            replaced = {key.removeprefix(f"{name}."): m for key, m in maps.items() if key.startswith(f"{name}.")}
            replaced |= {key: p * noise.strength for key, p in strengths.items()}
            return functional_call(module, replaced, arguments)

        return run

    steps, first = [], 0
    for resolution in network.block_resolutions:
        module = network.get_submodule(f"b{resolution}")
        assert isinstance(module, stylegan2.SynthesisBlock)
        run = block(f"b{resolution}", module)
        steps.append(Step(first, first + module.num_conv + module.num_torgb, run, has_noise=True))
        first += module.num_conv
    return steps


class _random:
    """Inside, random numbers are those of a step of a noise; afterwards they go on as before."""

    def __init__(self, noise: Noise, index: int, device: torch.device) -> None:
        self._seed = noise.seed * 64 + index
        self._fork = torch.random.fork_rng([device] if device.type == "cuda" else [])

    def __enter__(self) -> None:
        self._fork.__enter__()
        torch.manual_seed(self._seed)

    def __exit__(self, *error: Any) -> None:
        self._fork.__exit__(*error)


def _bytes(carry: Carry) -> int:
    parts = carry if isinstance(carry, tuple) else (carry,)
    return sum(part.numel() * part.element_size() for part in parts if part is not None)
