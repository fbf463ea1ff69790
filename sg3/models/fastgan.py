"""FastGAN's generator (Liu et al. 2021, "Towards Faster and Stabilized GAN Training for High-fidelity Few-shot Image
Synthesis", arXiv 2101.04775), in the variant that Projected GAN trains (Sauer et al. 2021, arXiv 2111.01007).

    z -> 4x4 -> 8x8 -> ... -> image       each block: nearest x2, 3x3 convolution, batch norm, gated linear unit
    64 ... 512 are gated by what 4 ... 32 hold ("skip-layer excitation", Fig. 3)

Blocks of the full generator have two convolutions, each with noise added; those of the lite one have one and no noise.
With labels, scale and shift of the batch norms depend on the class.

Constructor arguments and state_dict names are Projected GAN's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sg3.models.layers import BatchNorm2d, normalize_2nd_moment
from sg3.models.spectral import SpectralConv2d, SpectralConvTranspose2d, SpectralLinear
from sg3.randomness import host_rng

WIDTHS = {4: 16.0, 8: 8.0, 16: 4.0, 32: 2.0, 64: 2.0, 128: 1.0, 256: 0.5, 512: 0.25, 1024: 0.125}  # x ngf
GATES = {64: 4, 128: 8, 256: 16, 512: 32}  # features of the one resolution are gated by those of the other
BUILT = 256  # the original makes all blocks up to here, used or not
CLASSES = 1000
NOISE_MODES = ("random", "const", "none")


class InitLayer(nn.Module):
    """z [N, z_dim] -> [N, C, 4, 4]."""

    def __init__(self, z_dim: int, channels: int) -> None:
        super().__init__()
        self.init = nn.Sequential(
            SpectralConvTranspose2d(z_dim, 2 * channels, 4), BatchNorm2d(2 * channels), nn.GLU(dim=1)
        )

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.init(z[:, :, None, None])


class NoiseInjection(nn.Module):
    """x [N, C, H, W] plus a learned multiple of the map [N, 1, H, W] or [1, 1, H, W]; None adds nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        return x if noise is None else x + self.weight * noise


class ClassBatchNorm(nn.Module):
    """Batch norm whose scale and shift are linear in the class's embedding e [N, E] (de Vries et al. 2017)."""

    stored_mean: torch.Tensor
    stored_var: torch.Tensor

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.gain = SpectralLinear(embedding, channels)
        self.bias = SpectralLinear(embedding, channels)
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))

    def forward(self, x: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        y = F.batch_norm(x, self.stored_mean, self.stored_var, training=self.training)
        return y * (1 + self.gain(e))[:, :, None, None] + self.bias(e)[:, :, None, None]


def convolution(cin: int, cout: int) -> SpectralConv2d:
    return SpectralConv2d(cin, cout, 3, padding=1)


class Block(nn.ModuleList):
    """[N, I, H, W] -> [N, O, 2 H, 2 W], with two convolutions and noise, or lite. The numbers are in the names."""

    def __init__(self, cin: int, cout: int, lite: bool) -> None:
        up = nn.Upsample(scale_factor=2)
        if lite:
            super().__init__([up, convolution(cin, 2 * cout), BatchNorm2d(2 * cout), nn.GLU(dim=1)])
        else:
            super().__init__([
                up, convolution(cin, 2 * cout), NoiseInjection(), BatchNorm2d(2 * cout), nn.GLU(dim=1),
                convolution(cout, 2 * cout), NoiseInjection(), BatchNorm2d(2 * cout), nn.GLU(dim=1),
            ])  # fmt: skip

    def forward(self, x: torch.Tensor, e: torch.Tensor | None, noise: Iterator[torch.Tensor | None]) -> torch.Tensor:
        """`noise` gives a map to each place that takes one; e is nothing here."""
        for layer in self:
            x = layer(x, next(noise)) if isinstance(layer, NoiseInjection) else layer(x)
        return x


class ClassBlock(nn.Module):
    """The full block for labels. Both of its noises have one strength."""

    def __init__(self, cin: int, cout: int, embedding: int) -> None:
        super().__init__()
        self.conv1 = convolution(cin, 2 * cout)
        self.conv2 = convolution(cout, 2 * cout)
        self.bn1 = ClassBatchNorm(2 * cout, embedding)
        self.bn2 = ClassBatchNorm(2 * cout, embedding)
        self.noise = NoiseInjection()

    def forward(self, x: torch.Tensor, e: torch.Tensor, noise: Iterator[torch.Tensor | None]) -> torch.Tensor:
        x = self.conv1(F.interpolate(x, scale_factor=2))
        x = F.glu(self.bn1(self.noise(x, next(noise)), e), dim=1)
        x = self.conv2(x)
        return F.glu(self.bn2(self.noise(x, next(noise)), e), dim=1)


class LiteClassBlock(nn.Module):
    """The lite block for labels."""

    def __init__(self, cin: int, cout: int, embedding: int) -> None:
        super().__init__()
        self.conv = convolution(cin, 2 * cout)
        self.bn = ClassBatchNorm(2 * cout, embedding)

    def forward(self, x: torch.Tensor, e: torch.Tensor, noise: Iterator[torch.Tensor | None]) -> torch.Tensor:
        return F.glu(self.bn(self.conv(F.interpolate(x, scale_factor=2)), e), dim=1)


class SkipExcitation(nn.Module):
    """Scales the channels of `large` [N, O, H, W] by factors in 0..1 that follow from `small` [N, I, h, w]."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.AdaptiveAvgPool2d(4), SpectralConv2d(cin, cout, 4), nn.SiLU(), SpectralConv2d(cout, cout, 1),
            nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, small: torch.Tensor, large: torch.Tensor) -> torch.Tensor:
        return large * self.main(small)


class Mapping(nn.Module):
    """z itself, [N, 1, z_dim], in the place where StyleGAN has a mapping network. Nothing to truncate towards."""

    def forward(
        self,
        z: torch.Tensor,
        c: torch.Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_emas: bool = False,
    ) -> torch.Tensor:
        return z[:, None]


class FastganSynthesis(nn.Module):
    """z, as [N, 1, z_dim], and label -> image."""

    def __init__(
        self, z_dim: int, c_dim: int, img_resolution: int, img_channels: int, ngf: int, cond: bool, lite: bool
    ) -> None:
        super().__init__()
        if img_resolution not in WIDTHS or img_resolution < 32:
            raise ValueError(f"img_resolution: got {img_resolution}, expected 32, 64, 128, 256, 512 or 1024")
        if cond and not 0 < c_dim <= CLASSES:
            raise ValueError(f"c_dim: got {c_dim}, expected 1 to {CLASSES} classes, the size of the embedding")
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.img_resolution = img_resolution
        self.lite = lite
        width = {size: int(factor * ngf) for size, factor in WIDTHS.items()}
        self.sizes = [size for size in width if 4 < size <= img_resolution]  # of the blocks, in order
        # At 128 the blocks for 256 are in the state_dict, too, though nothing uses them; below, we make none.
        kept = BUILT if img_resolution >= 128 else img_resolution

        def add(size: int) -> None:
            cin, cout = width[size // 2], width[size]
            block: nn.Module
            if not cond:
                block = Block(cin, cout, lite)
            else:
                block = LiteClassBlock(cin, cout, z_dim) if lite else ClassBlock(cin, cout, z_dim)
            setattr(self, f"feat_{size}", block)

        def gate(size: int) -> None:
            setattr(self, f"se_{size}", SkipExcitation(width[GATES[size]], width[size]))

        # In the order in which the original's state_dict has them, and so its optimizer's state.
        self.init = InitLayer(z_dim, width[4])
        for size in (size for size in width if 4 < size <= kept):
            add(size)
        for size in (size for size in GATES if size <= kept):
            gate(size)
        self.to_big = SpectralConv2d(width[img_resolution], img_channels, 3, padding=1, bias=True)
        for size in (size for size in self.sizes if size > kept):
            add(size)
            if size in GATES:
                gate(size)
        self.embed = nn.Embedding(CLASSES, z_dim) if cond else None

    def forward(
        self,
        ws: torch.Tensor,
        c: torch.Tensor | None = None,
        noise_mode: str = "random",
        force_fp32: bool = False,
        update_emas: bool = False,
    ) -> torch.Tensor:
        """ws [N, 1, z_dim], one-hot c [N, c_dim] -> image [N, img_channels, R, R], float32, about -1..1.

        `noise_mode` is random (drawn anew), const (the same maps for all images, always) or none. `force_fp32` and
        `update_emas` have nothing to act on.
        """
        if ws.ndim != 3 or ws.shape[1:] != (1, self.z_dim):
            raise ValueError(f"ws: got shape {list(ws.shape)}, expected [N, 1, {self.z_dim}]")
        z = normalize_2nd_moment(ws[:, 0].to(self.to_big.weight_orig.dtype))
        e = None
        if self.embed is not None:
            if c is None or c.shape != (len(z), self.c_dim):
                got = "None" if c is None else f"shape {list(c.shape)}"
                raise ValueError(f"c: got {got}, expected [{len(z)}, {self.c_dim}] (this network takes labels)")
            e = self.embed(c.argmax(dim=1))
        noise = self.noise_maps(z, noise_mode)
        x = self.init(z)
        features = {4: x}
        for size in self.sizes:
            x = getattr(self, f"feat_{size}")(x, e, noise)
            if size in GATES:
                x = getattr(self, f"se_{size}")(features[GATES[size]], x)
            features[size] = x
        return self.to_big(x)

    def noise_maps(self, z: torch.Tensor, noise_mode: str) -> Iterator[torch.Tensor | None]:
        """What the noise injections add, in order: two maps for each block of the full generator, none for others."""
        if noise_mode not in NOISE_MODES:
            raise ValueError(f"noise_mode: got {noise_mode!r}, expected {', '.join(NOISE_MODES)}")
        return iter(()) if self.lite else (
            self._noise_map(z, noise_mode, size, place) for size in self.sizes for place in range(2)
        )  # fmt: skip

    @staticmethod
    def _noise_map(z: torch.Tensor, noise_mode: str, size: int, place: int) -> torch.Tensor | None:
        if noise_mode == "none":
            return None
        if noise_mode == "random":
            return torch.randn([len(z), 1, size, size], dtype=z.dtype, device=z.device)
        drawn = host_rng(0, f"fastgan/noise{place}", size).standard_normal([1, 1, size, size], dtype=np.float32)
        return torch.from_numpy(drawn).to(z)

    def extra_repr(self) -> str:
        return f"z_dim={self.z_dim}, c_dim={self.c_dim}, resolution={self.img_resolution}, lite={self.lite}"


class Generator(nn.Module):
    """FastGAN generator: latent z and, if `cond`, one-hot label c -> image.

    `ngf` scales all widths; `synthesis_kwargs` is {"lite": bool}, the full generator by default. Resolutions are
    powers of two from 128 to 1024 as in the original, and 32 and 64; with labels 512 and 1024 exist here only.
    `w_dim` and `mapping_kwargs` say nothing, as in the original: z goes straight into the synthesis network, so
    truncation has nothing to act on.
    """

    def __init__(
        self,
        z_dim: int = 256,
        c_dim: int = 0,
        w_dim: int = 0,
        img_resolution: int = 256,
        img_channels: int = 3,
        ngf: int = 128,
        cond: bool | int = 0,
        mapping_kwargs: dict[str, Any] | None = None,
        synthesis_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        lite = dict(synthesis_kwargs or {}).pop("lite", False)
        if unknown := set(synthesis_kwargs or {}) - {"lite"}:
            raise TypeError(f"synthesis_kwargs: got {', '.join(sorted(unknown))}, expected lite only")
        self.init_args: tuple[Any, ...] = ()
        self.init_kwargs: dict[str, Any] = {
            "z_dim": z_dim, "c_dim": c_dim, "w_dim": w_dim, "img_resolution": img_resolution,
            "img_channels": img_channels, "ngf": ngf, "cond": int(cond), "synthesis_kwargs": {"lite": lite},
        }  # fmt: skip
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.num_ws = 1
        self.mapping = Mapping()
        self.synthesis = FastganSynthesis(z_dim, c_dim, img_resolution, img_channels, ngf, bool(cond), bool(lite))

    def forward(
        self,
        z: torch.Tensor,
        c: torch.Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_emas: bool = False,
        noise_mode: str = "random",
        force_fp32: bool = False,
    ) -> torch.Tensor:
        """z [N, z_dim], c [N, c_dim] -> image [N, img_channels, R, R], float32, about -1..1; see FastganSynthesis.

        The truncation arguments are without effect.
        """
        return self.synthesis(self.mapping(z, c), c, noise_mode)
