"""Directions in w that change a picture in one respect, found without training.

SeFa (Shen and Zhou 2021): a layer's style is A w + b, so the step n of unit length that changes styles most maximises
|A n|. Stacking the A of all layers, these n are the right singular vectors. GANSpace (Härkönen et al. 2020): the
principal components of many samples of w.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sg3.errors import UsageError
from sg3.models import StyleGenerator, stylegan2, stylegan3
from sg3.tools.latents import layer_names


@dataclass(frozen=True)
class Directions:
    """`directions` [K, w_dim]: rows of unit length, the strongest first. `values` [K]: how strong, a singular value of
    the weights (SeFa) or a standard deviation of w (PCA). `scale` [K]: length of a step of one degree."""

    directions: torch.Tensor
    values: torch.Tensor
    scale: torch.Tensor


def sefa(G: StyleGenerator, num: int, layers: Sequence[int]) -> Directions:
    """The `num` strongest right singular vectors of the style weights of `layers`, in float64 on the CPU.

    The input transform of StyleGAN3 and the ToRGB layers have no say: what they do is move and colour. A step of one
    degree has length 1. Raises UsageError if no layer remains, or too few directions.
    """
    names = [layer_names(G)[i] for i in layers]
    weights = []
    for name in names:
        layer = G.synthesis.get_submodule(name)
        if isinstance(layer, stylegan2.SynthesisLayer) or (
            isinstance(layer, stylegan3.SynthesisLayer) and not layer.spec.is_torgb
        ):
            weights.append(layer.affine.weight * layer.affine.weight_gain)  # [channels, w_dim]
    if not weights:
        raise UsageError(f"--layers: {', '.join(names)} have no styles to factorise; add convolutions")
    stacked = torch.cat(weights).detach().cpu().double()  # [sum of channels, w_dim]
    _check_num(num, min(stacked.shape))
    _, values, vectors = torch.linalg.svd(stacked, full_matrices=False)
    return Directions(_signed(vectors[:num]), values[:num], torch.ones(num, dtype=torch.float64))


def principal_components(w: torch.Tensor, num: int) -> Directions:
    """The `num` principal components of samples w [N, w_dim], in float64 on the CPU. A step of one degree is one
    standard deviation. Raises UsageError for more directions than there can be."""
    samples = w.detach().cpu().double()
    _check_num(num, min(samples.shape))
    centred = samples - samples.mean(dim=0)
    covariance = centred.T @ centred / len(samples)
    values, vectors = torch.linalg.eigh(covariance)  # ascending
    deviations = values.flip(0)[:num].clamp(min=0).sqrt()
    return Directions(_signed(vectors.T.flip(0)[:num]), deviations, deviations)


def strip(
    ws: torch.Tensor, direction: torch.Tensor, length: float, steps: int, layers: Sequence[int]
) -> torch.Tensor:
    """ws [num_ws, w_dim] moved along direction [w_dim] by -length ... +length -> [steps, num_ws, w_dim].

    Only the copies of w in `layers` move.
    """
    amounts = torch.linspace(-length, length, steps, dtype=torch.float64)
    moves = torch.zeros(steps, *ws.shape, dtype=torch.float64)
    moves[:, layers] = amounts[:, None, None] * direction.double().cpu()
    return ws + moves.to(ws)


def step_labels(degree: float, steps: int) -> list[float]:
    """The amounts, in degrees, that the pictures of a strip show."""
    return [round(float(amount), 6) for amount in np.linspace(-degree, degree, steps)]


def _check_num(num: int, most: int) -> None:
    if not 1 <= num <= most:
        raise UsageError(f"--num={num}: expected 1 to {most} directions for this network and these layers")


def _signed(rows: torch.Tensor) -> torch.Tensor:
    """Singular vectors have no sign of their own: make each row's largest entry positive, on any machine."""
    largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
    return rows * largest.sign()
