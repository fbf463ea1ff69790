"""A small picture first, where a whole one takes long: what an early layer already knows of the colours.

The features of an early layer are mapped to colours by a linear map, fitted by least squares to the whole pictures that
this network has made. It costs the layers up to there, which the whole picture then does not run again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sg3.models import stylegan2, stylegan3
from sg3.sampling import to_uint8
from sg3.tools.files import Pixels
from sg3.viewer.stepwise import Carry

LARGEST = 64  # samples across the small picture
PLACES = 4_096  # of a picture that are learnt from
LESSONS = 12  # pictures that are learnt from
RIDGE = 1e-3  # of the features' mean power: keeps what a few pictures cannot tell small


class Preview:
    """For one network; for the networks' thread alone."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.step, self._margin = _early(network)
        self._lessons = 0
        self._power: torch.Tensor | None = None  # [C + 1, C + 1], of the features and 1
        self._shared: torch.Tensor | None = None  # [C + 1, colours], of these with the colours
        self._map: torch.Tensor | None = None  # [C + 1, colours]

    def is_ready(self) -> bool:
        """Whether there is such a layer, and something has been learnt."""
        return self._map is not None

    def is_learning(self) -> bool:
        """Whether more pictures would help."""
        return self._lessons < LESSONS

    def learn(self, image: torch.Tensor, carry: Carry) -> None:
        """From a whole picture [1, C, H, W] and what its early layer gave."""
        inner = self._inner(carry)
        rows = _rows(inner)  # [H * W, C + 1]
        colours = F.interpolate(image, size=inner.shape[1:], mode="area")[0].flatten(1).t().double()
        chosen = torch.linspace(0, len(rows) - 1, min(PLACES, len(rows)), device=rows.device).long()
        rows, colours = rows[chosen], colours[chosen]
        self._power = rows.t() @ rows + (0 if self._power is None else self._power)
        self._shared = rows.t() @ colours + (0 if self._shared is None else self._shared)
        ridge = RIDGE * self._power.diagonal().mean() * torch.eye(len(self._power), device=rows.device)
        self._map = torch.linalg.solve(self._power + ridge, self._shared)
        self._lessons += 1

    def picture(self, carry: Carry) -> Pixels:
        """uint8 [H, W, C] of what the early layer gives."""
        assert self._map is not None
        inner = self._inner(carry)
        return to_uint8((_rows(inner) @ self._map).t().reshape(1, -1, *inner.shape[1:]))[0]

    def _inner(self, carry: Carry) -> torch.Tensor:
        """The features of each place within the picture, [C, H, W]."""
        # StyleGAN2's blocks have a picture so far beside their features.
        x = torch.cat([part for part in carry if part is not None], dim=1) if isinstance(carry, tuple) else carry
        m = self._margin
        return x[0, :, m : x.shape[2] - m, m : x.shape[3] - m]


def _rows(inner: torch.Tensor) -> torch.Tensor:
    """The features of each place, and 1: [H * W, C + 1], float64."""
    rows = inner.flatten(1).t().double()
    return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)


def _early(network: torch.nn.Module) -> tuple[int | None, int]:
    """Which step to stop after, and the margin of its map; None where no early one is of use."""
    if isinstance(network, stylegan3.SynthesisNetwork):
        layers = [network.get_submodule(name) for name in network.layer_names]
        specs = [layer.spec for layer in layers if isinstance(layer, stylegan3.SynthesisLayer)]
        most = min(LARGEST, network.img_resolution // 4)
        fitting = [n for n, spec in enumerate(specs) if spec.out_sampling_rate <= most]
        if not fitting:
            return None, 0
        spec = specs[fitting[-1]]
        return fitting[-1] + 1, (spec.out_size - spec.out_sampling_rate) // 2
    if isinstance(network, stylegan2.SynthesisNetwork):
        sizes = network.block_resolutions
        fitting = [n for n, size in enumerate(sizes) if size <= min(LARGEST, network.img_resolution // 4)]
        return (fitting[-1], 0) if fitting else (None, 0)
    return None, 0
