"""Paths through keyframes: cubic splines, straight lines and great circles.

    path = Interpolation(keys, "cubic", loop=True)      # keys [K, ...], at times 0, 1, ..., K - 1
    path(times)                                         # [T, ...]; in a loop, time K is time 0 again
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

KINDS = ("cubic", "linear", "slerp")
WRAPS = 2  # a closed spline runs through its keyframes this often before and after, as in the original's gen_video


class Interpolation:
    """A path through `keys` [K, ...]; in a loop it returns from the last one to the first within one more unit.

    'cubic' is the spline with continuous second derivatives and not-a-knot ends (a parabola through 3 keyframes, a
    line through 2); a loop is the middle of the spline through the keyframes repeated five times, which is close to
    the periodic spline: what the ends contribute shrinks by 3.7 with each keyframe. 'slerp' turns vectors along the
    last axis, see `slerp`. With `ease` the path comes to rest at each keyframe.

    Calculates in float64. Raises ValueError for no keyframes, an unknown kind, or times outside the path.
    """

    def __init__(self, keys: torch.Tensor, kind: str = "cubic", *, loop: bool = True, ease: bool = False) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind: got {kind!r}, expected one of {', '.join(KINDS)}")
        if keys.ndim == 0 or len(keys) == 0:
            raise ValueError(f"keys: got shape {list(keys.shape)}, expected at least one keyframe [K, ...]")
        keys = keys.detach().to("cpu", torch.float64)
        count = len(keys)
        self.kind = kind
        self.loop = loop
        self.ease = ease
        self.duration = count if loop else count - 1  # in units of one keyframe to the next
        # A single keyframe rests: it is both ends of one segment.
        self._points = torch.cat([keys, keys[:1]]) if loop or count == 1 else keys  # [segments + 1, ...]
        self._curvature = torch.zeros(0)
        if kind == "cubic":
            copies = keys.repeat(2 * WRAPS + 1, *[1] * (keys.ndim - 1)) if loop else self._points
            first = WRAPS * count if loop else 0
            self._curvature = _second_derivatives(copies)[first : first + len(self._points)]

    def __call__(self, times: Sequence[float] | torch.Tensor) -> torch.Tensor:
        """times [T] -> points [T, ...], float64. In a loop any time is valid, else 0 to K - 1."""
        t = torch.as_tensor(times, dtype=torch.float64)
        if self.loop:
            t = t.remainder(self.duration)
        elif ((t < 0) | (t > self.duration)).any():
            raise ValueError(f"times: got {t.min():g} to {t.max():g}, this path goes from 0 to {self.duration}")
        segment = t.floor().long().clamp(max=len(self._points) - 2)  # [T]
        a, b = self._points[segment], self._points[segment + 1]  # [T, ...]
        u = (t - segment).reshape(-1, *[1] * (a.ndim - 1))  # 0..1 within the segment
        if self.ease:
            u = u * u * (3 - 2 * u)
        if self.kind == "slerp":
            return slerp(a, b, u)
        straight = a + (b - a) * u
        if self.kind == "linear":
            return straight
        v = 1 - u
        bend = (v**3 - v) * self._curvature[segment] + (u**3 - u) * self._curvature[segment + 1]
        return straight + bend / 6


def slerp(a: torch.Tensor, b: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Turn the vectors a [..., D] towards b along the great circle by the fraction t [..., 1] of the angle.

    Lengths change linearly, so that t = 0 gives a and t = 1 gives b. Opposite vectors, between which no circle is
    the shortest, are joined by a line.
    """
    length_a, length_b = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    tiny = torch.finfo(a.dtype).tiny
    a, b = a / length_a.clamp(min=tiny), b / length_b.clamp(min=tiny)
    angle = 2 * torch.atan2((a - b).norm(dim=-1, keepdim=True), (a + b).norm(dim=-1, keepdim=True))
    sine = angle.sin()
    line = a + (b - a) * t
    arc = (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / sine
    return torch.where(sine < 1e-6, line, arc) * (length_a + (length_b - length_a) * t)


def _second_derivatives(y: torch.Tensor) -> torch.Tensor:
    """Second derivatives [n, ...] at the knots of the not-a-knot cubic spline through y [n, ...] at 0, 1, ..., n - 1.

    With m for them, continuity of the first derivative asks of every inner knot
        m[i-1] + 4 m[i] + m[i+1] = 6 (y[i-1] - 2 y[i] + y[i+1]),
    and one cubic on the first two segments (not-a-knot) that m[0] = 2 m[1] - m[2]; the same at the other end.
    Inserted into the first inner equation, this gives m[1] outright. What remains is tridiagonal.
    """
    n = len(y)
    m = torch.zeros_like(y)
    if n < 3:
        return m
    bend = y[:-2] - 2 * y[1:-1] + y[2:]  # [n - 2, ...], for the inner knots
    if n == 3:
        return bend.expand_as(y)
    inner = m[1:-1]
    inner[0], inner[-1] = bend[0], bend[-1]
    # Elimination from the left writes inner[i] as inner[i] - ratio[i] * inner[i + 1], then back from the right.
    ratio = [0.0]
    for i in range(1, n - 3):
        ratio.append(1 / (4 - ratio[-1]))
        inner[i] = (6 * bend[i] - inner[i - 1]) * ratio[i]
    for i in range(n - 4, 0, -1):
        inner[i] -= ratio[i] * inner[i + 1]
    m[0] = 2 * m[1] - m[2]
    m[-1] = 2 * m[-2] - m[-3]
    return m
