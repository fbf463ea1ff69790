"""Averages of G's weights whose length is chosen after training (Karras et al. 2024, "Analyzing and Improving the
Training Dynamics of Diffusion Models", arXiv 2312.02696, Section 3).

A power function average weighs the weights of time s by s^gamma, up to now, t (Eq. 1 there):

    average(t) = (gamma + 1) / t^(gamma + 1)  integral from 0 to t of  s^gamma weights(s) ds

Its length is a share of the training so far: `width`, the standard deviation of that profile divided by t. It moves by

    average <- beta average + (1 - beta) weights,    beta = (1 - 1 / t)^(gamma + 1)                              (Eq. 2)

with t in steps; here it is images, of which only the ratio counts. From then on the profile is exact: the weights after
step s, which hold until the next one, get the integral of s^gamma over it.

A run keeps two of them, of widths 0.05 and 0.1, and a file of both with every snapshot. A combination of all these
files comes close to the average of any other width, at any of these times: `combination`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sg3.atomic import write_atomic
from sg3.errors import DataError
from sg3.run_folder import averages_path

WIDTHS = (0.05, 0.1)
WIDEST = 0.28  # a mean over everything has 1 / sqrt(12) = 0.289
FORMAT = 1

Tensors = dict[str, torch.Tensor]


# ---- profiles -------------------------------------------------------------------------------------------------------


def width_of(gamma: float) -> float:
    """The relative standard deviation of the profile s^gamma: sqrt(gamma + 1) / (gamma + 2) / sqrt(gamma + 3)."""
    return float((gamma + 1) ** 0.5 / (gamma + 2) / (gamma + 3) ** 0.5)


def gamma_of(width: float) -> float:
    """The inverse: the root of (gamma + 2)^2 (gamma + 3) = (gamma + 1) / width^2, which is the only one from 0 on."""
    a = width**-2
    roots = np.roots([1, 7, 16 - a, 12 - a])
    return float(max(root.real for root in roots if abs(root.imag) < 1e-9 * abs(root)))


def beta(gamma: float, before: float, after: float) -> float:
    """How much of the average stays in a step from time `before` to time `after`."""
    return float((before / after) ** (gamma + 1))


@dataclass(frozen=True)
class Profile:
    """What an average at time `t` is made of: (gamma + 1) s^gamma / t^(gamma + 1) for s up to t."""

    gamma: float
    t: float

    def product(self, other: Profile) -> float:
        """The integral over the product of two profiles, times `self.t` (so that it does not depend on units)."""
        a, b = self.gamma + 1, other.gamma + 1
        until = min(self.t, other.t)
        return float(
            a * b / (a + b - 1) * (until / self.t) ** (a - 1) * (until / other.t) ** b
        )  # (as ratios: t^gamma alone overflows)


def combination(kept: Sequence[Profile], wanted: Profile) -> tuple[NDArray[np.float64], float]:
    """Factors [len(kept)] that add up to 1 of the profiles whose sum is closest to `wanted`, by least squares
    (Section 3.2), and the distance that is left, relative to the norm of `wanted`.

    Raises ValueError for a time that lies after all that is kept.
    """
    if all(profile.t < wanted.t for profile in kept):
        raise ValueError(f"t: got {wanted.t:g}, nothing is kept from there on")
    norms = np.array([(profile.product(profile) / profile.t) ** 0.5 for profile in kept])
    n = len(kept)
    system = np.zeros([n + 1, n + 1])  # with a multiplier for the sum, for profiles of norm 1
    for i, one in enumerate(kept):
        for j, other in enumerate(kept):
            system[i, j] = one.product(other) / one.t / norms[i] / norms[j]
    system[n, :n] = system[:n, n] = 1 / norms / np.abs(1 / norms).max()
    norm = (wanted.product(wanted) / wanted.t) ** 0.5
    right = np.array([one.product(wanted) / one.t / norms[i] for i, one in enumerate(kept)])
    scaled = np.append(right / norm, 1 / norm / np.abs(1 / norms).max())
    # Neighbours are nearly the same, so that the system is nearly singular: small singular values are left out.
    solution = np.linalg.lstsq(system, scaled, rcond=1e-14)[0][:n]
    left = 1 - 2 * solution @ (right / norm) + solution @ system[:n, :n] @ solution
    factors = solution * norm / norms
    return factors / factors.sum(), float(max(left, 0.0) ** 0.5)


# ---- in a run -------------------------------------------------------------------------------------------------------


class PowerAverages:
    """The averages of a network's parameters, in float32 beside them. Buffers are not averaged: those of now count."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._gammas = [gamma_of(width) for width in WIDTHS]
        self._averages = [[parameter.detach().clone() for parameter in network.parameters()] for _ in WIDTHS]

    @torch.no_grad()
    def update(self, before: int, after: int) -> None:
        """A step is over: there were `before` images until it, there are `after` now."""
        current = [parameter.detach() for parameter in self._network.parameters()]
        for gamma, average in zip(self._gammas, self._averages, strict=True):
            torch._foreach_lerp_(average, current, 1 - beta(gamma, before, after))

    def _names(self) -> list[str]:
        return [name for name, _ in self._network.named_parameters()]

    def state_dict(self) -> list[Tensors]:
        """The averages by the names of parameters, a dictionary for each width."""
        return [dict(zip(self._names(), average, strict=True)) for average in self._averages]

    def load_state_dict(self, state: Sequence[Mapping[str, torch.Tensor]]) -> None:
        """Go on from `state_dict`'s result."""
        for average, kept in zip(self._averages, state, strict=True):
            for name, tensor in zip(self._names(), average, strict=True):
                tensor.copy_(kept[name])

    def write(self, run_dir: Path, nimg: int) -> None:
        """The averages of now, after `nimg` images, as a file of the run. Raises StorageError."""
        content = {
            "format": FORMAT, "nimg": nimg, "widths": list(WIDTHS),
            "averages": [{name: tensor.cpu() for name, tensor in each.items()} for each in self.state_dict()],
            "buffers": {name: tensor.cpu() for name, tensor in self._network.named_buffers()},
        }  # fmt: skip
        write_atomic(averages_path(run_dir, nimg), lambda file: torch.save(content, file))


# ---- afterwards -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """A file of a run: averages of some widths after `nimg` images."""

    path: Path
    nimg: int
    widths: Sequence[float]
    averages: Sequence[Tensors]
    buffers: Tensors


def read_averages(path: Path) -> Kept:
    """A file that `PowerAverages.write` has made; its tensors are read when they are used. Raises DataError."""
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise DataError(f"{path}: holds no averages, or is damaged ({type(error).__name__})") from error
    match content:
        case {"format": int(found)} if found != FORMAT:
            raise DataError(f"{path}: format {found}, this version of sg3 reads {FORMAT}")
        case {"nimg": int(nimg), "widths": list(widths), "averages": list(averages), "buffers": dict(buffers)}:
            known = all(isinstance(width, float) and 0 < width <= WIDEST for width in widths)
            if nimg > 0 and known and len(widths) == len(averages) and all(map(_are_tensors, [*averages, buffers])):
                return Kept(path, nimg, widths, averages, buffers)
    raise DataError(f"{path}: holds no averages of a network's weights")


def _are_tensors(value: object) -> bool:
    """Whether this is a dictionary of tensors by name."""
    if not isinstance(value, dict):
        return False
    return all(isinstance(name, str) and isinstance(entry, torch.Tensor) for name, entry in value.items())


def combine(kept: Sequence[Kept], width: float, nimg: int) -> tuple[Tensors, float]:
    """The average of G's parameters of that width after `nimg` images, as far as files of a run allow, and how far
    its profile is from the true one, relative to that. Raises DataError for files of different networks."""
    shapes = {name: tensor.shape for name, tensor in kept[0].averages[0].items()}
    for each in kept:
        for average in each.averages:
            if {name: tensor.shape for name, tensor in average.items()} != shapes:
                raise DataError(f"{each.path}: is of another network than {kept[0].path}")
    pairs = [(each, index) for each in kept for index in range(len(each.widths))]
    profiles = [Profile(gamma_of(each.widths[index]), each.nimg) for each, index in pairs]
    factors, distance = combination(profiles, Profile(gamma_of(width), nimg))
    sums: dict[str, torch.Tensor] = {}
    for (each, index), factor in zip(pairs, factors, strict=True):
        for name, tensor in each.averages[index].items():
            addend = tensor.double() * float(factor)  # factors of both signs, much larger than 1
            sums[name] = sums[name] + addend if name in sums else addend
    return {name: tensor.float() for name, tensor in sums.items()}, distance
