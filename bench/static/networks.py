"""filtered_lrelu in whole generators: every layer in its own size, type and filters, without gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from bench.shapes import Layer, layers
from bench.static.classes import FORWARD, Class, filtered_lrelu_run
from bench.static.predict import predict
from bench.static.report import Key


def layer_class(layer: Layer) -> Class:
    """What a layer runs in inference. Its config is that of the plugin's table."""
    config = f"{layer.up}->{layer.down}"
    if layer.up_taps > 1:
        config += " radial down" if layer.radial else " separable"
    dtype = torch.float16 if layer.spec.use_fp16 else torch.float32
    run = filtered_lrelu_run(layer, layer.spec.out_size, FORWARD, dtype)
    return Class("filtered_lrelu", config, FORWARD, dtype, run)


def table(
    network: str, capability: int, latency: float, plugin: Mapping[Key, Mapping[str, Any]],
    tracked: Mapping[Key, Mapping[str, Any]] | None = None,
) -> str:  # fmt: skip
    """Markdown: milliseconds that each layer takes for one image, and all of them, beside the plugin's.

    Layers that are alike but for their channels are predicted once; or none is, and `tracked` predictions of the same
    classes in another size stand for them.
    """
    lines = [
        f"| {network}, sm_{capability} | class | type | million outputs | ps an output | ms | plugin ms | ratio |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    known: dict[Layer, float] = {}
    total = total_plugin = 0.0
    for layer in layers(network):
        alike = replace(layer, name="", spec=replace(layer.spec, in_channels=0, out_channels=0))
        item = layer_class(layer)
        key = (f"sm_{capability}", item.op, *item.key)
        if alike not in known:
            known[alike] = predict(item, capability, latency).ps if tracked is None else tracked[key]["ps"]
        outputs = layer.spec.out_channels * layer.spec.out_size**2
        ms = known[alike] * outputs * 1e-9
        old = plugin.get(key)
        old_ms = ms if old is None else old["ps"] * outputs * 1e-9  # the last layer does not resample: as ours
        total, total_plugin = total + ms, total_plugin + old_ms
        cells = [layer.name, item.config, item.key[2], f"{outputs / 1e6:.2f}", f"{known[alike]:.2f}", f"{ms:.3f}"]
        cells += ["", ""] if old is None else [f"{old_ms:.3f}", f"{ms / old_ms:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append(f"| all | | | | | {total:.3f} | {total_plugin:.3f} | {total / total_plugin:.2f} |")
    return "\n".join(lines)
