"""sg3's networks as .safetensors: all weights, and what is needed to make the networks, in the header.

Tensors are called SLOT.NAME (G_ema.mapping.fc0.weight), those of optimizers' states optimizer.SLOT.NUMBER.NAME. The
header's metadata has one entry, `sg3`, a JSON object:

    version              1
    networks             slot -> {"family": a name of FAMILIES, "arguments": the constructor's}
    training_set_kwargs  as in the snapshot, or null
    licence              of the weights, or null
    optimizers, progress only where the snapshot has them, see `training_state`
    written_by           sg3 and its version

Of StyleGAN networks for images that are not square, the arguments have `img_size`, [height, width], and
`img_resolution` is StyleGAN3's sampling rate in pixels per unit, StyleGAN2's and D's nominal side (`sg3.canvas`).

A tuple among the arguments comes back as a list, which no constructor minds.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

from sg3 import limits
from sg3._version import __version__
from sg3.atomic import write_atomic
from sg3.errors import DataError, UsageError
from sg3.formats import networks, training_state
from sg3.formats.networks import Family
from sg3.formats.pickle_values import failures
from sg3.formats.plain_data import plain, plain_entries
from sg3.formats.snapshot import Snapshot
from sg3.pickle_scan import Refused
from sg3.terminal import printable

VERSION = 1
SLOTS = ("G", "D", "G_ema", "augment_pipe")
FAMILIES: dict[str, Family] = {
    "stylegan3-generator": networks.STYLEGAN3_GENERATOR,
    "stylegan2-generator": networks.STYLEGAN2_GENERATOR,
    "fastgan-generator": networks.FASTGAN_GENERATOR,
    "r3gan-generator": networks.R3GAN_GENERATOR,
    "stylegan2-discriminator": networks.STYLEGAN2_DISCRIMINATOR,
    "projected-discriminator": networks.PROJECTED_DISCRIMINATOR,
    "r3gan-discriminator": networks.R3GAN_DISCRIMINATOR,
    "augment-pipe": networks.AUGMENT_PIPE,
}
GENERATORS = tuple(name for name, family in FAMILIES.items() if family in networks.GENERATORS)
DISCRIMINATORS = tuple(name for name, family in FAMILIES.items() if family in networks.DISCRIMINATORS)
FITS = {"G": GENERATORS, "D": DISCRIMINATORS, "G_ema": GENERATORS, "augment_pipe": ("augment-pipe",)}
OPTIMIZER = "optimizer"  # stands before the names of tensors that are no network's


def looks_like(head: bytes) -> bool:
    """Whether a file's first bytes are a header's: its length in 8 bytes, and the start of a JSON object."""
    return len(head) > 8 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < 2**40


def read(path: Path) -> Snapshot:
    """The networks of a file that `write` made. Raises DataError for any other or a damaged one."""
    from safetensors import safe_open

    with failures(path, "safetensors file"):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
        if length > limits.HEADER:
            raise Refused(f"has a header of {length} bytes, which no network needs")
        with safe_open(path, framework="pt", device="cpu") as content:
            if len(content.keys()) > limits.TENSORS:
                raise Refused(f"holds {len(content.keys())} tensors, which no network needs")
            metadata = content.metadata() or {}
            if "sg3" not in metadata:
                some = printable(", ".join(sorted(content.keys())[:3]) or "nothing")
                raise DataError(f"{path}: is a safetensors file without sg3's configuration (it holds {some}, ...)")
            config = _config(metadata["sg3"], path)
            parts: dict[str, dict[str, torch.Tensor]] = {slot: {} for slot in (*config["networks"], OPTIMIZER)}
            for name in content.keys():  # noqa: SIM118  (not a dictionary)
                slot, _, rest = name.partition(".")
                if slot not in parts:
                    raise DataError(f"{path}: its tensor {printable(name)} belongs to no network of its configuration")
                parts[slot][rest] = content.get_tensor(name)
            found: dict[str, Any] = {}
            for slot, description in config["networks"].items():
                family = FAMILIES[description["family"]]
                found[slot] = networks.build(family, description["arguments"], parts[slot], f"{path}: {slot}")
            states = training_state.put_together(config.get("optimizers"), parts[OPTIMIZER], str(path))
    data = config.get("training_set_kwargs")
    licence = config.get("licence")
    return Snapshot(
        **found,
        training_set_kwargs=plain_entries(data) if isinstance(data, dict) else None,
        optimizers=states,
        progress=training_state.progress(config),
        licence=printable(licence, limit=1000) if isinstance(licence, str) else None,
        origin="sg3 safetensors",
    )


def _config(text: str, path: Path) -> dict[str, Any]:
    """The configuration, with networks that are described completely."""
    try:
        config = limits.parse_json(text)
    except ValueError as error:
        raise DataError(f"{path}: has an unreadable configuration ({printable(error)})") from None
    version = config.get("version") if isinstance(config, dict) else None
    if version != VERSION:
        raise DataError(f"{path}: has a configuration of version {printable(version)}, this sg3 reads {VERSION}")
    described = config.get("networks")
    if not isinstance(described, dict) or not described:
        raise DataError(f"{path}: its configuration describes no networks")
    for slot, description in described.items():
        match description:
            case {"family": str(family), "arguments": dict(arguments)} if family in FITS.get(slot, ()):
                try:
                    plain(arguments)
                except (TypeError, ValueError) as error:
                    raise DataError(f"{path}: {slot}: has unusable constructor arguments ({error})") from None
            case _:
                raise DataError(f"{path}: its configuration describes {printable(slot)} in an unknown way")
    return config


def write(snapshot: Snapshot, path: Path) -> None:
    """Write all networks of a snapshot, whole or not at all; the same snapshot gives the same bytes.

    Raises UsageError for a network that is not sg3's, StorageError if writing fails.
    """
    from safetensors.torch import save

    tensors: dict[str, torch.Tensor] = {}
    described: dict[str, Any] = {}
    for slot in SLOTS:
        network = getattr(snapshot, slot)
        if network is None:
            continue
        family = next((name for name in FITS[slot] if type(network) is FAMILIES[name].network), None)
        if family is None:
            raise UsageError(f"{path}: {slot} is a {type(network).__name__}, not a network that sg3 can write there")
        described[slot] = {"family": family, "arguments": network.init_kwargs}
        for name, tensor in network.state_dict().items():
            # Views and shared storage become tensors of their own.
            tensors[f"{slot}.{name}"] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    config: dict[str, Any] = {
        "version": VERSION,
        "networks": described,
        "training_set_kwargs": snapshot.training_set_kwargs,
        "licence": snapshot.licence,
        "written_by": f"sg3 {__version__}",
    }
    if snapshot.optimizers is not None:
        config["optimizers"] = training_state.without_tensors(snapshot.optimizers)
        for name, tensor in training_state.tensors(snapshot.optimizers).items():
            tensors[f"{OPTIMIZER}.{name}"] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    if snapshot.progress is not None:
        config["progress"] = snapshot.progress
    try:
        text = json.dumps(config, allow_nan=False, default=_as_plain)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path}: an argument or setting cannot be written as JSON ({printable(error)})") from None
    write_atomic(path, lambda file: file.write(save(tensors, metadata={"sg3": text})))


def _as_plain(value: Any) -> Any:
    """What JSON does not know, as in a .pkl file."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"a {type(value).__name__} among them")
