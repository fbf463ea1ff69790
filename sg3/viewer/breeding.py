"""Children of latents: layer by layer from one of the parents, and a little of chance."""

from __future__ import annotations

import numpy as np
import torch

from sg3.tools.latent_as_w import LatentAsW
from sg3.viewer.pictures import Painter
from sg3.viewer.state import State


@torch.no_grad()
def breed(painter: Painter, parents: list[State], count: int, strength: float, seed: int) -> list[torch.Tensor]:
    """`count` times ws [1, num_ws, w_dim]: every layer from a parent by chance, and by `strength` (0..1) on the way to
    the w of a random seed. The same seed gives the same children. Raises UsageError as pictures do."""
    rng = np.random.RandomState(seed)
    each = torch.cat([painter.ws(state) for state in parents])  # [parents, num_ws, w_dim]
    layers = torch.arange(each.shape[1])
    children = []
    for _ in range(count):
        chosen = torch.from_numpy(rng.randint(len(parents), size=len(layers)))
        child = each[chosen, layers][None]
        other = State(seed=int(rng.randint(2**31)), class_idx=parents[0].class_idx, trunc=parents[0].trunc)
        stranger = painter.ws(other).clone()  # the painter keeps its own
        if isinstance(painter.walkable, LatentAsW):  # the label, behind the latent, is not for mixing
            stranger[..., painter.G.z_dim :] = child[..., painter.G.z_dim :]
        children.append(child.lerp(stranger, strength))
    return children
