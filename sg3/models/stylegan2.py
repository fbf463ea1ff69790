"""StyleGAN2 generator (Karras et al. 2020), with the discriminator of `sg3.models.discriminator` for company.

    z -> MappingNetwork -> w -> constant 4 x 4 -> blocks, each doubling the resolution -> image

Images that are not square begin with another constant, 3 x 4 for 384 x 512; names and channels are those of the square
network with as many blocks, whose resolution is called nominal here.

Architectures (Figure 7): `skip` sums upsampled RGB images of all resolutions, `resnet` adds residual connections,
`orig` takes the image from the last block alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log2, sqrt
from typing import Any

import torch
from torch import nn

from sg3.canvas import Size, checked
from sg3.kernels import bias_act, conv2d_resample, setup_filter, upsample2d
from sg3.kernels.bias_act.activations import ACTIVATIONS
from sg3.kernels.bias_act.op import scaled_bias_act
from sg3.models.discriminator import (
    Discriminator,
    DiscriminatorBlock,
    DiscriminatorEpilogue,
    MinibatchStdLayer,
    constant_shape,
)
from sg3.models.layers import Conv2dLayer, FullyConnectedLayer, MappingNetwork, layout_of, wide, working_type

__all__ = [
    "Conv2dLayer", "Discriminator", "DiscriminatorBlock", "DiscriminatorEpilogue", "FullyConnectedLayer", "Generator",
    "MappingNetwork", "MinibatchStdLayer", "SynthesisBlock", "SynthesisLayer", "SynthesisNetwork", "ToRGBLayer",
    "modulated_conv2d",
]  # fmt: skip


def modulated_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    noise: torch.Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int = 0,
    resample_filter: torch.Tensor | None = None,
    demodulate: bool = True,
    flip_weight: bool = True,
) -> torch.Tensor:
    """StyleGAN2's modulated convolution with resampling and noise: scale -> convolve -> scale + noise.

    x [N, I, H, W], weight [O, I, kh, kw], styles [N, I], noise broadcastable to the output -> [N, O, H', W'].
    Scaling the input channels by the styles and the output channels by the demodulation coefficients equals modulating
    the weights (Equation 1-3), but every sample shares one convolution.
    """
    x, scale = _modulate_and_convolve(x, weight, styles, up, down, padding, resample_filter, demodulate, flip_weight)
    x = x if scale is None else x * scale.to(x.dtype)[:, :, None, None]
    return x if noise is None else x + noise.to(x.dtype)


def _modulate_and_convolve(
    x: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    up: int,
    down: int,
    padding: int,
    resample_filter: torch.Tensor | None,
    demodulate: bool,
    flip_weight: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The convolution [N, O, H', W'], and the factors [N, O] that demodulate it (None if `demodulate` is False)."""
    weight = weight.to(styles.dtype)
    if x.dtype == torch.float16 and demodulate:
        # Keep products within half precision's range; demodulation cancels both factors.
        largest = weight.abs().amax(dim=[1, 2, 3], keepdim=True)
        weight = weight * (1 / sqrt(weight[0].numel()) / largest)
        styles = styles / styles.abs().amax(dim=1, keepdim=True)

    x = x * styles.to(x.dtype)[:, :, None, None]
    x = conv2d_resample(
        x, weight.to(x.dtype), resample_filter, up=up, down=down, padding=padding, flip_weight=flip_weight
    )
    if not demodulate:
        return x, None
    squared = styles.square() @ weight.square().sum(dim=[2, 3]).t()  # [N, O]: sum of squared modulated weights
    return x, (squared + 1e-8).rsqrt()


class SynthesisLayer(nn.Module):
    """Modulated convolution, per-pixel noise, bias and activation. shape: of the output, height and width, where it is
    not the square of `resolution`."""

    noise_const: torch.Tensor
    resample_filter: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        kernel_size: int = 3,
        up: int = 1,
        use_noise: bool = True,
        activation: str = "lrelu",
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
        channels_last: bool = False,
        shape: Size | None = None,
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.up = up
        self.use_noise = use_noise
        self.activation = activation
        self.conv_clamp = conv_clamp
        self.padding = kernel_size // 2
        self.act_gain = ACTIVATIONS[activation].gain
        self.register_buffer("resample_filter", setup_filter(list(resample_filter)))

        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        weight = torch.randn(out_channels, in_channels, kernel_size, kernel_size)
        self.weight = nn.Parameter(weight.to(memory_format=layout))
        if use_noise:
            self.register_buffer("noise_const", torch.randn(shape or (resolution, resolution)))
            self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: torch.Tensor, w: torch.Tensor, noise_mode: str = "random", gain: float = 1.0) -> torch.Tensor:
        """x [N, in, H / up, W / up], w [N, w_dim] -> [N, out, H, W]. noise_mode: random, const or none."""
        if noise_mode not in ("random", "const", "none"):
            raise ValueError(f"noise_mode: got {noise_mode!r}, expected random, const or none")
        noise = None
        if self.use_noise and noise_mode == "random":
            drawn = torch.randn([x.shape[0], 1, *self.noise_const.shape], device=x.device)
            noise = drawn * self.noise_strength.to(drawn.dtype)
        elif self.use_noise and noise_mode == "const":
            noise = (self.noise_const * self.noise_strength).to(w.dtype)
        x, scale = _modulate_and_convolve(
            x, self.weight, self.affine(w), up=self.up, down=1, padding=self.padding,
            resample_filter=self.resample_filter, demodulate=True, flip_weight=self.up == 1,
        )  # fmt: skip
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return scaled_bias_act(
            x, self.bias.to(x.dtype), scale, noise, act=self.activation, gain=self.act_gain * gain, clamp=clamp
        )

    def extra_repr(self) -> str:
        o, i = self.weight.shape[:2]
        return f"{i} -> {o}, resolution={self.resolution}, up={self.up}, activation={self.activation}"


class ToRGBLayer(nn.Module):
    """Features to colours: a modulated 1 x 1 convolution without demodulation."""

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, kernel_size: int = 1,
        conv_clamp: float | None = None, channels_last: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        weight = torch.randn(out_channels, in_channels, kernel_size, kernel_size)
        self.weight = nn.Parameter(weight.to(memory_format=layout))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.weight_gain = 1 / sqrt(in_channels * kernel_size**2)

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """x [N, in, H, W], w [N, w_dim] -> [N, out, H, W]."""
        x = modulated_conv2d(x, self.weight, self.affine(w) * self.weight_gain, demodulate=False)
        return bias_act(x, self.bias.to(x.dtype), clamp=self.conv_clamp)


class SynthesisBlock(nn.Module):
    """One resolution: an upsampling convolution, a plain one, and the way to RGB of the chosen architecture."""

    resample_filter: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        is_last: bool,
        architecture: str = "skip",
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        conv_clamp: float | None = 256,
        use_fp16: bool = False,
        fp16_channels_last: bool = False,
        use_noise: bool = True,
        activation: str = "lrelu",
        shape: Size | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.resolution = resolution
        self.architecture = architecture
        self.use_fp16 = use_fp16
        self.half_type = "float16"
        self.half_on_cpu = False
        self.channels_last = use_fp16 and fp16_channels_last
        self.channels_last_on_cpu = fp16_channels_last
        self.register_buffer("resample_filter", setup_filter(list(resample_filter)))

        def layer(n_in: int, up: int) -> SynthesisLayer:
            return SynthesisLayer(
                n_in, out_channels, w_dim, resolution, up=up, use_noise=use_noise, activation=activation,
                resample_filter=resample_filter, conv_clamp=conv_clamp, channels_last=self.channels_last, shape=shape,
            )  # fmt: skip

        if in_channels == 0:
            self.const = nn.Parameter(torch.randn(out_channels, *(shape or (resolution, resolution))))
        else:
            self.conv0 = layer(in_channels, up=2)
        self.conv1 = layer(out_channels, up=1)
        self.has_torgb = is_last or architecture == "skip"
        if self.has_torgb:
            self.torgb = ToRGBLayer(
                out_channels, img_channels, w_dim, conv_clamp=conv_clamp, channels_last=self.channels_last
            )
        if in_channels != 0 and architecture == "resnet":
            self.skip = Conv2dLayer(
                in_channels, out_channels, 1, bias=False, up=2, resample_filter=resample_filter,
                channels_last=self.channels_last,
            )  # fmt: skip
        self.num_conv = 1 if in_channels == 0 else 2
        self.num_torgb = int(self.has_torgb)

    def forward(
        self,
        x: torch.Tensor | None,
        img: torch.Tensor | None,
        ws: torch.Tensor,
        noise_mode: str = "random",
        force_fp32: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Features and image of the previous resolution (None in the first block), ws [N, num_conv + num_torgb, w_dim]
        -> features [N, out, H, W] and float32 image [N, img_channels, H, W] (None until there is one)."""
        w = iter(ws.unbind(dim=1))
        may_be_half = self.use_fp16 and not force_fp32
        dtype = wide(ws, working_type(may_be_half, self.half_type, ws.device, self.half_on_cpu))
        layout = layout_of(self.channels_last, self.channels_last_on_cpu, dtype, ws.device)

        if self.in_channels == 0:
            start = self.const.to(dtype)[None].expand(ws.shape[0], -1, -1, -1).contiguous(memory_format=layout)
            out = self.conv1(start, next(w), noise_mode)
        else:
            assert x is not None
            x = x.to(dtype=dtype, memory_format=layout)
            if self.architecture == "resnet":
                y = self.skip(x, gain=sqrt(0.5))
                out = self.conv0(x, next(w), noise_mode)
                out = y + self.conv1(out, next(w), noise_mode, gain=sqrt(0.5))
            else:
                out = self.conv0(x, next(w), noise_mode)
                out = self.conv1(out, next(w), noise_mode)

        if img is not None:
            img = upsample2d(img, self.resample_filter)
        if self.has_torgb:
            rgb = self.torgb(out, next(w)).to(dtype=ws.dtype, memory_format=torch.contiguous_format)
            img = rgb if img is None else img + rgb
        return out, img


class SynthesisNetwork(nn.Module):
    """w -> image. Block b{R} works at resolution R; consecutive blocks share the w of their ToRGB layers.

    img_size: height and width of the image where it is not the square of img_resolution, which then is nominal:
    4 * 2^k, of an image that is the constant doubled k times.
    """

    b4: SynthesisBlock

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_fp16_res: int = 4,
        architecture: str = "skip",
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        conv_clamp: float | None = 256,
        fp16_channels_last: bool = False,
        use_noise: bool = True,
        activation: str = "lrelu",
        fused_modconv_default: bool | str = True,
        img_size: Size | None = None,
    ) -> None:
        """`fused_modconv_default` is accepted and without effect: there is one form of the modulated convolution."""
        super().__init__()
        if img_resolution < 4 or img_resolution & (img_resolution - 1):
            raise ValueError(f"img_resolution: got {img_resolution}, expected a power of two of at least 4")
        if architecture not in ("skip", "resnet", "orig"):
            raise ValueError(f"architecture: got {architecture!r}, expected skip, resnet or orig")
        start = constant_shape(img_resolution, img_size)
        self.w_dim = w_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.img_resolution_log2 = int(log2(img_resolution))
        self.block_resolutions = [2**i for i in range(2, self.img_resolution_log2 + 1)]
        channels = {res: min(channel_base // res, channel_max) for res in self.block_resolutions}
        fp16_resolution = max(2 ** (self.img_resolution_log2 + 1 - num_fp16_res), 8)

        self.num_ws = 0
        for res in self.block_resolutions:
            is_last = res == img_resolution
            block = SynthesisBlock(
                channels[res // 2] if res > 4 else 0, channels[res], w_dim, res, img_channels, is_last,
                architecture=architecture, resample_filter=resample_filter, conv_clamp=conv_clamp,
                use_fp16=res >= fp16_resolution, fp16_channels_last=fp16_channels_last, use_noise=use_noise,
                activation=activation, shape=start and (start[0] * res // 4, start[1] * res // 4),
            )  # fmt: skip
            self.num_ws += block.num_conv + (block.num_torgb if is_last else 0)
            setattr(self, f"b{res}", block)

    def forward(
        self,
        ws: torch.Tensor,
        noise_mode: str = "random",
        force_fp32: bool = False,
        update_emas: bool = False,
        fused_modconv: bool | None = None,
    ) -> torch.Tensor:
        """ws [N, num_ws, w_dim] -> image [N, img_channels, H, W], float32, about -1..1.

        `update_emas` has nothing to update here, `fused_modconv` nothing to choose.
        """
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(f"ws: got shape {list(ws.shape)}, expected [N, {self.num_ws}, {self.w_dim}]")
        ws = ws.to(wide(self.b4.const))
        x = img = None
        start = 0
        for res in self.block_resolutions:
            block = getattr(self, f"b{res}")
            x, img = block(x, img, ws[:, start : start + block.num_conv + block.num_torgb], noise_mode, force_fp32)
            start += block.num_conv
        assert img is not None
        return img

    def extra_repr(self) -> str:
        return f"w_dim={self.w_dim}, num_ws={self.num_ws}, img={self.img_channels} x {self.img_resolution}^2"


class Generator(nn.Module):
    """StyleGAN2 generator: latent z and label c -> image.

    `mapping_kwargs` go to `MappingNetwork` (8 layers unless given), everything else to `SynthesisNetwork`.
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
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, **(mapping_kwargs or {}))

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
        fused_modconv: bool | None = None,
    ) -> torch.Tensor:
        """z [N, z_dim], c [N, c_dim] -> image [N, img_channels, H, W], float32, about -1..1."""
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff, update_emas)
        return self.synthesis(ws, noise_mode, force_fp32, update_emas, fused_modconv)
