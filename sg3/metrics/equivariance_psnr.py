"""EQ-T and EQ-R (Karras et al. 2021, Appendix E): how well a generator's images follow a transform of its input.

    PSNR = 20 log10(2) - 10 log10(sum of squared differences / number of pixels compared), in dB

over all images, channels and pixels within the masks: one ratio of global sums, not a mean of ratios. Four images share
a transform; which one depends on (seed, number of the four) and nothing else.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from math import cos, log10, nan, pi, sin

import torch

from sg3.canvas import size_of
from sg3.errors import UsageError
from sg3.metrics.equivariance import (
    pseudo_rotate_fractional,
    rotate_fractional,
    translate_fractional,
    translate_integer,
)
from sg3.metrics.features import Findings
from sg3.metrics.intervals import GROUPS, jackknife
from sg3.metrics.metric import Metric
from sg3.metrics.progress import Progress
from sg3.metrics.samples import Labels, chunks, randomize_noise
from sg3.models import Generator, StyleGenerator
from sg3.processes import World
from sg3.randomness import host_rng, latents
from sg3.sampling import is_small
from sg3.side_by_side import MANY, side_by_side

BATCH = 4  # images that share a transform
MAX_SHIFT = 0.125  # of a side


@dataclass(frozen=True)
class Equivariance(Metric):
    """EQ-T if the operator is int (whole pixels) or frac, EQ-R if it is rotate."""

    operator: str


def check_transform(G: Generator, names: Sequence[str]) -> None:
    """Raise UsageError unless the generator takes an input transform."""
    if not hasattr(getattr(getattr(G, "synthesis", None), "input", None), "transform"):
        raise UsageError(f"{', '.join(names)}: only StyleGAN3 networks can be moved, this one has no input transform")


@torch.no_grad()
def equivariance(
    metrics: Sequence[Equivariance], G: StyleGenerator, labels: Labels, seed: int, world: World, progress: Progress,
    intervals: bool = False,
) -> Findings:  # fmt: skip
    """PSNR in dB for each of the metrics, by name; the untransformed images are made once for all of them.

    NaN where no pixel could be compared (images under 12 pixels), infinity where none differed.
    """
    device = next(G.parameters()).device
    batches = {metric.name: -(-metric.num_gen // BATCH) for metric in metrics}
    sums = {
        name: torch.zeros(min(GROUPS, count) if intervals else 1, 2, dtype=torch.float64, device=device)
        for name, count in batches.items()
    }
    parts = world.mine(chunks(max(metric.num_gen for metric in metrics), BATCH))
    plain = torch.eye(3, device=device)
    networks = threading.local()  # a transform is set in the network: one for each thread, of the same weights
    networks.own = G

    def compare(part: range) -> dict[str, torch.Tensor]:
        number = part.start // BATCH
        if not hasattr(networks, "own"):
            networks.own = copy.deepcopy(G, {id(weights): weights for weights in G.parameters()})
        own: StyleGenerator = networks.own
        z = latents(seed, "metrics/eq/z", part.start, BATCH, G.z_dim).to(device)
        ws = own.mapping(z, labels(part.start, BATCH).to(device))
        randomize_noise(own, seed, "metrics/eq/noise", number)
        original = _draw(own, ws, plain)
        kept = {metric: min(metric.num_gen - part.start, BATCH) for metric in metrics}
        return {metric.name: _compare(metric.operator, own, ws, original, count, seed, number)
                for metric, count in kept.items() if count > 0}  # fmt: skip

    def measure() -> None:
        most = MANY if is_small(G) else 1  # of a batch of large images one is all that memory was said to hold
        with closing(side_by_side(compare, parts, len(parts), device, most)) as compared:
            for part, found in zip(progress.each("equivariance", parts), compared, strict=True):
                for name, two in found.items():
                    sums[name][part.start // BATCH * len(sums[name]) // batches[name]] += two

    world.together(measure)
    values, found = {}, {}
    for name, of_groups in sums.items():
        world.add_up(of_groups)
        whole = of_groups.sum(dim=0)
        values[name] = psnr(*whole.tolist())
        if intervals:
            left_out = [psnr(*(whole - part).tolist()) for part in of_groups] if len(of_groups) > 1 else []
            found[name] = jackknife(values[name], left_out)
    return Findings(values, intervals=found)


def _compare(
    operator: str, G: StyleGenerator, ws: torch.Tensor, original: torch.Tensor, kept: int, seed: int, number: int
) -> torch.Tensor:
    """Transform image and input alike: float64 [sum of squared differences, pixels compared] of the first `kept`."""
    rng = host_rng(seed, f"metrics/eq/{operator}", number)
    transform = torch.eye(3)
    if operator == "rotate":
        angle = float(rng.uniform(-pi, pi))
        c, s = cos(angle), sin(angle)
        transform[:2, :2] = torch.tensor([[c, -s], [s, c]])  # the network turns its plane, which turns the image back
        reference, mask = rotate_fractional(original, angle)
        image, seen = pseudo_rotate_fractional(_draw(G, ws, transform), angle)
        mask = mask * seen
    else:
        tx, ty = (float(t) for t in rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2))
        height, width = size_of(G)
        if operator == "int":
            tx, ty = round(tx * width) / width, round(ty * height) / height
        # The network's unit is the square of its img_resolution.
        transform[:2, 2] = torch.tensor([-tx * width / G.img_resolution, -ty * height / G.img_resolution])
        reference, mask = (translate_integer if operator == "int" else translate_fractional)(original, tx, ty)
        image = _draw(G, ws, transform)
    squares = (reference - image).double().square() * mask
    return torch.stack([squares[:kept].sum(), mask[:kept].sum(dtype=torch.float64)])


def _draw(G: StyleGenerator, ws: torch.Tensor, transform: torch.Tensor) -> torch.Tensor:
    G.get_buffer("synthesis.input.transform").copy_(transform)
    images: torch.Tensor = G.synthesis(ws, noise_mode="const", force_fp32=True)
    return images


def psnr(squares: float, pixels: float) -> float:
    """In dB, of a sum of squared differences over so many values, which span -1..1. NaN where there is nothing to
    compare, infinite where nothing differs."""
    if pixels == 0:
        return nan
    if squares == 0:
        return float("inf")
    return 20 * log10(2) - 10 * log10(squares / pixels)
