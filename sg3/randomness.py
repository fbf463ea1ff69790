"""Randomness as a function: of the seed, a purpose, and a global index, and of nothing that happened before.

So there is no generator state to save, a continued run draws what the uninterrupted one would have drawn, and
evaluation in between changes nothing.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def derive_seed(seed: int, purpose: str, index: int = 0) -> int:
    """A 63-bit seed for (seed, purpose, index); related inputs give unrelated seeds."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def host_rng(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """A counter-based generator on the host for (seed, purpose, index)."""
    return np.random.Generator(np.random.Philox(derive_seed(seed, purpose, index)))


def latents(seed: int, purpose: str, start: int, count: int, dim: int) -> torch.Tensor:
    """Standard normal [count, dim] float32; row k belongs to global sample start + k, however samples are batched."""
    rows = [host_rng(seed, purpose, start + k).standard_normal(dim, dtype=np.float32) for k in range(count)]
    return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, dim)


def random_indices(seed: int, purpose: str, start: int, count: int, size: int) -> list[int]:
    """A uniform index below `size` for each of the global samples start .. start + count - 1."""
    return [int(host_rng(seed, purpose, start + k).integers(size)) for k in range(count)]


def seed_torch(seed: int, purpose: str, index: int = 0) -> None:
    """Seed torch's default generators on all devices: layer noise, style mixing and path length noise use them."""
    torch.manual_seed(derive_seed(seed, purpose, index))
