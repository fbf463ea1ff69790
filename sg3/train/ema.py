"""Exponential moving average of the generator, the network that is kept (Karras et al. 2018, Section 4)."""

from __future__ import annotations

import torch
from torch import nn


def ema_beta(batch: int, nimg: int, ema_kimg: float, rampup: float | None) -> float:
    """Decay per step for a half-life of `ema_kimg` thousand images, shorter (nimg * rampup) early in training."""
    half_life = ema_kimg * 1000
    if rampup is not None:
        half_life = min(half_life, nimg * rampup)
    return float(0.5 ** (batch / max(half_life, 1e-8)))


@torch.no_grad()
def update_ema(average: nn.Module, current: nn.Module, beta: float) -> None:
    """Move `average`'s parameters towards `current`'s; buffers (running means, noise) are copied, but for filters."""
    for mean, value in zip(average.parameters(), current.parameters(), strict=True):
        mean.copy_(value.lerp(mean, beta))
    for (name, kept), latest in zip(average.named_buffers(), current.buffers(), strict=True):
        if not name.endswith("_filter"):  # the same for good; writing to them would throw away their prepared form
            kept.copy_(latest)
