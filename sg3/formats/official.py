"""Snapshots in the original's format: reading. (`official_write` writes them.)

The file is a pickled dictionary of G, D, G_ema, augment_pipe and training_set_kwargs. Its objects are
`Record`s: class name, source text and attributes. The source is ignored; constructor arguments and tensors
are enough to rebuild the networks on sg3's own classes, which have the same names in their state_dict.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sg3.errors import DataError
from sg3.formats import networks
from sg3.formats.networks import Family
from sg3.formats.pickle_values import Record, read_pickle
from sg3.formats.safe_pickle import printable
from sg3.formats.snapshot import Snapshot

GENERATORS = (networks.STYLEGAN3_GENERATOR, networks.STYLEGAN2_GENERATOR)
DISCRIMINATORS = (networks.STYLEGAN2_DISCRIMINATOR,)
SLOTS = {"G": GENERATORS, "D": DISCRIMINATORS, "G_ema": GENERATORS}
MAX_MODULES = 10_000
MAX_ARGUMENTS = 1_000  # numbers, names and containers in a module's constructor arguments


def read(path: Path, device: torch.device | str) -> Snapshot:
    """The networks of a snapshot pickle, frozen, on `device`. Nothing in the file is executed.

    augment_pipe is not read yet: None. Raises DataError, in one line, for whatever is wrong with the file.
    """
    content = read_pickle(path)
    if not isinstance(content, dict) or not any(isinstance(content.get(slot), Record) for slot in SLOTS):
        what = content.class_name if isinstance(content, Record) else type(content).__name__
        raise DataError(f"{path}: is a pickle, but not of G, D and G_ema (it holds one {printable(what)})")
    found: dict[str, Any] = {}
    for slot, families in SLOTS.items():
        record = content.get(slot)
        if record is None:
            continue
        where = f"{path}: {slot}"
        if not isinstance(record, Record):
            raise DataError(f"{where}: is not a network")
        network = read_network(record, families, where)
        found[slot] = networks.frozen(network, device)
    training_set = content.get("training_set_kwargs")
    if isinstance(training_set, dict):
        return Snapshot(**found, training_set_kwargs=_plain_entries(training_set))
    return Snapshot(**found)


def read_network(record: Record, families: tuple[Family, ...], where: str) -> nn.Module:
    """The network that a record describes, if it is one of the given families. Raises DataError."""
    family = recognise(record)
    if family is None or family not in families:
        seen = family.title if family else f"a {printable(record.class_name)} of unknown structure"
        raise DataError(f"{where}: is {seen}, expected a {' or '.join(f.title for f in families)}")
    tensors = dict(_tensors(record, where))
    arguments = _arguments(record, family, where)
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
    return None


def _children(record: Record) -> dict[str, Record]:
    modules = record.state.get("_modules")
    if not isinstance(modules, dict):
        return {}
    return {name: module for name, module in modules.items() if isinstance(module, Record)}


def _tensors(record: Record, where: str) -> Iterator[tuple[str, torch.Tensor]]:
    """The state_dict that the tree of modules would have."""
    pending = [("", record)]
    count = 0
    while pending:
        prefix, module = pending.pop()
        count += 1
        if count > MAX_MODULES:  # records that share children can describe exponentially many
            raise DataError(f"{where}: has more than {MAX_MODULES} modules")
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
    named = record.state.get("_init_kwargs")
    if not isinstance(positional, tuple) or not isinstance(named, dict):
        raise DataError(f"{where}: has no constructor arguments")
    try:
        left = iter(range(MAX_ARGUMENTS))
        positional, named = _plain(positional, left), _plain(named, left)
        bound = inspect.signature(family.network).bind_partial(*positional)
        arguments = {**bound.arguments, **named}
        nested = arguments.pop("synthesis_kwargs", {})
        if not isinstance(nested, dict):
            raise TypeError("synthesis_kwargs is not a dictionary")
        arguments.update(nested)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: has unusable constructor arguments ({printable(error)})") from error
    _complete(arguments, record, family)
    return arguments


def _complete(arguments: dict[str, Any], record: Record, family: Family) -> None:
    """Add arguments whose default the original has changed over time, from what its modules remember."""
    modules = _children(record)
    if family in GENERATORS:
        mapping_kwargs = arguments.setdefault("mapping_kwargs", {})
        beta = modules["mapping"].state.get("w_avg_beta", ...) if "mapping" in modules else ...
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


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _plain(value: Any, left: Iterator[int]) -> Any:
    """Plain data as it is; TypeError for anything else, ValueError if there is more than `left` allows."""
    if next(left, None) is None:
        raise ValueError("too many values")
    if isinstance(value, dict):
        return {name: _plain(entry, left) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([_plain(entry, left) for entry in value])
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a {type(value).__name__} among them")


def _plain_entries(values: dict[str, Any]) -> dict[str, Any]:
    """The entries that are plain data. The rest is of no use to sg3, and no reason to refuse the networks."""
    kept = {}
    for name, value in values.items():
        try:
            kept[name] = _plain(value, iter(range(MAX_ARGUMENTS)))
        except (TypeError, ValueError):
            continue
    return kept
