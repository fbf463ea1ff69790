"""upfirdn2d where the networks call it: resampling in discriminator and StyleGAN2 generator, and the training blur."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.cases import BATCH, DEVICE, ON_GPU, compiled_peers, thin, timed_blocks
from bench.shapes import Block
from bench.workloads import Upfirdn2d

TAPS = (1.0, 3.0, 3.0, 1.0)  # the networks' resampling filter, used as its outer product


def block_case(block: Block, down: int, padding: tuple[int, int], backward: bool) -> Upfirdn2d:
    what = "skip" if down > 1 else "before conv1"
    return Upfirdn2d(
        f"{block.title} {what}", BATCH, thin(block.channels, block.size), block.size, TAPS, False, 1, down, padding,
        backward, block.use_fp16, DEVICE,
    )  # fmt: skip


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize(("down", "padding"), [(1, (2, 2)), (2, (1, 1))], ids=["conv1", "skip"])
@pytest.mark.parametrize("block", timed_blocks(), ids=lambda block: block.title.replace("/", "-"))
def test_discriminator(
    block: Block, down: int, padding: tuple[int, int], backward: bool, paired: Callable[..., None]
) -> None:
    first = block == timed_blocks()[0]
    paired(block_case(block, down, padding, backward), compiled_peers(backward and first and down > 1))


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("size", [128, 512] if ON_GPU else [128])
def test_image_upsampling(size: int, backward: bool, paired: Callable[..., None]) -> None:
    """StyleGAN2's sum of images: 3 channels, float32, twice as large."""
    paired(Upfirdn2d("SG2 image", BATCH, 3, size, TAPS, False, 2, 1, (2, 1), backward, False, DEVICE))


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("size", [256, 1024] if ON_GPU else [256])
def test_blur(size: int, backward: bool, paired: Callable[..., None]) -> None:
    """The blur before the discriminator at its widest, sigma 10: 61 separable taps."""
    taps = tuple(2.0 ** -((k / 10) ** 2) for k in range(-30, 31))
    paired(Upfirdn2d("blur", BATCH, 3, size, taps, True, 1, 1, (30, 30), backward, False, DEVICE))
