"""Networks in name only: a family and constructor arguments that no network has, and no tensors."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from math import inf, nan
from typing import Any

from sg3 import limits

Make = Callable[[], bytes]

STYLEGAN3 = {"z_dim": 4, "c_dim": 0, "w_dim": 4, "img_resolution": 64, "img_channels": 3, "channel_base": 64,
             "channel_max": 4, "num_layers": 3, "num_critical": 1}  # fmt: skip
STYLEGAN2 = {"z_dim": 4, "c_dim": 0, "w_dim": 4, "img_resolution": 64, "img_channels": 3, "channel_base": 64,
             "channel_max": 4}  # fmt: skip
R3GAN = {"NoiseDimension": 4, "WidthPerStage": [4, 4], "CardinalityPerStage": [1, 1], "BlocksPerStage": [1, 1]}


def network(family: str, **arguments: Any) -> bytes:
    slot = "D" if "discriminator" in family else "augment_pipe" if family == "augment-pipe" else "G_ema"
    config = {"version": 1, "networks": {slot: {"family": family, "arguments": arguments}}}
    header = json.dumps({"__metadata__": {"sg3": json.dumps(config)}}).encode()
    return struct.pack("<Q", len(header)) + header


def cases() -> dict[str, Make]:
    found: dict[str, Make] = {}
    base = {"stylegan3-generator": STYLEGAN3, "stylegan2-generator": STYLEGAN2, "r3gan-generator": R3GAN}
    mapping = {"num_layers", "embed_features", "layer_features", "w_avg_beta"}
    for name, (low, high) in limits.ARGUMENTS.items():
        if name.startswith("length of "):
            continue
        for value in (low - 1, high * 1.01 + 1, nan, inf, 10**300):
            family = next((f for f in base if name in base[f]), "stylegan3-generator")
            if name == "resample_filter":
                family = "stylegan2-generator"
            listed = [value] if name.endswith(("Stage", "Stages", "ilter")) else value
            given: dict[str, Any] = {**base[family], name: listed}
            if name in mapping and name != "num_layers":
                given = {**base[family], "mapping_kwargs": {name: value}}
            found[f"{name} = {value}"] = lambda f=family, g=given: network(f, **g)
    for extra in (
        {"img_resolution": 8192, "first_stopband": 8192.0, "last_stopband_rel": 2**-20, "use_radial_filters": True},
        {"img_resolution": 8192, "first_stopband": 4096.0, "last_stopband_rel": 1, "use_radial_filters": True},
        {"img_resolution": 8192, "first_cutoff": 0.5, "first_stopband": 1, "use_radial_filters": True},
        {"margin_size": 32_768}, {"margin_size": 64, "img_resolution": 8192}, {"num_layers": 64, "num_critical": 1},
        {"num_layers": 64, "filter_size": 32, "lrelu_upsampling": 4, "use_radial_filters": True,
         "img_resolution": 8192},
        {"num_layers": 4, "filter_size": 32, "lrelu_upsampling": 4, "use_radial_filters": True, "img_resolution": 8192},
        {"z_dim": 16384, "w_dim": 16384}, {"mapping_kwargs": {"num_layers": 64, "layer_features": 16384}},
        {"channel_max": 16384, "channel_base": 2**27}, {"img_channels": 64, "w_dim": 16384, "num_layers": 64},
        {"num_layers": 10**9}, {"conv_kernel": 15, "channel_max": 16384, "channel_base": 2**27},
    ):  # fmt: skip
        words = ", ".join(f"{key}={value}" for key, value in extra.items())
        found[f"StyleGAN3 with {words}"] = lambda g={**STYLEGAN3, **extra}: network("stylegan3-generator", **g)
    for extra in (
        {"resample_filter": [1.0] * 65}, {"resample_filter": [[1.0] * 900]}, {"resample_filter": [1.0] * 999},
        {"resample_filter": [[1.0] * 31] * 31}, {"img_resolution": 8192, "architecture": "resnet"},
        {"img_resolution": 8192, "use_noise": False}, {"num_fp16_res": 2**23},
    ):  # fmt: skip
        words = ", ".join(f"{key}" for key in extra)
        found[f"StyleGAN2 with {words} {len(str(extra))}"] = (
            lambda g={**STYLEGAN2, **extra}: network("stylegan2-generator", **g)
        )
    for extra in (
        {"WidthPerStage": [4] * 13, "CardinalityPerStage": [1] * 13, "BlocksPerStage": [1] * 13},
        {"WidthPerStage": [4] * 12, "CardinalityPerStage": [1] * 12, "BlocksPerStage": [64] * 12},
        {"WidthPerStage": [16384] * 12, "CardinalityPerStage": [1] * 12, "BlocksPerStage": [1] * 12},
        {"ResamplingFilter": [1.0] * 65}, {"ExpansionFactor": 65}, {"KernelSize": 17},
    ):  # fmt: skip
        words = ", ".join(f"{key}={str(value)[:20]}" for key, value in extra.items())
        found[f"R3GAN with {words}"] = lambda g={**R3GAN, **extra}: network("r3gan-generator", **g)
    found["a discriminator of 8192 pixels"] = lambda: network(
        "stylegan2-discriminator", c_dim=0, img_resolution=8192, img_channels=3, channel_base=8192, channel_max=4
    )
    found["a discriminator with wide labels"] = lambda: network(
        "stylegan2-discriminator", c_dim=16384, img_resolution=8, img_channels=3, channel_base=64, channel_max=4,
        cmap_dim=16384,
    )  # fmt: skip
    return found
