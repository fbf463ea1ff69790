"""Checkpoints of mmagic and mmgeneration (.pth), StyleGAN3 and StyleGAN2.

The weights of all networks lie under `state_dict`, each network under a prefix. StyleGAN3's layers have sg3's names
but for the mapping network; StyleGAN2's and the discriminator's are those of `stylegan2_names`. The file has no
constructor arguments: they follow from the shapes.

Networks trained there have learnt images in the order blue, green, red. Those converted from the original have red,
green, blue, and "rgb" in their file's name; nothing in the file tells.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from sg3.formats import arguments_from_shapes, networks
from sg3.formats.snapshot import Snapshot
from sg3.formats.stylegan2_names import Leaves, Tensors, build_discriminator, build_generator, unusable_shapes
from sg3.models import stylegan3

LEAVES = Leaves(
    mapping="style_mapping",
    const="constant_input.input",
    modulated="weight_orig",
    modulation="style_modulation",
    noise_strength="noise_injector.weight",
    noise="injected_noise_{}",
    conv="conv.weight_orig",
    linear="linear.weight_orig",
)
PREFIXES = {  # slot -> where its tensors may be; the first prefix that fits counts
    "G_ema": ("generator_ema.module.", "generator_ema."),
    "G": ("generator.module.", "generator."),
    "D": ("discriminator.module.", "discriminator."),
}
NOT_OF_A_NETWORK = {"steps"}  # how often the average has been updated
ORIGINS = ("mmagic StyleGAN2 checkpoint (.pth)", "mmagic StyleGAN3 checkpoint (.pth)")
TRAINING = re.compile(r"ada_aug\..*")  # the discriminator's augmentation


def recognises(names: set[str]) -> bool:
    """Whether tensors of these names are such a file's: with prefixes, or those of a generator alone."""
    prefixes = tuple(prefix for choices in PREFIXES.values() for prefix in choices)
    return any(name.startswith((*prefixes, "style_mapping.")) for name in names)


def interpret(state: Tensors, path: Path) -> Snapshot:
    """The networks of a `state_dict`, colours in the order of the file. Raises DataError for what does not fit."""
    found: dict[str, Any] = {}
    parts = {slot: _part(state, choices) for slot, choices in PREFIXES.items()}
    if not any(parts.values()):
        parts["G_ema"] = dict(state)
    for slot, tensors in parts.items():
        if tensors:
            make = _discriminator if slot == "D" else _generator
            found[slot] = make(_usual_names(tensors), f"{path}: {slot}")
    generators = [network for slot, network in found.items() if slot != "D"]
    is_3 = any(isinstance(network, stylegan3.Generator) for network in generators)
    return Snapshot(**found, origin=ORIGINS[is_3])


def usual_order(path: Path) -> Literal["rgb", "bgr"]:
    """The order of colours that a file of this name has inside, "rgb" or "bgr"."""
    return "rgb" if "rgb" in re.split("[^a-z]+", path.name.lower()) else "bgr"


def _part(state: Tensors, prefixes: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """One network's tensors, without their prefix."""
    for prefix in prefixes:
        part = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        if part:
            return {name: tensor for name, tensor in part.items() if name not in NOT_OF_A_NETWORK}
    return {}


def _usual_names(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Weights that are used as they are have no "_orig", and a dense layer may hold its bias itself."""
    names = {name: re.sub(r"\b(conv|linear)\.weight$", r"\1.weight_orig", name) for name in tensors}
    names = {name: re.sub(r"\.linear\.bias$", ".bias", changed) for name, changed in names.items()}
    return {names[name]: tensor for name, tensor in tensors.items()}


def _generator(tensors: dict[str, torch.Tensor], where: str) -> nn.Module:
    if any(name.startswith("synthesis.") for name in tensors):
        return _stylegan3(tensors, where)
    averages = [tensors.pop(name) for name in ("style_mapping.w_avg", "w_avg") if name in tensors]
    embed = {
        f"mapping.embed.{leaf}": tensors.pop(name)
        for prefix in ("style_mapping.embed", "embed")
        for leaf, tail in (("weight", "linear.weight_orig"), ("weight", "weight"), ("bias", "bias"))
        if (name := f"{prefix}.{tail}") in tensors
    }
    return build_generator(LEAVES, tensors, averages[0] if averages else None, where, embed)


def _stylegan3(tensors: dict[str, torch.Tensor], where: str) -> nn.Module:
    """The names are sg3's, except that the mapping network is called style_mapping."""
    named = {re.sub("^style_mapping", "mapping", name): tensor for name, tensor in tensors.items()}
    named = {re.sub(r"weight_orig$", "weight", name): tensor for name, tensor in named.items()}
    with unusable_shapes(where, networks.STYLEGAN3_GENERATOR.title):
        arguments = arguments_from_shapes.stylegan3_generator(named)
    return networks.build(networks.STYLEGAN3_GENERATOR, arguments, named, where)


def _discriminator(tensors: dict[str, torch.Tensor], where: str) -> nn.Module:
    kept = {name: tensor for name, tensor in tensors.items() if not TRAINING.fullmatch(name)}
    return build_discriminator(LEAVES, kept, where)

