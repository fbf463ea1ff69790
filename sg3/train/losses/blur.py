"""A blur in front of the discriminator that fades as training goes on (Karras et al. 2021, Appendix F)."""

from __future__ import annotations

from math import floor

import torch

from sg3.kernels import filter2d


def fading_sigma(nimg: int, init_sigma: float, fade_kimg: float) -> float:
    """Its width in pixels after `nimg` images: from `init_sigma` linearly to 0 at `fade_kimg` thousand."""
    if init_sigma == 0 or fade_kimg == 0:
        return 0.0
    return max(1 - nimg / (fade_kimg * 1000), 0) * init_sigma


def blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Images [N, C, H, W], filtered along both axes, with zeros beyond the border."""
    taps = gaussian_taps(sigma, images.device)
    return images if taps is None else filter2d(images, taps)


def gaussian_taps(sigma: float, device: torch.device) -> torch.Tensor | None:
    """Separable blur filter, 2^-(k / sigma)^2 over |k| <= 3 sigma, normalised; None if that is a single tap."""
    size = floor(sigma * 3)
    if size < 1:
        return None
    offsets = torch.arange(-size, size + 1, device=device, dtype=torch.float32)
    taps = (offsets / sigma).square().neg().exp2()
    return taps / taps.sum()
