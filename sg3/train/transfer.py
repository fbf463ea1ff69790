"""Starting from another network's weights (`--resume`)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from sg3.errors import DataError
from sg3.formats import load


@torch.no_grad()
def transfer_weights(path: str, networks: Mapping[str, nn.Module]) -> list[str]:
    """Copy every tensor that the snapshot's G, D and G_ema share with `networks` by name and shape.

    Returns one line per network saying what was copied and what was not. Raises DataError if nothing fits.
    """
    snapshot = load(path)
    report, total = [], 0
    for name, target in networks.items():
        source = getattr(snapshot, name) or (snapshot.G_ema if name == "G" else None)
        if source is None:
            report.append(f"{name}: {path} has none, starting from random weights")
            continue
        theirs = {**dict(source.named_parameters()), **dict(source.named_buffers())}
        ours = {**dict(target.named_parameters()), **dict(target.named_buffers())}
        # Filters are designed for a resolution, not learnt.
        ours = {key: tensor for key, tensor in ours.items() if not key.endswith("_filter")}
        copied = [key for key in ours if key in theirs and theirs[key].shape == ours[key].shape]
        for key in copied:
            ours[key].copy_(theirs[key])
        reshaped = [key for key in ours if key in theirs and key not in copied]
        missing = [key for key in ours if key not in theirs]
        total += len(copied)
        line = f"{name}: {len(copied)} of {len(ours)} tensors copied from {path}"
        for what, keys in (("of another shape", reshaped), ("missing there", missing)):
            if keys:
                line += f"; {len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        report.append(line)
    if total == 0:
        raise DataError(f"--resume={path}: shares no tensor with the networks of this run; check --cfg and --data")
    return report
