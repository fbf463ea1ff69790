"""Projection: the latent whose picture is closest to a given image.

The method of Karras et al. 2020 (StyleGAN2), Appendix D, with the settings of the original's projector: Adam on w from
its mean on, under a perceptual distance at 256 pixels. Noise on w, which fades out over the first three quarters, lets
it explore. StyleGAN2's noise maps are optimised along with w and kept from carrying the picture by a regularisation.

StyleGAN3 has no noise; instead, angle and shift of its input are optimised. They start from the best of several
poses, each of which is tried for a short while. A trained network also moves its picture by w, so what they end at is
what w leaves over.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from math import cos, degrees, isfinite, pi, sqrt
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch.func import functional_call

from sg3.canvas import units_of
from sg3.errors import DataError, NumericalError
from sg3.models import StyleGenerator, stylegan3
from sg3.sampling import class_labels, to_uint8
from sg3.tools.files import Pixels
from sg3.tools.latents import sample_w
from sg3.tools.perceptual import Perceptual
from sg3.tools.pose import pose_grid, starting_poses, transform_matrix
from sg3.transparency import BLACK, WHITE, has_alpha, network_values, opaque, over

Report = Callable[[int, int, float], None]  # steps done, steps in all, distance


@dataclass(frozen=True)
class Settings:
    """How to search. Ramps are fractions of the steps."""

    steps: int = 1000
    space: Literal["w", "w+"] = "w"  # one w for all layers, or one for each
    lr: float = 0.1
    lr_ramp_up: float = 0.05
    lr_ramp_down: float = 0.25
    w_noise: float = 0.05  # in standard deviations of w
    w_noise_ramp: float = 0.75
    noise_weight: float = 1e5
    w_samples: int = 10_000
    seed: int = 303
    pose_lr: float = 0.005  # radians, and fractions of the image
    pose_starts: int = 3  # poses tried apart from no movement; 0 leaves the pose alone
    pose_trial: float = 0.05  # length of a trial, as a fraction of the steps


@dataclass(frozen=True)
class Projection:
    """What was found, on the CPU."""

    w: torch.Tensor  # [1, num_ws, w_dim]
    noise: dict[str, torch.Tensor]  # StyleGAN2: name of the buffer in `G.synthesis` -> [R, R]
    pose: torch.Tensor | None  # StyleGAN3: [3], angle in radians, shift x, y in fractions of the image
    distances: list[float]  # perceptual distance at each step
    path_w: torch.Tensor  # [steps, 1 or num_ws, w_dim], before each step
    path_pose: torch.Tensor | None  # [steps, 3]
    units: tuple[float, float] = (1.0, 1.0)  # width and height of the image in the network's

    @property
    def transform(self) -> torch.Tensor | None:
        """[3, 3] for `G.synthesis.input.transform`."""
        return None if self.pose is None else transform_matrix(self.pose, self.units)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What projected_w.npz holds: `w`, for StyleGAN3 `transform`, for StyleGAN2 the maps as `noise/NAME`."""
        arrays: dict[str, NDArray[np.generic]] = {"w": self.w.numpy()}
        if self.transform is not None:
            arrays["transform"] = self.transform.numpy()
        return arrays | {f"noise/{name}": noise.numpy() for name, noise in self.noise.items()}

    def moved(self) -> str:
        """The pose in words."""
        if self.pose is None:
            return ""
        angle, x, y = self.pose.tolist()
        return f"rotated by {degrees(angle):.2f} degrees, moved by {x:.4f}, {y:.4f}"


def project(
    G: StyleGenerator,
    target: Pixels,
    perceptual: Perceptual,
    settings: Settings | None = None,
    *,
    class_idx: int | None = None,
    report: Report | None = None,
    report_pose: Report | None = None,
) -> Projection:
    """Find the w whose picture is closest to `target`, uint8 [H, W, C] in G's size and channels, on G's device.

    The same seed gives the same result. `report` is told of each step, and `report_pose` of those before that look for
    a pose, which are counted for themselves; without it `report` is told of these, too. Raises UsageError for a class
    that the network does not have, or that it needs; DataError for a target of another shape; NumericalError if the
    distance stops being a number. Pictures with alpha are compared over black and over white, and both distances count
    alike.
    """
    search = project_steps(
        G, target, perceptual, settings, class_idx=class_idx, report=report, report_pose=report_pose
    )
    while True:
        try:
            next(search)
        except StopIteration as end:
            found: Projection = end.value
            return found


def project_steps(
    G: StyleGenerator,
    target: Pixels,
    perceptual: Perceptual,
    settings: Settings | None = None,
    *,
    class_idx: int | None = None,
    report: Report | None = None,
    report_pose: Report | None = None,
) -> Generator[None, None, Projection]:
    """The same picture by picture, for who has something else to do in between. Needs gradients to be enabled."""
    settings = settings or Settings()
    if not 1 <= G.img_channels <= 4:
        raise DataError(f"network: its images have {G.img_channels} channels; only gray, RGB and these with alpha can "
                        "be projected to")
    if target.shape != (*G.img_size, G.img_channels):
        raise DataError(f"target: {target.shape}, expected {(*G.img_size, G.img_channels)}")
    device = next(G.parameters()).device
    w = sample_w(G, class_labels(G, class_idx, 1), settings.w_samples)
    mean = w.mean(dim=0)
    search = _Search(
        G=G,
        perceptual=perceptual,
        wanted=embedded(perceptual, torch.from_numpy(target.copy()).to(device).permute(2, 0, 1)[None]).detach(),
        w_mean=mean[None, None].expand(1, 1 if settings.space == "w" else G.num_ws, -1),
        w_std=float((w - mean).square().sum(dim=1).mean().sqrt()),
    )
    report = report or (lambda done, total, distance: None)
    if not isinstance(G, stylegan3.Generator) or settings.pose_starts == 0:
        return (yield from search.run(None, settings, report))

    trial = replace(settings, steps=max(1, round(settings.steps * settings.pose_trial)))
    distances = []
    for pose in pose_grid()[1:]:
        distances.append(search.distance_of_mean(pose))
        yield
    poses = starting_poses(distances, settings.pose_starts)
    total = len(poses) * trial.steps
    tell = report_pose or report

    def counting(before: int) -> Report:
        return lambda done, _, distance: tell(before + done, total, distance)

    trials = []
    for k, pose in enumerate(poses):
        trials.append((yield from search.run(pose, trial, counting(k * trial.steps))))
    best = min(trials, key=lambda found: found.distances[-1])
    return (yield from search.run(best.pose, settings, report))


@dataclass(frozen=True)
class _Search:
    """Everything about a target that stays the same while it is searched for."""

    G: StyleGenerator
    perceptual: Perceptual
    wanted: torch.Tensor  # [1, D]
    w_mean: torch.Tensor  # [1, 1 or num_ws, w_dim]
    w_std: float

    def run(
        self, pose_start: torch.Tensor | None, settings: Settings, report: Report
    ) -> Generator[None, None, Projection]:
        """Optimise from the mean w; `pose_start` None leaves the pose alone."""
        G, device = self.G, self.w_mean.device
        rng = torch.Generator().manual_seed(settings.seed)  # on the CPU: the same numbers for every device

        w = self.w_mean.clone().requires_grad_()
        shapes = {name: b.shape for name, b in G.synthesis.named_buffers() if name.endswith("noise_const")}
        noise = {name: torch.randn(s, generator=rng).to(device).requires_grad_() for name, s in shapes.items()}
        pose = None if pose_start is None else pose_start.to(device).clone().requires_grad_()
        groups = [{"params": [w, *noise.values()], "peak": settings.lr}]
        if pose is not None:
            groups.append({"params": [pose], "peak": settings.pose_lr})
        optimizer = torch.optim.Adam(groups, betas=(0.9, 0.999))

        distances, path_w, path_pose = [], [], []
        for step in range(settings.steps):
            t = step / settings.steps
            path_w.append(w.detach()[0].cpu().clone())
            path_pose.append(torch.zeros(3) if pose is None else pose.detach().cpu().clone())

            spread = self.w_std * settings.w_noise * max(0.0, 1 - t / settings.w_noise_ramp) ** 2
            jitter = torch.randn(w.shape, generator=rng).to(device) * spread
            distance = self.distance(w + jitter, noise, pose)
            loss = distance + settings.noise_weight * noise_structure(list(noise.values()))

            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * learning_rate(t, settings.lr_ramp_up, settings.lr_ramp_down)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for n in noise.values():
                    n.sub_(n.mean()).mul_(n.square().mean().rsqrt())

            distances.append(float(distance.detach()))
            if not isfinite(distances[-1]):
                raise NumericalError(f"projection: the distance became {distances[-1]} at step {step}; lower --lr")
            report(step + 1, settings.steps, distances[-1])
            yield

        return Projection(
            w=w.detach().expand(-1, G.num_ws, -1).cpu().clone(),
            noise={name: n.detach().cpu() for name, n in noise.items()},
            pose=None if pose is None else pose.detach().cpu(),
            distances=distances,
            path_w=torch.stack(path_w),
            path_pose=None if pose is None else torch.stack(path_pose),
            units=units_of(G),
        )

    def distance(self, w: torch.Tensor, noise: dict[str, torch.Tensor], pose: torch.Tensor | None) -> torch.Tensor:
        """Perceptual distance of the picture of w [1, 1 or num_ws, w_dim] to the target."""
        image = synthesize(self.G, w, noise, pose)
        return (embedded(self.perceptual, image) - self.wanted).square().sum()

    @torch.no_grad()
    def distance_of_mean(self, pose: torch.Tensor) -> float:
        """The distance of the mean picture, moved."""
        return float(self.distance(self.w_mean, {}, pose.to(self.w_mean.device)))


def synthesize(
    G: StyleGenerator, w: torch.Tensor, noise: dict[str, torch.Tensor], pose: torch.Tensor | None
) -> torch.Tensor:
    """Picture [N, C, R, R], -1..1, of w [N, 1 or num_ws, w_dim] with these noise maps and this pose; G is unchanged.

    In float32, because gradients through the float16 layers would be too coarse for the last steps.
    """
    replaced = dict(noise) if pose is None else {**noise, "input.transform": transform_matrix(pose, units_of(G))}
    ws = w.expand(-1, G.num_ws, -1)
    image: torch.Tensor = functional_call(G.synthesis, replaced, ws, {"noise_mode": "const", "force_fp32": True})
    return image


def noise_structure(maps: list[torch.Tensor]) -> torch.Tensor | float:
    """How far noise maps [R, R] are from white: squared correlation with their neighbours, at every scale down to 8
    (Karras et al. 2020, Appendix D, Equation for L_ij)."""
    total: torch.Tensor | float = 0.0
    for noise in maps:
        x = noise[None, None]
        while True:
            total = total + (x * x.roll(1, 3)).mean().square() + (x * x.roll(1, 2)).mean().square()
            if x.shape[2] <= 8:
                break
            x = F.avg_pool2d(x, 2) * 2  # the mean of 4 has half their deviation
    return total


def learning_rate(t: float, ramp_up: float, ramp_down: float) -> float:
    """Factor at t = 0..1: a linear rise, 1, and half a cosine down to 0."""
    down = 0.5 - 0.5 * cos(pi * min(1.0, (1 - t) / ramp_down))
    return down * min(1.0, t / ramp_up)


@torch.no_grad()
def picture(G: StyleGenerator, found: Projection) -> Pixels:
    """The picture that was found, uint8 [R, R, C]."""
    return _pixels(G, found, found.w, found.pose)


@torch.no_grad()
def frames(G: StyleGenerator, found: Projection, target: Pixels) -> Iterator[Pixels]:
    """For each step, the target and beside it the picture of w, uint8 [R, 2 R, 3]; with the final noise maps. Those
    with alpha lie over a checkerboard."""
    for step, w in enumerate(found.path_w):
        pose = None if found.path_pose is None else found.path_pose[step]
        pair = opaque(np.concatenate([target, _pixels(G, found, w[None], pose)], axis=1))
        yield np.ascontiguousarray(np.broadcast_to(pair, (*pair.shape[:2], 3)))


def _pixels(G: StyleGenerator, found: Projection, w: torch.Tensor, pose: torch.Tensor | None) -> Pixels:
    device = next(G.parameters()).device
    noise = {name: n.to(device) for name, n in found.noise.items()}
    pixels: Pixels = to_uint8(synthesize(G, w.to(device), noise, None if pose is None else pose.to(device)))[0]
    return pixels


def embedded(perceptual: Perceptual, images: torch.Tensor) -> torch.Tensor:
    """[1, D] of a picture: pixels in uint8 or a network's, -1..1. With alpha over black and over white, so that the
    squared difference is the mean of both distances."""
    if not has_alpha(images.shape[1]):
        return perceptual(_as_rgb(images.float() if images.dtype == torch.uint8 else images * 127.5 + 128))
    values = network_values(images) if images.dtype == torch.uint8 else images
    vectors = perceptual(_as_rgb(torch.cat([over(values, BLACK), over(values, WHITE)]) * 127.5 + 127.5))
    return torch.cat(vectors.chunk(2), dim=1) / sqrt(2)


def _as_rgb(images: torch.Tensor) -> torch.Tensor:
    """[N, 1 or 3, H, W] -> [N, 3, H, W]"""
    return images.expand(-1, 3, -1, -1)


def psnr(a: Pixels, b: Pixels) -> float:
    """Peak signal-to-noise ratio of 8-bit pictures, in decibels; with alpha, of premultiplied channels."""
    error = float(np.mean((_comparable(a) - _comparable(b)) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def _comparable(pixels: Pixels) -> NDArray[np.float64]:
    values = pixels.astype(np.float64)
    if has_alpha(pixels.shape[2]):
        values[:, :, :-1] *= values[:, :, -1:] / 255
    return values
