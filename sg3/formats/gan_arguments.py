"""Constructor arguments of FastGAN, of the projected discriminator and of R3GAN, whose files do not hold them.

They follow from the names and shapes of the tensors, and from what modules remember as attributes. What a function
here cannot make sense of raises LookupError, ValueError or another of `official.UNREADABLE`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from sg3.models.fastgan import BUILT, WIDTHS

Tensors = Mapping[str, torch.Tensor]
Attributes = Mapping[str, Any]

LITE_BLOCKS = {2: "lite0", 3: "lite1"}  # number of blocks in the second stage


def fastgan_generator(tensors: Tensors, attributes: Attributes) -> dict[str, Any]:
    """By tensor names; c_dim and w_dim, which no tensor shows, from the generator's attributes."""
    z_dim, double_width = tensors["synthesis.init.init.0.weight_orig"].shape[:2]
    img_channels, last_width = tensors["synthesis.to_big.weight_orig"].shape[:2]
    ngf = int(double_width // 2 / WIDTHS[4])
    largest = max(numbers(tensors, "synthesis.feat_"))
    resolution = largest
    if largest == BUILT and last_width == int(WIDTHS[BUILT // 2] * ngf):
        resolution = BUILT // 2  # what is built beyond is not used
    cond = "synthesis.embed.weight" in tensors
    is_full = any(name.startswith(("synthesis.feat_8.5.", "synthesis.feat_8.conv2.")) for name in tensors)
    c_dim = integer(attributes, "c_dim", 0)
    return {
        "z_dim": z_dim, "c_dim": c_dim or (tensors["synthesis.embed.weight"].shape[0] if cond else 0),
        "w_dim": integer(attributes, "w_dim", 0), "img_resolution": resolution, "img_channels": img_channels,
        "ngf": ngf, "cond": int(cond), "synthesis_kwargs": {"lite": not is_full},
    }  # fmt: skip


def projected_discriminator(tensors: Tensors, attributes: Attributes) -> dict[str, Any]:
    """By tensor names; whether it augments and enlarges, from its attributes. c_dim and the resolution are unknown."""
    scratch = "feature_network.scratch."
    heads = numbers(tensors, "discriminator.mini_discs.")
    first = "discriminator.mini_discs.0."
    cond = f"{first}cls.weight_orig" in tensors
    kwargs: dict[str, Any] = {
        "num_discs": len(heads), "cond": cond, "proj_type": 0,
        "separable": any(name.endswith("depthwise.weight_orig") for name in tensors),
        "patch": any(name.startswith(f"{first}main.0.main.0.main.") for name in tensors),
    }  # fmt: skip
    if f"{scratch}layer0_ccm.weight" in tensors:
        cout, wider = (tensors[f"{scratch}layer{level}_ccm.weight"].shape[0] for level in (0, 1))
        has_csm = f"{scratch}layer0_csm.out_conv.weight" in tensors
        kwargs |= {"proj_type": 2 if has_csm else 1, "cout": cout, "expand": wider != cout}
    last = f"{first}cls" if cond else f"{first}main.{max(numbers(tensors, f'{first}main.'))}"
    width = tensors[f"{last}.weight_orig"].shape[1]
    kwargs["ndf"] = None if width == 512 else width
    blocks = len(numbers(tensors, "feature_network.pretrained.layer0.4."))
    return {
        "diffaug": attributes.get("diffaug") is not False, "interp224": attributes.get("interp224") is not False,
        "backbone": LITE_BLOCKS[blocks], "backbone_kwargs": kwargs,
    }  # fmt: skip


def r3gan_generator(tensors: Tensors, bf16: list[int]) -> dict[str, Any]:
    """By shapes; `bf16` are the stages that compute in bfloat16."""
    img_channels = tensors["Model.AggregationLayer.Layer.weight"].shape[0]
    embedding = tensors.get("Model.EmbeddingLayer.weight")
    features = tensors["Model.MainLayers.0.Layers.0.LinearLayer.weight"].shape[1]
    return _r3gan(tensors, bf16, embedding) | {
        "NoiseDimension": features - (0 if embedding is None else embedding.shape[0]), "img_channels": img_channels,
    }  # fmt: skip


def r3gan_discriminator(tensors: Tensors, bf16: list[int]) -> dict[str, Any]:
    """By shapes; `bf16` are the stages that compute in bfloat16."""
    img_channels = tensors["Model.ExtractionLayer.Layer.weight"].shape[1]
    return _r3gan(tensors, bf16, tensors.get("Model.EmbeddingLayer.weight")) | {"img_channels": img_channels}


def _r3gan(tensors: Tensors, bf16: list[int], embedding: torch.Tensor | None) -> dict[str, Any]:
    """What G and D have in common."""
    stages = numbers(tensors, "Model.MainLayers.")
    widths, cardinalities, blocks = [], [], []
    for stage in stages:
        layers = f"Model.MainLayers.{stage}.Layers."
        inside = [n for n in numbers(tensors, layers) if f"{layers}{n}.LinearLayer2.Layer.weight" in tensors]
        inner, width = tensors[f"{layers}{inside[0]}.LinearLayer1.Layer.weight"].shape[:2]
        _, group, kernel_size = tensors[f"{layers}{inside[0]}.LinearLayer2.Layer.weight"].shape[:3]
        widths.append(width)
        cardinalities.append(inner // group)
        blocks.append(len(inside))
    arguments = {
        "WidthPerStage": widths, "CardinalityPerStage": cardinalities, "BlocksPerStage": blocks,
        "ExpansionFactor": inner // width, "KernelSize": kernel_size, "FP16Stages": bf16,
        "c_dim": 0 if embedding is None else embedding.shape[1],
    }  # fmt: skip
    if embedding is not None:
        arguments["ConditionEmbeddingDimension"] = embedding.shape[0]
    kernel = next((tensor for name, tensor in tensors.items() if name.endswith("Resampler.Kernel")), None)
    if kernel is not None:
        arguments["ResamplingFilter"] = _taps(kernel)
    return arguments


def _taps(kernel: torch.Tensor) -> list[float]:
    """The filter that was box-filtered into the rows of this kernel, its first tap 1."""
    row = kernel.sum(dim=0).double()
    taps = [1.0]
    for value in (row / row[0]).tolist()[1:-1]:
        taps.append(round(value - taps[-1], 3))
    return taps


def numbers(tensors: Iterable[str], prefix: str) -> list[int]:
    """The numbers n for which there is a tensor "PREFIXn.something", in order."""
    found = (re.match(rf"{re.escape(prefix)}(\d{{1,4}})\.", name) for name in tensors)
    return sorted({int(match[1]) for match in found if match})


def integer(attributes: Attributes, name: str, otherwise: int) -> int:
    value = attributes.get(name)
    return value if isinstance(value, int) else otherwise
