"""StyleGAN2 discriminator (Karras et al. 2020), which StyleGAN3 trains with as well.

    image -> fromrgb -> blocks, each halving the resolution -> 4 x 4 epilogue with minibatch statistics -> logit

Images that are not square end in another epilogue, 3 x 4 for 384 x 512, as the generator's constant.

With labels the last layer gives a vector that is projected on the mapped label (Miyato and Koyama 2018).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from math import log2, sqrt
from typing import Any

import torch
from torch import nn

from sg3.canvas import Size, checked
from sg3.kernels import downsample2d, setup_filter
from sg3.models.layers import Conv2dLayer, FullyConnectedLayer, MappingNetwork, layout_of, wide, working_type

__all__ = ["Discriminator", "DiscriminatorBlock", "DiscriminatorEpilogue", "MinibatchStdLayer"]


class DiscriminatorBlock(nn.Module):
    """Two convolutions, the second of which halves the resolution.

    `first_layer_idx` counts the convolutions of all blocks before this one; those below `freeze_layers` are buffers.
    """

    resample_filter: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        tmp_channels: int,
        out_channels: int,
        resolution: int,
        img_channels: int,
        first_layer_idx: int,
        architecture: str = "resnet",
        activation: str = "lrelu",
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
        use_fp16: bool = False,
        fp16_channels_last: bool = False,
        freeze_layers: int = 0,
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

        index: Iterator[int] = count(first_layer_idx)

        def conv(n_in: int, n_out: int, kernel: int, **options: Any) -> Conv2dLayer:
            return Conv2dLayer(
                n_in, n_out, kernel, trainable=next(index) >= freeze_layers, resample_filter=resample_filter,
                channels_last=self.channels_last, **options,
            )  # fmt: skip

        if in_channels == 0 or architecture == "skip":
            self.fromrgb = conv(img_channels, tmp_channels, 1, activation=activation, conv_clamp=conv_clamp)
        self.conv0 = conv(tmp_channels, tmp_channels, 3, activation=activation, conv_clamp=conv_clamp)
        self.conv1 = conv(tmp_channels, out_channels, 3, activation=activation, down=2, conv_clamp=conv_clamp)
        if architecture == "resnet":
            self.skip = conv(tmp_channels, out_channels, 1, bias=False, down=2)
        self.num_layers = next(index) - first_layer_idx

    def forward(
        self, x: torch.Tensor | None, img: torch.Tensor | None, force_fp32: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Features x [N, in, H, W] (None in the first block) and the image at this resolution -> both, halved."""
        reference = x if x is not None else img
        assert reference is not None
        may_be_half = self.use_fp16 and not force_fp32
        dtype = working_type(may_be_half, self.half_type, reference.device, self.half_on_cpu)
        dtype = wide(self.conv1.weight, dtype)
        layout = layout_of(self.channels_last, self.channels_last_on_cpu, dtype, reference.device)
        if x is not None:
            x = x.to(dtype=dtype, memory_format=layout)

        if self.in_channels == 0 or self.architecture == "skip":
            assert img is not None
            img = img.to(dtype=dtype, memory_format=layout)
            y = self.fromrgb(img)
            x = y if x is None else x + y
            img = downsample2d(img, self.resample_filter) if self.architecture == "skip" else None

        if self.architecture == "resnet":
            y = self.skip(x, gain=sqrt(0.5))
            x = y + self.conv1(self.conv0(x), gain=sqrt(0.5))
        else:
            x = self.conv1(self.conv0(x))
        return x, img


class MinibatchStdLayer(nn.Module):
    """Append the standard deviation over groups of samples as feature maps (Karras et al. 2018, Section 3).

    Groups are strided: sample i belongs to group i mod (N / group_size).
    """

    def __init__(self, group_size: int | None, num_channels: int = 1) -> None:
        super().__init__()
        self.group_size = group_size
        self.num_channels = num_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> [N, C + num_channels, H, W]; N must be a multiple of the group size (or smaller)."""
        n, c, h, w = x.shape
        group = min(self.group_size, n) if self.group_size is not None else n
        if n % group:
            raise ValueError(f"x: got a batch of {n}, expected a multiple of the minibatch-std group size {group}")
        f = self.num_channels
        y = x.reshape(group, -1, f, c // f, h, w)  # [G, N / G, F, C / F, H, W]
        y = (y - y.mean(dim=0)).square().mean(dim=0)
        y = (y + 1e-8).sqrt().mean(dim=[2, 3, 4])  # [N / G, F]
        y = y.reshape(-1, f, 1, 1).repeat(group, 1, h, w)
        return torch.cat([x, y], dim=1)

    def extra_repr(self) -> str:
        return f"group_size={self.group_size}, num_channels={self.num_channels}"


class DiscriminatorEpilogue(nn.Module):
    """4 x 4 features -> one logit per sample, or a vector of cmap_dim to be projected on the label.

    shape: of the features, height and width, where they are not the square of `resolution`.
    """

    def __init__(
        self,
        in_channels: int,
        cmap_dim: int,
        resolution: int,
        img_channels: int,
        architecture: str = "resnet",
        mbstd_group_size: int | None = 4,
        mbstd_num_channels: int = 1,
        activation: str = "lrelu",
        conv_clamp: float | None = None,
        shape: Size | None = None,
    ) -> None:
        super().__init__()
        self.cmap_dim = cmap_dim
        self.architecture = architecture
        if architecture == "skip":
            self.fromrgb = Conv2dLayer(img_channels, in_channels, 1, activation=activation)
        self.mbstd = MinibatchStdLayer(mbstd_group_size, mbstd_num_channels) if mbstd_num_channels > 0 else None
        self.conv = Conv2dLayer(
            in_channels + mbstd_num_channels, in_channels, 3, activation=activation, conv_clamp=conv_clamp
        )
        height, width = shape or (resolution, resolution)
        self.fc = FullyConnectedLayer(in_channels * height * width, in_channels, activation=activation)
        self.out = FullyConnectedLayer(in_channels, max(cmap_dim, 1))

    def forward(self, x: torch.Tensor, img: torch.Tensor | None, cmap: torch.Tensor | None) -> torch.Tensor:
        """x [N, C, 4, 4], cmap [N, cmap_dim] or None -> [N, 1], float32."""
        x = x.to(wide(self.fc.weight))
        if self.architecture == "skip":
            assert img is not None
            x = x + self.fromrgb(img.to(x.dtype))
        if self.mbstd is not None:
            x = self.mbstd(x)
        x = self.out(self.fc(self.conv(x).flatten(1)))
        if cmap is not None:
            x = (x * cmap).sum(dim=1, keepdim=True) / sqrt(self.cmap_dim)
        return x


class Discriminator(nn.Module):
    """Image and label -> logit, positive for real. `architecture` is resnet, skip or orig.

    img_size: height and width of the image where it is not the square of img_resolution, which then is nominal:
    4 * 2^k, of an image that is halved k times.
    """

    def __init__(
        self,
        c_dim: int,
        img_resolution: int,
        img_channels: int,
        architecture: str = "resnet",
        channel_base: int = 32768,
        channel_max: int = 512,
        num_fp16_res: int = 4,
        conv_clamp: float | None = 256,
        cmap_dim: int | None = None,
        block_kwargs: dict[str, Any] | None = None,
        mapping_kwargs: dict[str, Any] | None = None,
        epilogue_kwargs: dict[str, Any] | None = None,
        img_size: Size | None = None,
    ) -> None:
        super().__init__()
        if img_resolution < 8 or img_resolution & (img_resolution - 1):
            raise ValueError(f"img_resolution: got {img_resolution}, expected a power of two of at least 8")
        if architecture not in ("resnet", "skip", "orig"):
            raise ValueError(f"architecture: got {architecture!r}, expected resnet, skip or orig")
        end = constant_shape(img_resolution, img_size)
        self.init_args: tuple[Any, ...] = ()
        self.init_kwargs: dict[str, Any] = {
            "c_dim": c_dim, "img_resolution": img_resolution, "img_channels": img_channels,
            "architecture": architecture, "channel_base": channel_base, "channel_max": channel_max,
            "num_fp16_res": num_fp16_res, "conv_clamp": conv_clamp, "cmap_dim": cmap_dim,
            "block_kwargs": dict(block_kwargs or {}), "mapping_kwargs": dict(mapping_kwargs or {}),
            "epilogue_kwargs": dict(epilogue_kwargs or {}),
        }  # fmt: skip
        if img_size is not None and end is not None:
            self.init_kwargs["img_size"] = list(img_size)
        self.c_dim = c_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.img_resolution_log2 = int(log2(img_resolution))
        self.block_resolutions = [2**i for i in range(self.img_resolution_log2, 2, -1)]
        channels = {res: min(channel_base // res, channel_max) for res in [*self.block_resolutions, 4]}
        fp16_resolution = max(2 ** (self.img_resolution_log2 + 1 - num_fp16_res), 8)
        if cmap_dim is None:
            cmap_dim = channels[4]
        if c_dim == 0:
            cmap_dim = 0

        layer_idx = 0
        for res in self.block_resolutions:
            block = DiscriminatorBlock(
                channels[res] if res < img_resolution else 0, channels[res], channels[res // 2], resolution=res,
                img_channels=img_channels, first_layer_idx=layer_idx, architecture=architecture,
                conv_clamp=conv_clamp, use_fp16=res >= fp16_resolution, **(block_kwargs or {}),
            )  # fmt: skip
            setattr(self, f"b{res}", block)
            layer_idx += block.num_layers
        if c_dim > 0:
            self.mapping = MappingNetwork(0, c_dim, cmap_dim, num_ws=None, w_avg_beta=None, **(mapping_kwargs or {}))
        self.b4 = DiscriminatorEpilogue(
            channels[4], cmap_dim, resolution=4, img_channels=img_channels, architecture=architecture,
            conv_clamp=conv_clamp, shape=end, **(epilogue_kwargs or {}),
        )  # fmt: skip

    @property
    def img_size(self) -> Size:
        """Height and width of the image in pixels."""
        height, width = self.init_kwargs.get("img_size") or (self.img_resolution, self.img_resolution)
        return height, width

    def forward(
        self, img: torch.Tensor, c: torch.Tensor | None = None, update_emas: bool = False, force_fp32: bool = False
    ) -> torch.Tensor:
        """img [N, img_channels, H, W] in -1..1, c [N, c_dim] -> logits [N, 1]. `update_emas` has nothing to update."""
        expected = (self.img_channels, *self.img_size)
        if img.ndim != 4 or img.shape[1:] != expected:
            raise ValueError(f"img: got shape {list(img.shape)}, expected [N, {', '.join(map(str, expected))}]")
        x: torch.Tensor | None = None
        rest: torch.Tensor | None = img
        for res in self.block_resolutions:
            x, rest = getattr(self, f"b{res}")(x, rest, force_fp32)
        cmap = self.mapping(None, c) if self.c_dim > 0 else None
        return self.b4(x, rest, cmap)

    def extra_repr(self) -> str:
        return f"c_dim={self.c_dim}, img={self.img_channels} x {self.img_resolution}^2"


def constant_shape(img_resolution: int, img_size: Size | None) -> Size | None:
    """h0 and w0, which k doublings make `img_size` and would make `img_resolution` of 4; None for the square of
    `img_resolution`. Raises ValueError for sizes that they do not make."""
    size = checked(img_resolution, img_size)
    if size is None:
        return None
    if any(side * 4 % img_resolution for side in size):
        raise ValueError(f"img_size: got {list(size)}, expected multiples of {img_resolution // 4} at a nominal "
                         f"resolution of {img_resolution}")  # fmt: skip
    return size[0] * 4 // img_resolution, size[1] * 4 // img_resolution
