"""Checkpoints of rosinality's StyleGAN2 in PyTorch (.pt): reading and writing.

The file is a dictionary of state dicts, `g_ema`, `g` and `d`, and the mean of w, `latent_avg`; a training run adds
optimizers and its settings, which are passed over. Names are those of `stylegan2_names`. Constructor arguments are not
in the file: they follow from the shapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sg3.atomic import write_atomic
from sg3.errors import DataError, UsageError
from sg3.formats.snapshot import Snapshot
from sg3.formats.stylegan2_names import (
    Leaves,
    Tensors,
    Weight,
    build_discriminator,
    build_generator,
    discriminator_weights,
    generator_weights,
)
from sg3.formats.torch_file import state_dict
from sg3.models import stylegan2

LEAVES = Leaves(
    mapping="style",
    const="input.input",
    modulated="weight",
    modulation="modulation",
    noise_strength="noise.weight",
    noise="noises.noise_{}",
    conv="weight",
    linear="weight",
)
SLOTS = {"g_ema": "G_ema", "g": "G", "d": "D"}
ENTRIES = (*SLOTS, "latent_avg")


def recognises(names: set[str]) -> str | None:
    """The slot for tensors of these names, if they are a network's of this kind."""
    if "input.input" in names:
        return "g_ema"
    return "d" if {"final_conv.0.weight", "final_linear.0.weight", "convs.0.0.weight"} <= names else None


def without_encoder(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The generator of a file of an encoder for it (pSp, e4e, ReStyle), where it is called decoder; all of others."""
    if "decoder.input.input" not in tensors:
        return tensors
    return {name.removeprefix("decoder."): tensor for name, tensor in tensors.items() if name.startswith("decoder.")}


def interpret(content: dict[str, Any], path: Path) -> Snapshot:
    """The networks of such a file. Raises DataError for what does not fit."""
    w_avg = content.get("latent_avg")
    if w_avg is not None and not isinstance(w_avg, torch.Tensor):
        raise DataError(f"{path}: latent_avg is not a tensor")
    found: dict[str, Any] = {}
    notes: list[str] = []
    for name, slot in SLOTS.items():
        if content.get(name) is None:
            continue
        where = f"{path}: {name}"
        tensors = state_dict(content[name], where)
        if slot == "D":
            found[slot] = build_discriminator(LEAVES, tensors, where)
        else:
            found[slot] = build_generator(LEAVES, tensors, w_avg, where, notes=notes)
    if not found:
        raise DataError(f"{path}: holds none of {', '.join(SLOTS)}")
    return Snapshot(**found, origin="rosinality StyleGAN2 checkpoint (.pt)", notes=notes)


# ---- writing


def write(snapshot: Snapshot, path: Path) -> None:
    """Write the networks of a StyleGAN2 snapshot, whole or not at all. fp16 and clamping are left to the program that
    reads the file: it has neither.

    Raises UsageError for a network that this implementation has no form of, StorageError if writing fails.
    """
    content: dict[str, Any] = {}
    for name, slot in SLOTS.items():
        network = getattr(snapshot, slot)
        if network is not None:
            content[name] = dict(_written(network, f"{path}: {slot}"))
    averaged = snapshot.G_ema or snapshot.G
    if isinstance(averaged, stylegan2.Generator):
        content["latent_avg"] = averaged.mapping.w_avg.detach().cpu().clone()
    write_atomic(path, lambda file: torch.save(content, file))


def _written(network: nn.Module, where: str) -> Iterator[tuple[str, torch.Tensor]]:
    state = network.state_dict()
    if isinstance(network, stylegan2.Generator):
        weights = _generator_weights(network, state, where)
    elif isinstance(network, stylegan2.Discriminator):
        weights = _discriminator_weights(network, state, where)
    else:
        raise _no_place(where, "other networks than StyleGAN2's")
    for weight in weights:
        yield weight.theirs, weight.write(state[weight.ours])
    yield from _kernels(network)


def _generator_weights(G: stylegan2.Generator, state: Tensors, where: str) -> list[Weight]:
    if G.c_dim or G.z_dim != G.w_dim:
        raise _no_place(where, "labels, or a z_dim other than w_dim")
    conv, dense = G.get_submodule("synthesis.b4.conv1"), G.get_submodule("mapping.fc0")
    if [conv.activation, dense.activation, dense.bias_gain] != ["lrelu", "lrelu", 0.01]:
        raise _no_place(where, "other activations than lrelu, or an lr_multiplier other than 0.01")
    layers = range(1, G.mapping.num_layers + 1)
    weights = list(generator_weights(LEAVES, G.img_resolution, layers, first=1))
    return _complete(weights, state, where, besides={"mapping.w_avg"})


def _discriminator_weights(D: stylegan2.Discriminator, state: Tensors, where: str) -> list[Weight]:
    if D.c_dim:
        raise _no_place(where, "labels")
    statistics = D.b4.mbstd and (D.b4.mbstd.group_size, D.b4.mbstd.num_channels)
    if (D.b4.conv.activation, statistics) != ("lrelu", (4, 1)):
        raise _no_place(where, "other activations than lrelu, or minibatch statistics of other groups than 4")
    return _complete(list(discriminator_weights(LEAVES, D.img_resolution)), state, where, besides=set())


def _complete(weights: list[Weight], state: Tensors, where: str, besides: set[str]) -> list[Weight]:
    """The weights, if they are all that the network has but filters."""
    names = {name for name in state if not name.endswith("resample_filter")} - besides
    if different := names ^ {weight.ours for weight in weights}:
        raise _no_place(where, f"another architecture ({min(different)})")
    return weights


def _no_place(where: str, what: str) -> UsageError:
    return UsageError(f"{where}: a .pt file has no place for {what}; write .pkl or .safetensors")


def _kernels(network: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Blur kernels, which this implementation keeps as buffers: with the gain of upsampling, 4, in the generator."""
    if isinstance(network, stylegan2.Generator):
        for j, resolution in enumerate(network.synthesis.block_resolutions[1:]):
            kernel = _square(getattr(network.synthesis, f"b{resolution}").resample_filter) * 4
            yield f"convs.{2 * j}.conv.blur.kernel", kernel
            yield f"to_rgbs.{j}.upsample.kernel", kernel.clone()
    elif isinstance(network, stylegan2.Discriminator):
        for i, resolution in enumerate(network.block_resolutions, start=1):
            kernel = _square(getattr(network, f"b{resolution}").resample_filter)
            yield f"convs.{i}.conv2.0.kernel", kernel
            yield f"convs.{i}.skip.0.kernel", kernel.clone()


def _square(kernel: torch.Tensor) -> torch.Tensor:
    kernel = kernel.detach().cpu()
    return kernel.outer(kernel) if kernel.ndim == 1 else kernel.clone()
