"""bias_act after the discriminator's convolutions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.cases import BATCH, DEVICE, compiled_peers, thin, timed_blocks
from bench.shapes import Block
from bench.workloads import BiasAct


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("block", timed_blocks(), ids=lambda block: block.title.replace("/", "-"))
def test_discriminator(block: Block, backward: bool, paired: Callable[..., None]) -> None:
    workload = BiasAct(block, BATCH, thin(block.channels, block.size), backward, DEVICE)
    paired(workload, compiled_peers(backward and block == timed_blocks()[0]))
