"""What a run would be, without running it: layer tables and a memory estimate, for `sg3 train --dry-run`.

Networks run on torch's meta device, which computes shapes and no numbers, so this is instant for any size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import nn

from sg3.train.config import TrainConfig
from sg3.train.recipes import recipe_of

IN_FULL = {"float16": "float32", "bfloat16": "float32"}


@dataclass(frozen=True)
class LayerRow:
    """One module's own parameters and buffers (its children's not counted) and the shape of its output."""

    name: str
    parameters: int
    buffers: int
    output: list[int]
    dtype: str


@dataclass(frozen=True)
class Summary:
    """Tables of G and D and the bytes a training step needs."""

    G: list[LayerRow]
    D: list[LayerRow]
    weight_bytes: int  # G, D and G_ema, gradients, two Adam moments
    state_bytes: int  # of one training state on disk
    activation_bytes: int  # kept for the backward pass of the larger network, one micro-batch

    @property
    def total_bytes(self) -> int:
        return self.weight_bytes + self.activation_bytes


def summarize(config: TrainConfig) -> Summary:
    """Tables and memory of one run, for float32 (half-precision layers on a GPU need up to half)."""
    cpu = torch.device("cpu")
    G, D = (m.to("meta").requires_grad_(True) for m in recipe_of(config.cfg).build_networks(config, cpu))
    n = config.batch_gpu
    z = torch.empty(n, config.z_dim, device="meta")
    c = torch.empty(n, config.dataset.label_dim, device="meta")
    img = torch.empty(n, config.dataset.channels, *config.dataset.image_size, device="meta", requires_grad=True)
    g_rows, g_saved = _trace(G, z, c)
    d_rows, d_saved = _trace(D, img, c)
    if config.device == "cpu" and not config.is_half_on_cpu:  # while the meta device is taken for a GPU
        g_rows, d_rows = ([replace(row, dtype=IN_FULL.get(row.dtype, row.dtype)) for row in rows]
                          for rows in (g_rows, d_rows))  # fmt: skip
    g_size, d_size = (sum(p.numel() for p in m.parameters()) for m in (G, D))
    weights = 4 * (5 * g_size + 4 * d_size)
    # G's step holds G's and D's activations; R1 differentiates D's backward pass, about twice what it keeps.
    state = 4 * (4 * g_size + 3 * d_size)
    return Summary(g_rows, d_rows, weights, state, max(g_saved + d_saved, 2 * d_saved))


def _trace(module: nn.Module, *inputs: torch.Tensor) -> tuple[list[LayerRow], int]:
    rows: list[LayerRow] = []
    saved: dict[int, int] = {}

    def record(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(layer: nn.Module, _inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, (tuple, list)) else output
            own = sum(prod(p.shape) for p in layer.parameters(recurse=False))
            buffers = sum(prod(b.shape) for b in layer.buffers(recurse=False))
            rows.append(LayerRow(name, own, buffers, list(first.shape), str(first.dtype).removeprefix("torch.")))

        return hook

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved[id(tensor.untyped_storage())] = tensor.untyped_storage().nbytes()
        kept.append(tensor)  # so that no two storages share an id
        return tensor

    kept: list[torch.Tensor] = []
    hooks = [layer.register_forward_hook(record(name or "<top>")) for name, layer in module.named_modules()]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(*inputs)
    for hook in hooks:
        hook.remove()
    return rows, sum(saved.values())
