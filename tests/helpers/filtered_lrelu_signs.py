"""The signs that Triton's kernels of filtered_lrelu keep, one number a sample again."""

from __future__ import annotations

from math import ceil

import torch

from sg3.kernels.filtered_lrelu.geometry import CLAMPED, PASSED, SLOPED, Resampling
from sg3.kernels.filtered_lrelu.marching_plan import Pointwise, build
from tests.helpers.filtered_lrelu_cases import Case

CPU = torch.device("cpu")


def marches(case: Case, fu: torch.Tensor | None, fd: torch.Tensor | None, dtype: torch.dtype,
            with_signs: bool = True) -> bool:  # fmt: skip
    """Whether the case is one for marching programs; the others are for tiles."""
    resampling = Resampling.forward(case.up, case.down, case.padding, case.flip)
    return build(fu, fd, resampling, Pointwise(1.3, case.slope, with_signs, False), dtype, CPU) is not None


def of_lines(signs: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """What marching programs keep (signs.py) -> PASSED, SLOPED or CLAMPED, uint8 [N, C, height, width]."""
    n, c = signs.shape[:2]
    lines, pairs = ceil(height / 32), ceil(width / 2)
    line = 8 * pairs + ceil(pairs / 2)
    words = signs.reshape(-1).view(torch.int16)[: n * c * lines * line].reshape(n, c, lines, line)
    flags = words[..., 8 * pairs :].repeat_interleave(2, dim=-1)[..., :pairs]
    assert ((flags == 0) | (flags == 1)).all()
    sloped, clamped = (_samples(words[..., 4 * i * pairs : 4 * (i + 1) * pairs]) for i in (0, 1))
    flagged = flags.repeat_interleave(2, dim=-1).repeat_interleave(32, dim=-2) != 0
    result = torch.where(clamped & flagged, CLAMPED, torch.where(sloped, SLOPED, PASSED))
    return result[:, :, :height, :width].to(torch.uint8)


def _samples(words: torch.Tensor) -> torch.Tensor:
    """[N, C, lines, 4 pairs] -> bool [N, C, 32 lines, 2 pairs]."""
    n, c, lines, count = words.shape
    words = words.reshape(n, c, lines, count // 4, 4).to(torch.int32)
    samples = torch.zeros(n, c, lines, 32, count // 4, 2, dtype=torch.bool, device=words.device)
    for h in range(2):
        for k in range(2):
            for e in range(2):
                for r in range(2):
                    bits = (words >> (8 * e + 4 * h + 2 * k + r)) & 1 != 0  # [N, C, lines, pairs, 4]
                    samples[:, :, :, 16 * h + 8 * k + e : 16 * h + 8 * k + e + 8 : 2, :, r] = bits.transpose(-1, -2)
    return samples.reshape(n, c, 32 * lines, count // 2)


def of_bits(signs: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """What tiles keep, two bits a sample, -> uint8 [N, C, height, width], with what fills the last byte up."""
    n, c = signs.shape[:2]
    packed = signs.reshape(-1)[: n * c * height * ceil(width / 4)].reshape(n, c, height, -1)
    return torch.stack([(packed >> shift) & 3 for shift in (0, 2, 4, 6)], dim=-1).flatten(-2)
