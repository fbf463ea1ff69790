"""Whole networks and phases of a training step."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.cases import BATCH, DEVICE, ON_GPU, compiled_peers, memory_peers
from bench.conftest import FULL
from bench.shapes import layers
from bench.training import LayerStep, Training

SMALL_BATCH = 2  # of 1024-pixel networks: the reference keeps every upsampled tensor, which at 8 takes over 100 GB


@pytest.mark.skipif(ON_GPU, reason="small networks, for CPUs")
class TestCpu:
    """StyleGAN3-T at 64 pixels with the channels of the demo's recipe."""

    def test_generator_step(self, paired: Callable[..., None]) -> None:
        """The CPU target. Compiling a whole generator takes minutes here, so only with SG3_BENCH_FULL."""
        step = Training("Gboth", "stylegan3-t", 64, 1024, 32, 8, DEVICE)
        paired(step, compiled_peers(False), target="step", memory_of=memory_peers())

    def test_layer_512_channels(self, paired: Callable[..., None]) -> None:
        """The same with the channels of a full network, where the convolution dominates: one layer, two images."""
        paired(LayerStep(layers("t-256")[1], 2, DEVICE), compiled_peers(True), memory_of=memory_peers())

    @pytest.mark.parametrize("part", ["G", "D"])
    def test_forward(self, part: str, paired: Callable[..., None]) -> None:
        paired(Training(part, "stylegan3-t", 64, 1024, 32, 8, DEVICE))

    @pytest.mark.parametrize("part", ["Dmain", "Dreg"])
    def test_discriminator_step(self, part: str, paired: Callable[..., None]) -> None:
        paired(Training(part, "stylegan3-t", 64, 1024, 32, 8, DEVICE))

    def test_rotation_step(self, paired: Callable[..., None]) -> None:
        paired(Training("Gboth", "stylegan3-r", 64, 1024, 32, 4, DEVICE))


@pytest.mark.skipif(not ON_GPU, reason="real networks, for GPUs")
@pytest.mark.parametrize("cfg", ["stylegan3-t", "stylegan3-r"])
class TestGpu:
    """T and R at 1024 and 256 pixels with all of their channels. R1 is always eager: it differentiates a gradient."""

    @pytest.mark.parametrize("part", ["G", "Gboth"])
    def test_256(self, cfg: str, part: str, paired: Callable[..., None]) -> None:
        paired(Training(part, cfg, 256, 16384, 512, BATCH, DEVICE))

    @pytest.mark.parametrize("batch", sorted({SMALL_BATCH, BATCH}), ids=lambda batch: f"batch{batch}")
    def test_generator_step(self, cfg: str, batch: int, paired: Callable[..., None]) -> None:
        """The first call of a compiled peer is the time to compile a whole generator, forward and backward."""
        compile = ("ref", "triton") if FULL or (cfg == "stylegan3-t" and batch == SMALL_BATCH) else ()
        paired(Training("Gboth", cfg, 1024, 32768, 512, batch, DEVICE), compile)

    @pytest.mark.parametrize("part", ["Dmain", "Dreg"])
    def test_discriminator_step(self, cfg: str, part: str, paired: Callable[..., None]) -> None:
        if part == "Dreg" and cfg == "stylegan3-r":
            pytest.skip("R1 has no generator in it: the same as for T")
        compile = ("ref", "triton") if FULL and part == "Dmain" else ()
        paired(Training(part, cfg, 1024, 32768, 512, BATCH, DEVICE), compile)

    def test_generator(self, cfg: str, paired: Callable[..., None]) -> None:
        paired(Training("G", cfg, 1024, 32768, 512, BATCH, DEVICE))
