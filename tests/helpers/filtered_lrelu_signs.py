"""The signs that Triton's kernels of filtered_lrelu keep, one number a sample again."""

from __future__ import annotations

from math import ceil

import torch

from sg3.kernels.filtered_lrelu import marching_plan, symmetric_plan
from sg3.kernels.filtered_lrelu.geometry import CLAMPED, PASSED, SLOPED, Resampling
from sg3.kernels.filtered_lrelu.marching_plan import Pointwise
from sg3.kernels.filtered_lrelu.symmetric_plan import QUADS
from tests.helpers.filtered_lrelu_cases import Case

CPU = torch.device("cpu")


def marches(case: Case, fu: torch.Tensor | None, fd: torch.Tensor | None, dtype: torch.dtype) -> bool:
    """Whether the case is one for the programs of marching.py."""
    resampling = Resampling.forward(case.up, case.down, case.padding, case.flip)
    plan = marching_plan.build(fu, fd, resampling, Pointwise(1.3, case.slope, True, False), dtype, CPU)
    return plan is not None


def marches_symmetrically(
    case: Case, fu: torch.Tensor | None, fd: torch.Tensor | None, dtype: torch.dtype
) -> bool:  # fmt: skip
    """Whether it is one for those of symmetric.py; what is for neither is for tiles."""
    resampling = Resampling.forward(case.up, case.down, case.padding, case.flip)
    plan = symmetric_plan.build(fu, fd, resampling, Pointwise(1.3, case.slope, True, False), dtype, CPU)
    return plan is not None and not marches(case, fu, fd, dtype)


def signs_of(
    packed: torch.Tensor, height: int, width: int, case: Case, fu: torch.Tensor | None, fd: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:  # fmt: skip
    """What the case's kernel keeps -> PASSED, SLOPED or CLAMPED, uint8 [N, C, height, width]."""
    if marches(case, fu, fd, dtype):
        return of_lines(packed, height, width)
    if marches_symmetrically(case, fu, fd, dtype):
        return of_quads(packed, height, width)
    signs = of_bits(packed, height, width)
    assert (signs[..., width:] == 2).all()
    return signs[..., :width]


def of_quads(signs: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """What programs for symmetric filters keep (signs.py)."""
    n, c = signs.shape[:2]
    lines, quads = ceil(height / 32), ceil(width / 4)
    words = signs.reshape(-1).view(torch.int16)[: n * c * lines * 17 * quads].reshape(n, c, lines, 17 * quads)
    flags = words[..., 16 * quads :]
    assert ((flags == 0) | (flags == 1)).all()
    flagged = flags.repeat_interleave(4, dim=-1).repeat_interleave(32, dim=-2) != 0
    sloped, clamped = torch.zeros(2, n, c, lines, 32, quads, 4, dtype=torch.bool, device=signs.device)
    for part, result in enumerate((sloped, clamped)):
        of_part = words[..., 8 * quads * part : 8 * quads * (part + 1)].reshape(n, c, lines, quads, 8).to(torch.int32)
        for i in range(8):
            for bit in range(16):
                e, h, k, r = bit // 8, bit // 4 % 2, bit // 2 % 2, bit % 2
                result[:, :, :, 16 * h + int(QUADS[i + 8 * r]), :, 2 * k + e] = (of_part[..., i] >> bit) & 1 != 0
    sloped, clamped = (t.reshape(n, c, 32 * lines, 4 * quads) for t in (sloped, clamped))
    result = torch.where(clamped & flagged, CLAMPED, torch.where(sloped, SLOPED, PASSED))
    return result[:, :, :height, :width].to(torch.uint8)


def of_lines(signs: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """What marching programs keep (signs.py)."""
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
