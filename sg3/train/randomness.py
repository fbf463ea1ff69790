"""Training's randomness is that of the whole package: `sg3.randomness`."""

from __future__ import annotations

from sg3.randomness import derive_seed, host_rng, latents, random_indices, seed_torch

__all__ = ["derive_seed", "host_rng", "latents", "random_indices", "seed_torch"]
