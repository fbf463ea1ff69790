"""Adversarial losses: logits of any shape -> what to take the mean of.

    logistic       G: softplus(-D(g))        D: softplus(D(g)) + softplus(-D(x))       Goodfellow et al. 2014
    hinge          G: -D(g)                  D: relu(1 + D(g)) + relu(1 - D(x))        Lim and Ye 2017
    relativistic   G: softplus(D(x) - D(g))  D: softplus(D(g) - D(x))                  Jolicoeur-Martineau 2019

The first two look at real and generated images by themselves, the last one at pairs of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

Loss = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class AdversarialLoss:
    """What G is to make small of D(generated), and D of D(generated) and of D(real)."""

    g: Loss
    d_fake: Loss
    d_real: Loss


LOGISTIC = AdversarialLoss(g=lambda logits: F.softplus(-logits), d_fake=F.softplus, d_real=lambda x: F.softplus(-x))
HINGE = AdversarialLoss(
    g=torch.neg, d_fake=lambda logits: F.relu(1 + logits), d_real=lambda logits: F.relu(1 - logits)
)


def relativistic(winner: torch.Tensor, loser: torch.Tensor) -> torch.Tensor:
    """Small where the first logit of each pair is larger: for D (real, fake), for G (fake, real)."""
    return F.softplus(loser - winner)
