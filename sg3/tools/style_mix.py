"""Style mixing (Karras et al. 2019, Section 3.1): some layers get the w of one seed, the rest that of another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from sg3.models import StyleGenerator
from sg3.sampling import class_labels, seed_latents
from sg3.tools.files import Pixels
from sg3.tools.latents import render


def style_mix(
    G: StyleGenerator,
    rows: Sequence[int],
    cols: Sequence[int],
    layers: Sequence[int],
    *,
    class_idx: int | None = None,
    truncation_psi: float = 1.0,
    noise_mode: str = "const",
    batch: int = 4,
) -> Iterator[tuple[tuple[int, int], Pixels]]:
    """Yield ((row seed, column seed), picture [H, W, C]) of the row's w with its copies in `layers` from the column.

    First come the sources, as (seed, seed): a seed mixed with itself is itself. No pair comes twice. Raises UsageError
    for a class that the network does not have, or that it needs.
    """
    device = next(G.parameters()).device
    seeds = sorted({*rows, *cols})
    c = class_labels(G, class_idx, len(seeds))
    with torch.no_grad():
        z = seed_latents(seeds, G.z_dim)
        ws = G.mapping(z.to(device), c.to(device), truncation_psi=truncation_psi)  # [N, num_ws, w_dim]
    w_of = dict(zip(seeds, ws, strict=True))

    pairs = list(dict.fromkeys([(seed, seed) for seed in seeds] + [(row, col) for row in rows for col in cols]))
    for start in range(0, len(pairs), batch):
        part = pairs[start : start + batch]
        mixed = torch.stack([w_of[row] for row, _ in part])
        mixed[:, layers] = torch.stack([w_of[col] for _, col in part])[:, layers]
        yield from zip(part, render(G, mixed, noise_mode=noise_mode, batch=batch), strict=True)
