"""StyleGAN3 generator (Karras et al. 2021): configurations T (translation) and R (translation and rotation).

    z -> MappingNetwork -> w -> SynthesisInput (Fourier features) -> SynthesisLayer x (num_layers + 1) -> image

Each layer treats its feature maps as band-limited continuous signals. The band limits grow geometrically from layer
to layer (Figure 4c); sampling rates, sizes, filters and paddings all follow from them (`band_limits`).

Units and the paper's symbols: frequencies (cutoff f_c, stopband f_t, half-width f_h of the transition between passing
and stopping) are in periods, sampling rates s in samples per image width, margins not counted. Sizes are in samples,
margins included.

A canvas that is not the square of img_resolution shows another part of the same plane: nothing but the sizes of the
maps follows from it, and the image width that frequencies and rates refer to stays that of the square.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sg3.canvas import Size, checked
from sg3.kernels import design_lowpass_filter, filtered_lrelu, modulated_conv2d
from sg3.kernels.bias_act.activations import clamped
from sg3.models.band_limits import band_limits
from sg3.models.layers import (
    FullyConnectedLayer,
    MappingNetwork,
    kept,
    kept_by,
    update_running_mean,
    wide,
    working_type,
)

__all__ = ["FullyConnectedLayer", "Generator", "MappingNetwork", "SynthesisInput", "SynthesisLayer", "SynthesisNetwork"]


class SynthesisInput(nn.Module):
    """Fourier features of a continuous, infinite plane, translated and rotated by w (Section 3.2, Appendix F).

    `transform` is a user-given 3 x 3 matrix on top: the inverse of how the image should move, in units of its
    width.

    channels: Fourier features, each a wave of random frequency and phase; also how many maps come out. size: side of
    the maps, or their height and width. sampling_rate: s of the first layer. bandwidth: the largest frequency drawn,
    f_c of the first layer.
    """

    shape: Size | None = None  # height and width of the maps where they are not square

    freqs: torch.Tensor
    phases: torch.Tensor
    transform: torch.Tensor

    def __init__(self, w_dim: int, channels: int, size: int | Size, sampling_rate: float, bandwidth: float) -> None:
        super().__init__()
        self.w_dim = w_dim
        self.channels = channels
        if isinstance(size, int):
            self.size = size
        else:
            self.size, self.shape = max(size), size
        self.sampling_rate = sampling_rate
        self.bandwidth = bandwidth

        # Frequencies uniform over the disc |f| < bandwidth, by warping the radius of normal draws.
        freqs = torch.randn(channels, 2)
        squared = freqs.square().sum(dim=1, keepdim=True)
        freqs = freqs / (squared.sqrt() * squared.exp().pow(0.25)) * bandwidth
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.affine = FullyConnectedLayer(w_dim, 4, weight_init=0, bias_init=[1, 0, 0, 0])
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", freqs)
        self.register_buffer("phases", torch.rand(channels) - 0.5)

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        """w [N, w_dim] -> [N, C, H, W], of w's dtype."""
        t = self.affine(w)  # [N, 4]: cos, sin of the rotation; x, y of the translation
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        cos, sin, _, _ = t.unbind(dim=1)
        _, minus_sin, minus_tx, minus_ty = (-t).unbind(dim=1)
        weight, grid, bits = kept(self, "constants", (self.weight,), w.dtype, lambda: self._constants(w.dtype))
        zero, one = bits[:, None].expand(2, w.shape[0]).unbind()
        # Inverse transforms, because they act on where the plane is sampled rather than on the plane.
        rotate = torch.stack([cos, minus_sin, zero, sin, cos, zero, zero, zero, one], dim=1).reshape(-1, 3, 3)
        translate = torch.stack([one, zero, minus_tx, zero, one, minus_ty, zero, zero, one], dim=1).reshape(-1, 3, 3)
        transform = rotate @ translate @ self.transform.to(w.dtype)  # [N, 3, 3]

        own = self.freqs.to(w.dtype)
        phases = self.phases.to(w.dtype) + (own @ transform[:, :2, 2:]).squeeze(2)  # [N, C]
        freqs = own @ transform[:, :2, :2]  # [N, C, 2]

        # A transform that scales can push frequencies past the band limit: fade them out before they alias.
        fade = (freqs.norm(dim=2) - self.bandwidth) / (self.sampling_rate / 2 - self.bandwidth)
        amplitudes = clamped(1 - fade, 0, 1)  # [N, C]

        # Written out rather than as a matrix product with an inner dimension of 2, which TF32 or fused multiply-adds
        # would round differently: these are phases in turns, of which only the fraction matters below.
        x = grid[..., :1] * freqs[:, None, None, :, 0] + grid[..., 1:] * freqs[:, None, None, :, 1]  # [N, H, W, C]
        x = torch.sin((x + phases[:, None, None]) * (2 * torch.pi)) * amplitudes[:, None, None]
        x = x @ weight.t()
        # Layers keep the memory format of their input: see docs/memory-formats.md.
        layout = torch.channels_last if x.device.type == "cpu" else torch.contiguous_format
        return x.permute(0, 3, 1, 2).contiguous(memory_format=layout)

    def _constants(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The scaled weights, where the plane is sampled, [1, H, W, 2], and 0 and 1, [2]."""
        height, width = self.shape or (self.size, self.size)
        x, y = torch.eye(2, 3, dtype=dtype, device=self.weight.device)
        # Half the canvas, margins included, in units of the image: the same for both axes, or turning would shear.
        theta = torch.stack([0.5 * width / self.sampling_rate * x, 0.5 * height / self.sampling_rate * y])
        grid = F.affine_grid(theta[None], [1, 1, height, width], align_corners=False)
        weight = self.weight.to(dtype) / sqrt(self.channels)
        return weight, grid, torch.arange(2.0, dtype=dtype, device=self.weight.device)

    def extra_repr(self) -> str:
        return (
            f"w_dim={self.w_dim}, channels={self.channels}, size={self.shape or self.size}, "
            f"sampling_rate={self.sampling_rate:g}, bandwidth={self.bandwidth:g}"
        )


@dataclass(frozen=True)
class LayerSpec:
    """What the band limits of a layer's input and output imply (Appendix D, Figure 4c)."""

    in_channels: int
    out_channels: int
    in_size: int  # side in samples, margins included, of the square of img_resolution
    out_size: int
    in_sampling_rate: int  # s, samples per image width
    out_sampling_rate: int
    in_cutoff: float  # f_c, periods per image width; of the upsampling filter
    out_cutoff: float  # of the downsampling filter
    in_half_width: float  # f_h, periods per image width: of the filters' transition band, half of it
    out_half_width: float
    is_torgb: bool  # 1 x 1, without demodulation, nonlinearity and filters
    is_critically_sampled: bool  # f_c = s / 2: all of the spectrum is used, at the cost of some aliasing
    use_fp16: bool  # on a GPU, in 16 bits


class SynthesisLayer(nn.Module):
    """Modulated convolution followed by the filtered nonlinearity (Figure 4b); ToRGB is the case without a slope.

    w_dim: width of w. in_shape: height and width of the input where it is not the square of `spec`; padding, which is
    the same on all sides, does not depend on it. The other arguments are `SynthesisNetwork`'s.
    """

    in_shape: Size | None = None
    magnitude_ema: torch.Tensor
    up_filter: torch.Tensor | None
    down_filter: torch.Tensor | None

    def __init__(
        self,
        w_dim: int,
        spec: LayerSpec,
        *,
        conv_kernel: int = 3,
        filter_size: int = 6,
        lrelu_upsampling: int = 2,
        use_radial_filters: bool = False,
        conv_clamp: float | None = 256,
        magnitude_ema_beta: float = 0.999,
        in_shape: Size | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        if in_shape is not None:
            self.in_shape = in_shape
        self.conv_kernel = 1 if spec.is_torgb else conv_kernel
        self.conv_clamp = conv_clamp
        self.magnitude_ema_beta = magnitude_ema_beta
        self.half_type = "float16"
        self.half_on_cpu = False

        tmp_rate = max(spec.in_sampling_rate, spec.out_sampling_rate) * (1 if spec.is_torgb else lrelu_upsampling)
        self.tmp_sampling_rate = tmp_rate
        self.up_factor = tmp_rate // spec.in_sampling_rate
        self.down_factor = tmp_rate // spec.out_sampling_rate
        self.up_taps = filter_size * self.up_factor if self.up_factor > 1 and not spec.is_torgb else 1
        self.down_taps = filter_size * self.down_factor if self.down_factor > 1 and not spec.is_torgb else 1
        # Only the downsampling filter shapes the output's spectrum; critical layers need all of its corners.
        self.down_radial = use_radial_filters and not spec.is_critically_sampled

        self.affine = FullyConnectedLayer(w_dim, spec.in_channels, bias_init=1)
        self.weight = nn.Parameter(
            torch.randn(spec.out_channels, spec.in_channels, self.conv_kernel, self.conv_kernel)
        )
        self.bias = nn.Parameter(torch.zeros(spec.out_channels))
        self.register_buffer("magnitude_ema", torch.ones([]))
        self.register_buffer(
            "up_filter",
            design_lowpass_filter(self.up_taps, spec.in_cutoff, 2 * spec.in_half_width, tmp_rate),
        )
        self.register_buffer(
            "down_filter",
            design_lowpass_filter(
                self.down_taps, spec.out_cutoff, 2 * spec.out_half_width, tmp_rate, radial=self.down_radial
            ),
        )

        # Padding (or cropping) that gives out_size after the convolution, both filters and both resamplings; an odd
        # pixel goes to the side that keeps samples aligned with the factor-of-up grid.
        total = (spec.out_size - 1) * self.down_factor + 1
        total -= (spec.in_size + self.conv_kernel - 1) * self.up_factor
        total += self.up_taps + self.down_taps - 2
        low = (total + self.up_factor) // 2
        self.padding = [low, total - low, low, total - low]

    def forward(
        self,
        x: torch.Tensor,
        w: torch.Tensor,
        noise_mode: str = "random",
        force_fp32: bool = False,
        update_emas: bool = False,
    ) -> torch.Tensor:
        """x [N, in_channels, H, W], w [N, w_dim] -> [N, out_channels, H', W'], squares of in_size and out_size
        unless there is an in_shape.

        `noise_mode` is accepted for StyleGAN2's sake: there is no noise here.
        """
        spec = self.spec
        if noise_mode not in ("random", "const", "none"):
            raise ValueError(f"noise_mode: got {noise_mode!r}, expected random, const or none")
        height, width = self.in_shape or (spec.in_size, spec.in_size)
        if x.shape[1:] != (spec.in_channels, height, width):
            expected = f"[N, {spec.in_channels}, {height}, {width}]"
            raise ValueError(f"x: got shape {list(x.shape)}, expected {expected}")

        # Instead of a normalisation layer: divide by the running magnitude of the input (Section 3.2).
        if update_emas:
            magnitude = x.detach().to(wide(self.weight)).square().mean()
            update_running_mean(self.magnitude_ema, magnitude, self.magnitude_ema_beta)
        input_gain = kept(
            self, "input_gain", (self.magnitude_ema,), w.dtype, lambda: self.magnitude_ema.to(w.dtype).rsqrt()
        )

        styles = self.affine(w)
        if spec.is_torgb:
            styles = styles * (1 / sqrt(spec.in_channels * self.conv_kernel**2))

        is_half = spec.use_fp16 and not force_fp32
        dtype = wide(w, working_type(is_half, self.half_type, x.device, self.half_on_cpu))
        x = modulated_conv2d(
            x.to(dtype),
            self.weight.to(w.dtype),
            styles,
            demodulate=not spec.is_torgb,
            padding=self.conv_kernel - 1,
            input_gain=input_gain,
            kept=kept_by(self),
        )
        return filtered_lrelu(
            x,
            self.up_filter,
            self.down_filter,
            kept(self, "bias", (self.bias,), dtype, lambda: self.bias.to(dtype)),
            up=self.up_factor,
            down=self.down_factor,
            padding=self.padding,
            gain=1.0 if spec.is_torgb else sqrt(2),
            slope=1.0 if spec.is_torgb else 0.2,
            clamp=self.conv_clamp,
        )

    def extra_repr(self) -> str:
        s = self.spec
        return (
            f"channels={s.in_channels} -> {s.out_channels}, size={s.in_size} -> {s.out_size}, "
            f"rate={s.in_sampling_rate} -> {s.out_sampling_rate}, cutoff={s.in_cutoff:.4g} -> {s.out_cutoff:.4g}, "
            f"up={self.up_factor}, down={self.down_factor}, kernel={self.conv_kernel}, "
            f"radial={self.down_radial}, fp16={s.use_fp16}, torgb={s.is_torgb}"
        )


class SynthesisNetwork(nn.Module):
    """w -> image: Fourier features and num_layers + 1 layers, the last of them ToRGB.

    Frequencies in periods per image width, symbols as in the paper's Section 3.2 and Appendix D:

    - w_dim: width of w.
    - img_resolution: side of the image in pixels, s_N, a power of two. img_channels: its channels.
    - img_size: height and width of the image where they are not img_resolution, which then is the sampling rate alone:
      pixels per unit. Multiples of it divided by the first layer's rate, so that all layers have whole samples.
    - channel_base, channel_max: a layer has channel_base / (2 f_c) feature maps, at most channel_max.
    - num_layers: N, how many layers there are between the Fourier features and ToRGB.
    - num_critical: N_crit, how many of them, at the end, are critically sampled: f_c = s / 2.
    - first_cutoff: f_c,0, cutoff of the Fourier features. The last one is img_resolution / 2; those between grow
      geometrically.
    - first_stopband: f_t,0, stopband of the Fourier features, above the cutoff. Stopbands grow geometrically, too.
    - last_stopband_rel: f_t,N / f_c,N, the last stopband as a multiple of the last cutoff.
    - margin_size: samples added on each side, at each layer's own rate, to keep what goes wrong at borders out of
      the image.
    - output_scale: ToRGB's result is multiplied by it.
    - num_fp16_res: a layer runs in 16 bits on a GPU if its rate is above img_resolution / 2^num_fp16_res; 0 is none.
    - conv_kernel: side of the convolutions' kernels in samples: 3 for T, 1 for R.
    - filter_size: n, taps of a resampling filter for each of its factor: up or down by 4 with n = 6 takes 24.
    - lrelu_upsampling: m, how much finer than the finer of its two rates a layer is sampled at its nonlinearity.
    - use_radial_filters: downsample by circularly symmetric filters but where sampling is critical (R).
    - conv_clamp: what the nonlinearity gives is cut to -conv_clamp..conv_clamp, for 16 bits; None leaves it.
    - magnitude_ema_beta: share of the old value when the running mean of a layer's squared input, sigma^2, takes in
      a batch: 0.5^(batch / 20,000) halves the weight of an image every 20,000 images.
    """

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_layers: int = 14,
        num_critical: int = 2,
        first_cutoff: float = 2,
        first_stopband: float = 2**2.1,
        last_stopband_rel: float = 2**0.3,
        margin_size: int = 10,
        output_scale: float = 0.25,
        num_fp16_res: int = 4,
        conv_kernel: int = 3,
        filter_size: int = 6,
        lrelu_upsampling: int = 2,
        use_radial_filters: bool = False,
        conv_clamp: float | None = 256,
        magnitude_ema_beta: float = 0.999,
        img_size: Size | None = None,
    ) -> None:
        super().__init__()
        self.w_dim = w_dim
        self.num_ws = num_layers + 2
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.num_layers = num_layers
        self.output_scale = output_scale

        limits = band_limits(
            img_resolution, img_channels, num_layers, num_critical, first_cutoff=first_cutoff,
            first_stopband=first_stopband, last_stopband_rel=last_stopband_rel, margin_size=margin_size,
            channel_base=channel_base, channel_max=channel_max, canvas=checked(img_resolution, img_size),
        )  # fmt: skip
        channels, sizes, rates, shapes = limits.channels, limits.sizes, limits.rates, limits.shapes
        cutoffs, half_widths = limits.cutoffs, limits.half_widths
        self.input = SynthesisInput(w_dim, channels[0], shapes[0] or sizes[0], rates[0], cutoffs[0])
        self.layer_names: list[str] = []
        for i in range(num_layers + 1):
            prev = max(i - 1, 0)
            spec = LayerSpec(
                in_channels=channels[prev], out_channels=channels[i],
                in_size=sizes[prev], out_size=sizes[i],
                in_sampling_rate=rates[prev], out_sampling_rate=rates[i],
                in_cutoff=cutoffs[prev], out_cutoff=cutoffs[i],
                in_half_width=half_widths[prev], out_half_width=half_widths[i],
                is_torgb=i == num_layers,
                is_critically_sampled=i >= num_layers - num_critical,
                use_fp16=rates[i] * 2**num_fp16_res > img_resolution,
            )  # fmt: skip
            layer = SynthesisLayer(
                w_dim, spec, conv_kernel=conv_kernel, filter_size=filter_size, lrelu_upsampling=lrelu_upsampling,
                use_radial_filters=use_radial_filters, conv_clamp=conv_clamp, magnitude_ema_beta=magnitude_ema_beta,
                in_shape=shapes[prev],
            )  # fmt: skip
            name = f"L{i}_{spec.out_size}_{spec.out_channels}"
            setattr(self, name, layer)
            self.layer_names.append(name)

    def forward(
        self, ws: torch.Tensor, noise_mode: str = "random", force_fp32: bool = False, update_emas: bool = False
    ) -> torch.Tensor:
        """ws [N, num_ws, w_dim] -> image [N, img_channels, H, W], float32, about -1..1."""
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(f"ws: got shape {list(ws.shape)}, expected [N, {self.num_ws}, {self.w_dim}]")
        each = ws.to(wide(self.input.weight)).unbind(dim=1)
        x = self.input(each[0])
        for name, w in zip(self.layer_names, each[1:], strict=True):
            x = getattr(self, name)(x, w, noise_mode, force_fp32, update_emas)
        return (x.to(each[0].dtype) * self.output_scale).contiguous()

    def extra_repr(self) -> str:
        return f"w_dim={self.w_dim}, num_ws={self.num_ws}, img={self.img_channels} x {self.img_resolution}^2"


class Generator(nn.Module):
    """StyleGAN3 generator: latent z and label c -> image.

    `mapping_kwargs` go to `MappingNetwork` (2 layers unless given), everything else to `SynthesisNetwork`.
    Configuration T is the default; R is `conv_kernel=1, use_radial_filters=True` with channel_base and channel_max
    doubled.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        mapping_kwargs: dict[str, Any] | None = None,
        **synthesis_kwargs: Any,
    ) -> None:
        super().__init__()
        self.init_args: tuple[Any, ...] = ()
        self.init_kwargs: dict[str, Any] = {
            "z_dim": z_dim, "c_dim": c_dim, "w_dim": w_dim, "img_resolution": img_resolution,
            "img_channels": img_channels, "mapping_kwargs": dict(mapping_kwargs or {}), **synthesis_kwargs,
        }  # fmt: skip
        if checked(img_resolution, self.init_kwargs.pop("img_size", None)):
            self.init_kwargs["img_size"] = list(synthesis_kwargs["img_size"])
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.synthesis = SynthesisNetwork(w_dim, img_resolution, img_channels, **synthesis_kwargs)
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, **{"num_layers": 2, **(mapping_kwargs or {})})

    @property
    def img_size(self) -> Size:
        """Height and width of the image in pixels."""
        height, width = self.init_kwargs.get("img_size") or (self.img_resolution, self.img_resolution)
        return height, width

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
        """z [N, z_dim], c [N, c_dim] -> image [N, img_channels, H, W], float32, about -1..1."""
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff, update_emas)
        return self.synthesis(ws, noise_mode=noise_mode, force_fp32=force_fp32, update_emas=update_emas)
