"""Perceptual path length (Karras et al. 2019, Section 4.1): how far apart neighbouring latents' images look.

    d = |lpips(G(t)) - lpips(G(t + eps))|^2 / eps^2,  eps = 1e-4, between two random latents

`full` draws t from 0..1, `end` takes t = 0. Images are not cropped, and reduced to 256 pixels if they are larger.
Networks run in float32: in float16 steps of 1e-4 would drown in rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import ClassVar, Protocol, runtime_checkable

import torch
import torch.nn.functional as F

from sg3.canvas import Size
from sg3.errors import UsageError
from sg3.metrics.detectors import Detector
from sg3.metrics.features import Findings
from sg3.metrics.functional import perceptual_path_length
from sg3.metrics.intervals import groups, jackknife
from sg3.metrics.metric import Metric
from sg3.metrics.progress import Progress
from sg3.metrics.samples import Labels, chunks, has_noise, randomize_noise
from sg3.metrics.views import framed
from sg3.models import StyleGenerator
from sg3.processes import World
from sg3.randomness import host_rng, latents
from sg3.transparency import Colour, over

EPSILON = 1e-4
NOISE_GROUP = 2  # pairs that share StyleGAN2's noise, the original's batch
BATCH = 4  # pairs at a time where there is no noise; an LPIPS vector of 256 pixels has 7.7 million numbers
SIZE = 256  # pixels that LPIPS looks at, at most


@dataclass(frozen=True)
class PathLength(Metric):
    """PPL of `num_gen` pairs: `space` is z or w, `sampling` end or full."""

    space: str
    sampling: str

    detector: str = "vgg16"

    less_is_better: ClassVar[bool] = True


@runtime_checkable
class Perceptual(Protocol):
    """A detector with vectors whose squared distance is LPIPS."""

    def lpips(self, images: torch.Tensor) -> torch.Tensor:
        """float [N, C, H, W] in 0..255 -> [N, D]."""


def path_length(
    metric: PathLength, G: StyleGenerator, labels: Labels, detector: Detector, seed: int, world: World,
    progress: Progress, intervals: bool = False, background: Colour | None = None, visible: Size | None = None,
) -> Findings:  # fmt: skip
    """PPL over metric.num_gen pairs; of images with alpha over a background, of those between black bars the `visible`
    part in the middle. Raises UsageError if the detector has no LPIPS."""
    if not isinstance(detector, Perceptual):
        raise UsageError(f"metric {metric.name}: the detector {detector.name} has no LPIPS")
    device = next(G.parameters()).device
    size = NOISE_GROUP if has_noise(G) else BATCH
    parts = world.mine(chunks(metric.num_gen, size))
    distances: list[torch.Tensor] = []

    def measure() -> None:
        for part in progress.each(f"{metric.name}: pairs", parts):
            full = range(part.start, part.start + size)  # all of a group that shares noise
            vectors = detector.lpips(_images(metric, G, labels, seed, full, background, visible)[: 2 * size])
            first, second = vectors.double().chunk(2)
            distance = (first - second).square().sum(dim=1) / EPSILON**2
            distances.append(distance[: len(part)].to(device))

    with torch.no_grad():
        world.together(measure)
    rows = torch.cat(distances) if distances else torch.zeros(0, dtype=torch.float64, device=device)
    positions = torch.tensor([i for part in parts for i in part], dtype=torch.int64, device=device)
    ordered = world.in_order(rows, positions, metric.num_gen)

    def average() -> Findings:
        assert ordered is not None
        if not bool(torch.isfinite(ordered).all()):  # a network that has diverged
            return Findings({metric.name: nan})
        value = perceptual_path_length(ordered)
        if not intervals:
            return Findings({metric.name: value})
        parts = groups(len(ordered))
        rest = [torch.cat([ordered[: part.start], ordered[part.stop :]]) for part in parts] if len(parts) > 1 else []
        interval = jackknife(value, [perceptual_path_length(distances) for distances in rest])
        return Findings({metric.name: value}, intervals={metric.name: interval})

    return world.on_main(average)


def _images(
    metric: PathLength, G: StyleGenerator, labels: Labels, seed: int, which: range, background: Colour | None,
    visible: Size | None,
) -> torch.Tensor:  # fmt: skip
    """Both images of each pair, float in 0..255: [2 n, C, H, W], first all at t, then all at t + eps."""
    device = next(G.parameters()).device
    count = len(which)
    z0, z1 = (latents(seed, f"metrics/ppl/{end}", which.start, count, G.z_dim).to(device) for end in ("z0", "z1"))
    c = labels(which.start, count).to(device)
    t = torch.zeros(count, 1, device=device)
    if metric.sampling == "full":
        draws = [host_rng(seed, "metrics/ppl/t", i).random(dtype="float32") for i in which]
        t = torch.tensor(draws, dtype=torch.float32, device=device)[:, None]

    if metric.space == "w":
        ends = G.mapping(torch.cat([z0, z1]), torch.cat([c, c]))  # [2 n, num_ws, w_dim]
        w0, w1 = ends.chunk(2)
        ws = torch.cat([w0.lerp(w1, t[:, :, None]), w0.lerp(w1, t[:, :, None] + EPSILON)])
    else:
        z = torch.cat([spherical(z0, z1, t), spherical(z0, z1, t + EPSILON)])
        ws = G.mapping(z, torch.cat([c, c]))

    randomize_noise(G, seed, "metrics/ppl/noise", which.start)
    images = framed(G.synthesis(ws, noise_mode="const", force_fp32=True), visible)
    if background is not None:
        images = over(images, background)
    factor = min(images.shape[2:]) // SIZE
    if factor > 1:
        images = F.avg_pool2d(images, factor)
    return images * (255 / 2) + 255 / 2


def spherical(a: torch.Tensor, b: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Point t [N, 1] of the way from a to b [N, D] along the great circle between them, on the unit sphere."""
    a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    cosine = (a * b).sum(dim=1, keepdim=True)
    angle = t * cosine.clamp(-1, 1).acos()
    across = F.normalize(b - cosine * a, dim=1)
    return F.normalize(a * angle.cos() + across * angle.sin(), dim=1)
