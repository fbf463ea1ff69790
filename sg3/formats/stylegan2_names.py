"""The names that two other StyleGAN2 implementations, rosinality's and mmagic's, give to the same weights.

Both lay the networks out alike and differ in the last parts of the names (`Leaves`). `generator_weights` and
`discriminator_weights` list every weight once, for reading and for writing:

    mapping                      layers numbered from 1, because layer 0 normalises z
    conv1, to_rgb1               4 x 4
    convs.{2j}, convs.{2j+1}     upsampling and plain convolution at 8 * 2^j; to_rgbs.{j} its colours
    convs.{i} (discriminator)    0 takes the image in; i is the i-th block from the top

Weights have the same scale as here, and no kernel has to be flipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sg3 import limits
from sg3.errors import DataError
from sg3.formats import arguments_from_shapes, networks
from sg3.models import StyleGenerator
from sg3.models.layers import count_parameters
from sg3.terminal import printable

Tensors = Mapping[str, torch.Tensor]
IMPLIED = frozenset({"resample_filter"})


@dataclass(frozen=True)
class Leaves:
    """Last parts of names, where the two implementations differ."""

    mapping: str
    const: str
    modulated: str  # weight of a modulated convolution
    modulation: str  # the layer that makes styles of w
    noise_strength: str
    noise: str
    conv: str  # weight of a plain convolution
    linear: str  # weight of a dense layer


@dataclass(frozen=True)
class Weight:
    """One weight: its name here and there, and how many axes of length 1 it has there that it has not here, at the
    front and at the end."""

    ours: str
    theirs: str
    front: int = 0
    back: int = 0

    def read(self, tensor: torch.Tensor, where: str) -> torch.Tensor:
        """Their tensor as ours. Raises DataError if the axes to leave out have another length than 1."""
        end = tensor.ndim - self.back
        if end < self.front or any(n != 1 for n in (*tensor.shape[: self.front], *tensor.shape[end:])):
            raise DataError(f"{where}: {self.theirs} has an unexpected shape {list(tensor.shape)}")
        return tensor.reshape(tensor.shape[self.front : end])

    def write(self, tensor: torch.Tensor) -> torch.Tensor:
        """Our tensor as theirs, a copy of its own."""
        return tensor.detach().cpu().reshape((1,) * self.front + tensor.shape + (1,) * self.back).clone()


def generator_weights(leaves: Leaves, resolution: int, mapping: Iterable[int], first: int) -> Iterator[Weight]:
    """All weights of a generator but the mean of w. `mapping` are the numbers of the mapping layers, of which
    `first` is layer 0 here."""
    for i in mapping:
        yield Weight(f"mapping.fc{i - first}.weight", f"{leaves.mapping}.{i}.{leaves.linear}")
        yield Weight(f"mapping.fc{i - first}.bias", f"{leaves.mapping}.{i}.bias")
    yield Weight("synthesis.b4.const", leaves.const, front=1)
    yield from _convolution(leaves, "synthesis.b4.conv1", "conv1", 0)
    yield from _colours(leaves, "synthesis.b4.torgb", "to_rgb1")
    j = 0
    while (here := 8 * 2**j) <= resolution:
        for k in (0, 1):
            yield from _convolution(leaves, f"synthesis.b{here}.conv{k}", f"convs.{2 * j + k}", 2 * j + k + 1)
        yield from _colours(leaves, f"synthesis.b{here}.torgb", f"to_rgbs.{j}")
        j += 1


def _convolution(leaves: Leaves, ours: str, theirs: str, index: int) -> Iterator[Weight]:
    yield Weight(f"{ours}.weight", f"{theirs}.conv.{leaves.modulated}", front=1)
    yield from _modulation(leaves, ours, theirs)
    yield Weight(f"{ours}.bias", f"{theirs}.activate.bias")
    yield Weight(f"{ours}.noise_strength", f"{theirs}.{leaves.noise_strength}", front=1)
    yield Weight(f"{ours}.noise_const", leaves.noise.format(index), front=2)


def _colours(leaves: Leaves, ours: str, theirs: str) -> Iterator[Weight]:
    yield Weight(f"{ours}.weight", f"{theirs}.conv.{leaves.modulated}", front=1)
    yield from _modulation(leaves, ours, theirs)
    yield Weight(f"{ours}.bias", f"{theirs}.bias", front=1, back=2)


def _modulation(leaves: Leaves, ours: str, theirs: str) -> Iterator[Weight]:
    yield Weight(f"{ours}.affine.weight", f"{theirs}.conv.{leaves.modulation}.{leaves.linear}")
    yield Weight(f"{ours}.affine.bias", f"{theirs}.conv.{leaves.modulation}.bias")


def discriminator_weights(leaves: Leaves, resolution: int) -> Iterator[Weight]:
    """All weights of an unconditional residual discriminator."""

    def conv(ours: str, theirs: str, place: int, has_bias: bool = True) -> Iterator[Weight]:
        """The convolution at a place of a sequence, and the activation after it, which has the bias."""
        yield Weight(f"{ours}.weight", f"{theirs}.{place}.{leaves.conv}")
        if has_bias:
            yield Weight(f"{ours}.bias", f"{theirs}.{place + 1}.bias")

    yield from conv(f"b{resolution}.fromrgb", "convs.0", 0)
    here, i = resolution, 1
    while here > 4:
        yield from conv(f"b{here}.conv0", f"convs.{i}.conv1", 0)
        yield from conv(f"b{here}.conv1", f"convs.{i}.conv2", 1)  # after a blur
        yield from conv(f"b{here}.skip", f"convs.{i}.skip", 1, has_bias=False)
        here, i = here // 2, i + 1
    yield from conv("b4.conv", "final_conv", 0)
    for k, ours in enumerate(("b4.fc", "b4.out")):
        yield Weight(f"{ours}.weight", f"final_linear.{k}.{leaves.linear}")
        yield Weight(f"{ours}.bias", f"final_linear.{k}.bias")


def read(weights: Iterable[Weight], tensors: Tensors, where: str) -> dict[str, torch.Tensor]:
    """Tensors by our names. Blur kernels are left out; they follow from the constructor arguments.

    Raises DataError, naming them as the file does, if some are missing or nothing here.
    """
    wanted = list(weights)
    missing = [weight.theirs for weight in wanted if weight.theirs not in tensors]
    unexpected = tensors.keys() - {weight.theirs for weight in wanted}
    problems = [f"{name} missing" for name in missing]
    problems += [f"{printable(name)} unexpected" for name in sorted(unexpected) if not name.endswith(".kernel")]
    if problems:
        rest = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise DataError(f"{where}: its tensors are not those of a StyleGAN2 network: {', '.join(problems[:3])}{rest}")
    return {weight.ours: weight.read(tensors[weight.theirs], where) for weight in wanted}


def numbers(tensors: Tensors, prefix: str) -> list[int]:
    """The numbers n for which there is a tensor "prefix.n.something", in order."""
    found = (re.match(rf"{re.escape(prefix)}\.(\d{{1,3}})\.", name) for name in tensors)
    return sorted({int(match[1]) for match in found if match})


def build_generator(
    leaves: Leaves,
    tensors: Tensors,
    w_avg: torch.Tensor | None,
    where: str,
    embed: Tensors | None = None,
    notes: list[str] | None = None,
) -> nn.Module:
    """The StyleGAN2 generator whose weights have these names. Neither implementation clamps activations in float32.

    Without a mean of w it is estimated, see `estimate_w_avg`; of one for each layer the mean is taken. Constant noise
    that is not there is drawn, always the same, if there are `notes`, which are told. `embed` is the layer for labels,
    by our names.
    """
    layers = numbers(tensors, leaves.mapping)
    blocks = len(numbers(tensors, "to_rgbs"))
    if not layers:
        missing = f"{leaves.mapping}.1.{leaves.linear} missing"
        raise DataError(f"{where}: its tensors are not those of a StyleGAN2 network: {missing}")
    _check_blocks(blocks, where)
    weights = list(generator_weights(leaves, 4 * 2**blocks, layers, layers[0]))
    drawn: dict[str, torch.Tensor] = {}
    noise = [weight for weight in weights if weight.ours.endswith(".noise_const")]
    if notes is not None and not any(weight.theirs in tensors for weight in noise):  # as older versions left it out
        drawn = _drawn_noise([weight.ours for weight in noise])
        weights = [weight for weight in weights if weight not in noise]
        notes.append(f"{where}: has no constant noise; it is drawn anew, the same each time")
    named = read(weights, tensors, where) | drawn
    named |= embed or {}
    with unusable_shapes(where, networks.STYLEGAN2_GENERATOR.title):
        arguments = arguments_from_shapes.stylegan2_generator(named) | _blur(tensors)
        arguments |= {"num_fp16_res": 0, "conv_clamp": None}
        named["mapping.w_avg"] = torch.zeros(arguments["w_dim"]) if w_avg is None else _one_mean(w_avg, where, notes)
    network = networks.build(networks.STYLEGAN2_GENERATOR, arguments, named, where, IMPLIED)
    if w_avg is None:
        estimate_w_avg(network)
    return network


def _drawn_noise(names: list[str]) -> dict[str, torch.Tensor]:
    """Normal numbers [R, R] for noise of these names, the same each time."""
    rng = np.random.RandomState(0)
    sides = {name: int(name.split(".")[1].removeprefix("b")) for name in names}
    return {name: torch.from_numpy(rng.standard_normal((side, side))).float() for name, side in sides.items()}


def _one_mean(w_avg: torch.Tensor, where: str, notes: list[str] | None) -> torch.Tensor:
    """The mean of w [w_dim], of [w_dim], [1, w_dim] or, as encoders keep it, one for each layer [num_ws, w_dim]."""
    if w_avg.ndim != 2 or len(w_avg) == 1:
        return w_avg.reshape(-1)
    mean = w_avg.double().mean(dim=0).to(w_avg.dtype)
    if notes is not None and not torch.allclose(mean.expand_as(w_avg), w_avg):
        notes.append(f"{where}: has another mean of w for each of {len(w_avg)} layers; their mean is taken")
    return mean


def build_discriminator(leaves: Leaves, tensors: Tensors, where: str) -> nn.Module:
    """The StyleGAN2 discriminator whose weights have these names."""
    blocks = max(numbers(tensors, "convs"), default=0)
    _check_blocks(blocks, where)
    named = read(discriminator_weights(leaves, 4 * 2**blocks), tensors, where)
    with unusable_shapes(where, networks.STYLEGAN2_DISCRIMINATOR.title):
        blur = _blur(tensors)
        arguments = arguments_from_shapes.stylegan2_discriminator(named) | {"num_fp16_res": 0, "conv_clamp": None}
        arguments |= {"block_kwargs": blur} if blur else {}
    return networks.build(networks.STYLEGAN2_DISCRIMINATOR, arguments, named, where, IMPLIED)


def _check_blocks(blocks: int, where: str) -> None:
    if blocks >= limits.STAGES:
        most = limits.STAGES - 1
        raise DataError(f"{where}: its tensors are those of {blocks} blocks; no network has more than {most}")


@contextmanager
def unusable_shapes(where: str, title: str) -> Iterator[None]:
    """Shapes from which no constructor arguments follow, as a DataError."""
    try:
        yield
    except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
        cause = f"{type(error).__name__}: {printable(error)}"
        raise DataError(f"{where}: its shapes are not those of a {title} ({cause})") from None


def estimate_w_avg(network: nn.Module) -> None:
    """Set the mean of w, which truncation pulls towards, to that of 4096 fixed latents (and labels, in turn).

    Mapping networks much larger than any published get fewer latents: 8 layers of 512 already take a second.
    """
    assert isinstance(network, StyleGenerator)
    batch = max(1, min(512, limits.MEAN_OF_W // 8 // max(count_parameters(network.mapping), 1)))
    rng = np.random.RandomState(0)
    means = []
    with torch.no_grad():
        for start in range(0, 8 * batch, batch):
            z = torch.from_numpy(rng.randn(batch, network.z_dim))
            c = torch.zeros(batch, network.c_dim)
            if network.c_dim:
                c[torch.arange(batch), torch.arange(start, start + batch) % network.c_dim] = 1
            means.append(network.mapping(z, c)[:, 0].double().mean(dim=0))
        network.mapping.w_avg.copy_(torch.stack(means).mean(dim=0))


def _blur(tensors: Tensors) -> dict[str, list[float]]:
    """The resample_filter argument, if a blur kernel in the file is another than usual."""
    kernel = next((tensor for name, tensor in tensors.items() if name.endswith(".kernel")), None)
    found = None if kernel is None else arguments_from_shapes.blur_taps(kernel)
    return {} if found is None else {"resample_filter": found}
