"""Weights of networks for opaque images as those of networks for images with alpha (`--resume`).

G begins with the pictures that it made, opaque: the new channel's weights are 0 and its bias makes alpha 1. D begins
with the same judgement of opaque images: it does not look at alpha yet, the new weights are 0.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import nn

from sg3.models import stylegan2, stylegan3
from sg3.transparency import has_alpha

Tensors = dict[str, torch.Tensor]
EQUALIZED = "fromrgb.weight"
FIRST_LAYERS = (EQUALIZED, "ExtractionLayer.Layer.weight")  # ends of names, [out, C, 1, 1]


def adds_alpha(source: nn.Module, target: nn.Module) -> bool:
    """Whether the images of `target` are those of `source` and alpha, and `with_alpha` knows how to go on."""
    ours, theirs = (getattr(network, "img_channels", 0) for network in (target, source))
    makes = isinstance(source, stylegan2.Generator | stylegan3.Generator) and type(target) is type(source)
    sees = any(name.endswith(FIRST_LAYERS) for name in source.state_dict())
    return has_alpha(ours) and ours == theirs + 1 and (makes or sees)


def with_alpha(tensors: Tensors, source: nn.Module, target: nn.Module) -> Tensors:
    """The tensors of `source`, by name, as those of a network like `target`."""
    if isinstance(source, stylegan2.Generator):
        last = f"synthesis.b{source.img_resolution}.torgb.bias"  # the others are upsampled, which dims the borders
        return {name: _another_row(tensor, 1.0 if name == last else 0.0) if ".torgb.weight" in name
                or ".torgb.bias" in name else tensor for name, tensor in tensors.items()}  # fmt: skip
    if isinstance(source, stylegan3.Generator) and isinstance(target, stylegan3.Generator):
        before, after = (f"synthesis.{network.synthesis.layer_names[-1]}." for network in (source, target))
        opaque = 1 / target.synthesis.output_scale
        grown = {before + "weight": 0.0, before + "bias": opaque}
        return {name.replace(before, after): _another_row(tensor, grown[name]) if name in grown else tensor
                for name, tensor in tensors.items()}  # fmt: skip
    return {name: _another_column(tensor, name) if name.endswith(FIRST_LAYERS) else tensor
            for name, tensor in tensors.items()}  # fmt: skip


def _another_column(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """[out, C, 1, 1] -> [out, C + 1, 1, 1]. Equalised weights act divided by the root of how many inputs there are."""
    channels = tensor.shape[1]
    gain = sqrt((channels + 1) / channels) if name.endswith(EQUALIZED) else 1.0
    return torch.cat([tensor * gain, torch.zeros_like(tensor[:, :1])], dim=1)


def _another_row(tensor: torch.Tensor, value: float) -> torch.Tensor:
    return torch.cat([tensor, torch.full_like(tensor[:1], value)])
