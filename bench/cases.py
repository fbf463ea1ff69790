"""Which of the networks' shapes each device gets.

A GPU takes layers as they are, at batch 8. A CPU takes thin slices, one image and a few channels, so that a case lasts
milliseconds, and images beyond 300 pixels a side only with SG3_BENCH_FULL. (Few channels are fair to no one: vector
units that work across channels are less full than in a network.)
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from math import inf

import torch

from bench.conftest import FULL, bench_device
from bench.shapes import Block, Layer, blocks, layers, representative
from sg3.kernels.dispatch import resolve

ON_GPU = bench_device().type == "cuda"
DEVICE = bench_device().type
BATCH = int(os.environ.get("SG3_BENCH_BATCH") or 8) if ON_GPU else 1
NETWORKS = ("t-1024", "r-1024", "t-256", "r-256")
LARGEST = inf if ON_GPU or FULL else 300  # pixels
TARGET_SIZES = (36, 84, 148, 276)  # of the layers that the CPU target is about


def thin(channels: int, size: int) -> int:
    """Channels of an image of this size to take: all on a GPU, up to 32 and about half a million pixels on a CPU."""
    return channels if ON_GPU else min(channels, max(4, min(32, 600_000 // size**2)))


def timed_layers() -> list[Layer]:
    """The largest layer of each kind, all layers with SG3_BENCH_FULL; each geometry once."""
    chosen = [layer for name in NETWORKS for layer in (layers(name) if FULL else representative(name, LARGEST))]
    return list({geometry(layer): layer for layer in reversed(chosen)}.values())[::-1]


def geometry(layer: Layer) -> tuple[object, ...]:
    """What makes two layers the same work on this device."""
    s = layer.spec
    sizes = s.in_size, s.out_size, layer.kernel, layer.up, layer.down, layer.radial, s.is_torgb
    return (*sizes, s.in_channels, s.out_channels, s.use_fp16) if ON_GPU else sizes


def target_layers() -> list[Layer]:
    """The ordinary layers at the target's sizes, one of each."""
    found = {layer.conv_size: layer for layer in layers("t-256") if layer.same_size}
    by_size = {layer.spec.out_size: layer for layer in found.values()}
    return [by_size[size] for size in TARGET_SIZES]


def compiled_peers(always: bool) -> tuple[str, ...]:
    """Which implementations to time under torch.compile: compiling takes far longer than the rest of a case."""
    return ("ref",) if always or FULL else ()


def memory_peers() -> tuple[str, str]:
    """Whose peak memory the CPU target is about: ref's, and that of what runs by default."""
    return "ref", resolve("filtered_lrelu", "auto", torch.device("cpu"))


def timed_blocks() -> list[Block]:
    """Two large and one small discriminator block at 1024 and 256 pixels, all with SG3_BENCH_FULL."""
    chosen: Iterable[Block] = (
        block for name in ("t-1024", "t-256") for index, block in enumerate(blocks(name))
        if FULL or (index in (0, 1, 4) and block.size <= LARGEST)
    )
    return list({(b.size, b.channels, b.use_fp16): b for b in chosen}.values())
