"""|grad_x D(x)|^2 for each image: R1 on real images, R2 on generated ones (Mescheder et al. 2018, Eq. 9 and after).

`exact` differentiates D twice. `approximate` takes a finite difference in a random direction instead (Lin et al. 2025,
arXiv 2501.08316, Section 3.3): for e ~ N(0, I),

    (D(x + sigma e) - D(x))^2 / sigma^2  ->  (e . grad D(x))^2  for a small sigma,  whose mean over e is |grad D(x)|^2

so a step needs one more pass of D and no double backward, which D then need not support. It is right on average and
scatters: for a fixed image with a standard deviation of sqrt(2) times its mean. docs/other-systems.md has a table of
its error, and of what it saves, which is little where both exist.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

SIGMA = 0.01  # of the noise, for images in -1..1, as in the paper

Critic = Callable[[torch.Tensor], torch.Tensor]  # images [N, C, H, W] -> logits [N, ...]


def exact(images: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """[N]; `logits` were computed from `images`, which require gradients. Logits of one image are added up."""
    (grad,) = torch.autograd.grad([logits.sum()], [images], create_graph=True)
    return grad.square().sum(dim=[1, 2, 3])


def approximate(
    critic: Critic, images: torch.Tensor, logits: torch.Tensor, sigma: float = SIGMA, noise: torch.Tensor | None = None
) -> torch.Tensor:
    """[N]; `logits` are critic(images). `noise` is drawn from torch's default generator unless it is given."""
    noise = torch.randn_like(images) if noise is None else noise
    difference = critic(images + sigma * noise) - logits
    return (difference.reshape(len(images), -1).sum(dim=1) / sigma).square()
