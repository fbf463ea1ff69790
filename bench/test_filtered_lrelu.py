"""filtered_lrelu at the synthesis layers of T and R, 256 and 1024 pixels."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.cases import BATCH, DEVICE, ON_GPU, compiled_peers, memory_peers, target_layers, thin, timed_layers
from bench.shapes import Layer
from bench.workloads import FilteredLrelu

MODES = pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])


def title(layer: Layer) -> str:
    return layer.title.replace("/", "-")


def workload(layer: Layer, backward: bool) -> FilteredLrelu:
    channels = thin(layer.spec.out_channels, max(layer.conv_size, layer.spec.out_size))
    return FilteredLrelu(layer, BATCH, channels, backward, DEVICE)


@pytest.mark.skipif(ON_GPU, reason="the target is one for CPUs")
@MODES
@pytest.mark.parametrize("layer", target_layers(), ids=title)
def test_target(layer: Layer, backward: bool, paired: Callable[..., None]) -> None:
    """What the CPU target is about: the ordinary layer at four sizes, with peak memory.

    A quarter of the layer's channels: thinner slices fit into caches that a network's layers do not fit into.
    """
    slice_ = FilteredLrelu(layer, BATCH, layer.spec.out_channels // 4, backward, DEVICE)
    if backward:
        paired(slice_, compiled_peers(True), target="filtered_lrelu", memory_of=memory_peers())
    else:
        paired(slice_)


@MODES
@pytest.mark.parametrize("layer", timed_layers(), ids=title)
def test_layers(layer: Layer, backward: bool, paired: Callable[..., None]) -> None:
    paired(workload(layer, backward), compiled_peers(ON_GPU and layer.network == "t-1024" and backward))
