"""modulated_conv2d at the synthesis layers of T and R, 256 and 1024 pixels."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.cases import BATCH, DEVICE, compiled_peers, thin, timed_layers
from bench.shapes import Layer
from bench.workloads import ModulatedConv2d


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("layer", timed_layers(), ids=lambda layer: layer.title.replace("/", "-"))
def test_layers(layer: Layer, backward: bool, paired: Callable[..., None]) -> None:
    s = layer.spec
    # Two images at least: with one there are no weights per sample to save.
    workload = ModulatedConv2d(
        layer, max(BATCH, 2), thin(s.in_channels, s.in_size), thin(s.out_channels, s.in_size), backward, DEVICE
    )
    paired(workload, compiled_peers(backward and layer == timed_layers()[0]))
