"""`legacy` for tools that come without one: network pickles through sg3's reader, which executes nothing."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

from torch import nn

import sg3


def load_network_pkl(f: BinaryIO | str | os.PathLike[str], force_fp16: bool = False) -> dict[str, Any]:
    """The networks of an open file, or of a path: a dictionary with G, D, G_ema, augment_pipe, training_set_kwargs.

    The networks are sg3's classes, frozen, on the CPU; what a file lacks is None. `force_fp16` builds them with four
    resolutions in fp16. Raises sg3's errors (`sg3.errors`), in one line, for what cannot be read.
    """
    snapshot = _load(f)
    networks = {name: getattr(snapshot, name) for name in ("G", "D", "G_ema")}
    if force_fp16:
        networks = {name: None if net is None else _in_fp16(net) for name, net in networks.items()}
    return {**networks, "augment_pipe": snapshot.augment_pipe, "training_set_kwargs": snapshot.training_set_kwargs}


def _load(f: BinaryIO | str | os.PathLike[str]) -> sg3.Snapshot:
    if isinstance(f, str | os.PathLike):
        return sg3.load(os.fspath(f))
    path = getattr(f, "name", None)
    if isinstance(path, str) and Path(path).is_file() and f.tell() == 0:
        return sg3.load(path)
    with tempfile.TemporaryDirectory() as folder:  # sg3 reads files, and more than once
        copy = Path(folder) / "network.pkl"
        copy.write_bytes(f.read())
        return sg3.load(copy)


def _in_fp16(network: Any) -> nn.Module:
    """The same network, its four highest resolutions in fp16, clamped at 256."""
    arguments = {**network.init_kwargs, "num_fp16_res": 4, "conv_clamp": 256}
    twin: nn.Module = type(network)(*network.init_args, **arguments)
    twin.load_state_dict(network.state_dict())
    return twin.eval().requires_grad_(False)
