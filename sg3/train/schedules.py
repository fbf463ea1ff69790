"""Numbers that change in the course of a run, as functions of how many images it has shown."""

from __future__ import annotations

from math import cos, pi


def cosine(nimg: int, start: float, end: float, total_nimg: float) -> float:
    """From `start` to `end` along half a cosine, and `end` from `total_nimg` images on."""
    if nimg >= total_nimg:
        return end
    return end + (start - end) * 0.5 * (1 + cos(pi * nimg / total_nimg))
