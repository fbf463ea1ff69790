"""Snapshots in the original's format: reading. (`official_write` writes them.)

The file is a pickled dictionary of G, D, G_ema, augment_pipe and training_set_kwargs. Its objects are
`Record`s: class name, source text and attributes. The source is ignored; constructor arguments and tensors
are enough to rebuild the networks on sg3's own classes, which have the same names in their state_dict. FastGAN,
R3GAN and the projected discriminator are pickled without source and arguments: these follow from the tensors.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sg3 import limits
from sg3.errors import DataError
from sg3.formats import gan_arguments, networks, training_state
from sg3.formats.networks import Family
from sg3.formats.pickle_values import Record
from sg3.formats.plain_data import plain, plain_entries
from sg3.formats.snapshot import Snapshot
from sg3.terminal import printable

STYLEGAN_GENERATORS = (networks.STYLEGAN3_GENERATOR, networks.STYLEGAN2_GENERATOR)
STYLEGANS = (*STYLEGAN_GENERATORS, networks.STYLEGAN2_DISCRIMINATOR)
SLOTS = {"G": networks.GENERATORS, "G_ema": networks.GENERATORS, "D": networks.DISCRIMINATORS}
AUGMENTATIONS = (networks.AUGMENT_PIPE,)
UNREADABLE = (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError)  # what odd shapes may lead to
ADA_W_AVG_BETA = 0.995  # StyleGAN2-ADA's default; StyleGAN3's repository changed it


def interpret(content: Any, path: Path) -> Snapshot:
    """The networks of a snapshot pickle's content, or one network by itself, or G, D and G_ema in this order.

    Raises DataError, in one line, for whatever does not fit.
    """
    if isinstance(content, (list, tuple)) and len(content) == 3:
        content = dict(zip(("G", "D", "G_ema"), content, strict=True))
    if isinstance(content, Record) and (alone := recognise(content)) is not None:
        content = {"D" if alone in networks.DISCRIMINATORS else "G_ema": content}
    if not isinstance(content, dict) or not any(isinstance(content.get(slot), Record) for slot in SLOTS):
        what = content.class_name if isinstance(content, Record) else type(content).__name__
        raise DataError(f"{path}: is a pickle, but not of G, D and G_ema (it holds one {printable(what)})")
    found: dict[str, Any] = {}
    notes: list[str] = []
    for slot, families in SLOTS.items():
        record = content.get(slot)
        if record is None:
            continue
        where = f"{path}: {slot}"
        if not isinstance(record, Record):
            raise DataError(f"{where}: is not a network")
        found[slot] = read_network(record, families, where, found.get("G_ema") or found.get("G"), notes)
    augment_pipe = content.get("augment_pipe")
    if isinstance(augment_pipe, Record) and recognise(augment_pipe) is networks.AUGMENT_PIPE:
        found["augment_pipe"] = read_network(augment_pipe, AUGMENTATIONS, f"{path}: augment_pipe")
    training_set = content.get("training_set_kwargs")
    return Snapshot(
        **found,
        training_set_kwargs=plain_entries(training_set) if isinstance(training_set, dict) else None,
        optimizers=training_state.optimizers(content, str(path)),
        progress=training_state.progress(content),
        origin="official snapshot (.pkl)",
        notes=list(dict.fromkeys(notes)),
    )


def is_of_networks(content: Any) -> bool:
    """Whether there is a network for `interpret` in it."""
    if isinstance(content, dict):
        content = list(content.values())
    return any(isinstance(value, Record) for value in (content if isinstance(content, (list, tuple)) else [content]))


def read_network(
    record: Record,
    families: tuple[Family, ...],
    where: str,
    generator: nn.Module | None = None,
    notes: list[str] | None = None,
) -> nn.Module:
    """The network that a record describes, if it is one of the given families. Raises DataError. `notes` are added to.

    `generator` is the one beside a discriminator, which may know what the discriminator's own record does not tell.
    """
    family = recognise(record)
    if family is None or family not in families:
        seen = family.title if family else f"a {printable(record.class_name)} of unknown structure"
        if "feature_networks" in _children(record):
            seen += " (this looks like StyleGAN-XL, which sg3 does not read)"
        raise DataError(f"{where}: is {seen}, expected a {' or '.join(f.title for f in families)}")
    tensors = dict(_tensors(record, where))
    if family in STYLEGANS or family is networks.AUGMENT_PIPE or "_init_kwargs" in record.state:
        arguments = _arguments(record, family, where)
        if (left_out := networks.without_effect(family, arguments)) and notes is not None:
            notes.append(f"constructor arguments that change nothing are left out: {', '.join(left_out)}")
    else:
        arguments = _inferred_arguments(record, family, tensors, where, generator)
    return networks.build(family, arguments, tensors, where)


def recognise(record: Record) -> Family | None:
    """The family by the structure of the module tree. Class names do not tell: they are the same in both."""
    modules = _children(record)
    synthesis = _children(modules["synthesis"]) if "synthesis" in modules else {}
    if "input" in synthesis:
        return networks.STYLEGAN3_GENERATOR
    if "b4" in synthesis:
        return networks.STYLEGAN2_GENERATOR
    if "b4" in modules and "out" in _children(modules["b4"]):
        return networks.STYLEGAN2_DISCRIMINATOR
    if {"init", "to_big"} <= set(synthesis):
        return networks.FASTGAN_GENERATOR
    if {"feature_network", "discriminator"} <= set(modules):
        return networks.PROJECTED_DISCRIMINATOR
    inner = _children(modules["Model"]) if "Model" in modules else {}
    if {"MainLayers", "AggregationLayer"} <= set(inner):
        return networks.R3GAN_GENERATOR
    if {"MainLayers", "ExtractionLayer"} <= set(inner):
        return networks.R3GAN_DISCRIMINATOR
    buffers = record.state.get("_buffers")
    if isinstance(buffers, dict) and {"p", "Hz_geom", "Hz_fbank"} <= set(buffers):
        return networks.AUGMENT_PIPE
    return None


def _children(record: Record) -> dict[str, Record]:
    modules = record.state.get("_modules")
    if not isinstance(modules, dict):
        return {}
    return {name: module for name, module in modules.items() if isinstance(module, Record)}


def _tensors(record: Record, where: str) -> Iterator[tuple[str, torch.Tensor]]:
    """The state_dict that the tree of modules would have."""
    pending = [("", record)]
    while pending:
        prefix, module = pending.pop()
        skip = module.state.get("_non_persistent_buffers_set")
        for group in ("_parameters", "_buffers"):
            entries = module.state.get(group)
            for name, tensor in entries.items() if isinstance(entries, dict) else ():
                if isinstance(skip, set) and group == "_buffers" and name in skip:
                    continue
                if tensor is not None and not isinstance(tensor, torch.Tensor):
                    raise DataError(f"{where}: {printable(prefix + name)} is not a tensor")
                if tensor is not None:
                    yield prefix + name, tensor
        pending += [(f"{prefix}{name}.", child) for name, child in _children(module).items()]


def _arguments(record: Record, family: Family, where: str) -> dict[str, Any]:
    """Constructor arguments by name. Those that StyleGAN2-ADA nests in synthesis_kwargs come out flat."""
    positional = record.state.get("_init_args", ())
    named = record.state.get("_init_kwargs", record.state.get("init_kwargs"))  # sg3's own networks, pickled as they are
    if not isinstance(positional, tuple) or not isinstance(named, dict):
        raise DataError(f"{where}: has no constructor arguments")
    try:
        left = iter(range(limits.SETTINGS))
        positional, named = plain(positional, left), plain(named, left)
        bound = inspect.signature(family.network).bind_partial(*positional)
        arguments = {**bound.arguments, **named}
        is_nested = "synthesis_kwargs" in arguments and family in STYLEGANS
        nested = arguments.pop("synthesis_kwargs", {}) if is_nested else {}
        if not isinstance(nested, dict):
            raise TypeError("synthesis_kwargs is not a dictionary")
        arguments.update(nested)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: has unusable constructor arguments ({printable(error)})") from error
    if family in STYLEGANS:
        _complete(arguments, record, family, is_nested)
    return arguments


def _complete(arguments: dict[str, Any], record: Record, family: Family, is_nested: bool) -> None:
    """Add arguments whose default the original has changed over time, from what its modules remember."""
    modules = _children(record)
    if family in STYLEGAN_GENERATORS:
        mapping_kwargs = arguments.setdefault("mapping_kwargs", {})
        known = ADA_W_AVG_BETA if is_nested else ...
        beta = modules["mapping"].state.get("w_avg_beta", known) if "mapping" in modules else ...
        differs = _is_number(beta) and beta != family.default("w_avg_beta", "mapping_kwargs")
        if differs and isinstance(mapping_kwargs, dict):
            mapping_kwargs.setdefault("w_avg_beta", beta)
    if family is networks.STYLEGAN3_GENERATOR:
        return
    inner = _children(modules["synthesis"]) if "synthesis" in modules else modules
    blocks = [block for name, block in inner.items() if name.startswith("b") and name != "b4"]
    convs = [_children(block)["conv1"] for block in blocks if "conv1" in _children(block)]
    clamp = convs[0].state.get("conv_clamp", ...) if convs else ...
    if (clamp is None or _is_number(clamp)) and clamp != family.default("conv_clamp"):
        arguments.setdefault("conv_clamp", clamp)
    in_fp16 = sum(block.state.get("use_fp16") is True for block in blocks)
    if in_fp16 != min(family.default("num_fp16_res"), len(blocks)):
        arguments.setdefault("num_fp16_res", in_fp16)


def _inferred_arguments(
    record: Record, family: Family, tensors: dict[str, torch.Tensor], where: str, generator: nn.Module | None
) -> dict[str, Any]:
    """Constructor arguments of a network that was pickled without them."""
    try:
        if family is networks.FASTGAN_GENERATOR:
            return gan_arguments.fastgan_generator(tensors, record.state)
        if family is networks.R3GAN_GENERATOR:
            return gan_arguments.r3gan_generator(tensors, _bfloat16_stages(record))
        if family is networks.R3GAN_DISCRIMINATOR:
            return gan_arguments.r3gan_discriminator(tensors, _bfloat16_stages(record))
        arguments = gan_arguments.projected_discriminator(tensors, record.state)
    except UNREADABLE as error:
        cause = f"{type(error).__name__}: {printable(error)}"
        raise DataError(f"{where}: its tensors are not those of the {family.title} ({cause})") from None
    if generator is not None:
        arguments["img_resolution"] = generator.img_resolution
        arguments["c_dim"] = generator.c_dim if arguments["backbone_kwargs"]["cond"] else 0
    return arguments


def _bfloat16_stages(record: Record) -> list[int]:
    """The stages of an R3GAN network that compute in bfloat16, by what they say of themselves."""
    stages = _children(_children(_children(record)["Model"])["MainLayers"])
    return [number for number, stage in enumerate(stages.values()) if stage.state.get("DataType") is torch.bfloat16]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))
