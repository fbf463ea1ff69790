"""The shapes that the networks really use, read off the networks themselves.

The networks are built without data, on PyTorch's meta device: all of their geometry, none of their memory. A network is
named by configuration and resolution, 't-1024', 'r-256'.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from math import inf

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from sg3.kernels import design_lowpass_filter
from sg3.models.discriminator import Discriminator
from sg3.models.stylegan3 import LayerSpec, SynthesisLayer, SynthesisNetwork

NETWORKS = ("t-256", "t-512", "t-1024", "r-256", "r-512", "r-1024")


@dataclass(frozen=True)
class Layer:
    """One synthesis layer: a modulated convolution, then filtered_lrelu. Sizes are of square images."""

    network: str
    name: str
    spec: LayerSpec
    kernel: int
    up: int
    down: int
    up_taps: int
    down_taps: int
    padding: tuple[int, int]  # of filtered_lrelu, before and after, the same for both axes
    tmp_rate: int
    radial: bool              # the downsampling filter is not separable

    @property
    def title(self) -> str:
        return f"{self.network}/{self.name}"

    @property
    def conv_size(self) -> int:
        """Size of the convolution's output, which filtered_lrelu takes."""
        return self.spec.in_size + self.kernel - 1

    @property
    def same_size(self) -> bool:
        """The ordinary layer: up 2, down 2, separable filters, out as large as in."""
        s = self.spec
        return self.up == self.down == 2 and s.in_size == s.out_size and not self.radial

    def filters(self, device: torch.device | str = "cpu") -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The layer's own filters, fu and fd."""
        s = self.spec
        fu = design_lowpass_filter(self.up_taps, s.in_cutoff, 2 * s.in_half_width, self.tmp_rate)
        fd = design_lowpass_filter(self.down_taps, s.out_cutoff, 2 * s.out_half_width, self.tmp_rate, self.radial)
        return tuple(f if f is None else f.to(device) for f in (fu, fd))  # type: ignore[return-value]

    def terms(self, dtype: torch.dtype) -> int:
        """How many separable filters the downsampling filter is the sum of, to `dtype`'s precision."""
        fd = self.filters()[1]
        if fd is None or fd.ndim == 1:
            return 1
        values = torch.linalg.svdvals(fd.double())
        return int((values > values[0] * torch.finfo(dtype).eps).sum())


@functools.cache
def layers(network: str) -> tuple[Layer, ...]:
    """All synthesis layers of a network, in order. Raises ValueError for a name that does not exist."""
    if network not in NETWORKS:
        raise ValueError(f"network: got {network!r}, expected one of {', '.join(NETWORKS)}")
    config, _, resolution = network.partition("-")
    rotation = config == "r"
    scale = 2 if rotation else 1
    # Without its radial filters, which are designed in numpy and so not on the meta device; they change no size.
    with torch.device("meta"):
        net = SynthesisNetwork(
            w_dim=512, img_resolution=int(resolution), img_channels=3,
            channel_base=32768 * scale, channel_max=512 * scale, conv_kernel=1 if rotation else 3,
        )  # fmt: skip
    result = []
    for name in net.layer_names:
        layer = net.get_submodule(name)
        assert isinstance(layer, SynthesisLayer)
        result.append(Layer(
            network=network, name=name, spec=layer.spec, kernel=layer.conv_kernel,
            up=layer.up_factor, down=layer.down_factor, up_taps=layer.up_taps, down_taps=layer.down_taps,
            padding=(layer.padding[0], layer.padding[1]), tmp_rate=layer.tmp_sampling_rate,
            radial=rotation and not layer.spec.is_critically_sampled and not layer.spec.is_torgb,
        ))  # fmt: skip
    return tuple(result)


def representative(network: str, largest: float = inf) -> tuple[Layer, ...]:
    """The last, and so largest, layer of each kind (factors, filter shape, convolution, precision), of those whose
    images have at most `largest` pixels a side, before and after."""
    kinds = {
        (x.up, x.down, x.radial, x.kernel, x.spec.use_fp16, x.spec.is_torgb): x
        for x in layers(network) if max(x.conv_size, x.spec.out_size) <= largest
    }  # fmt: skip
    return tuple(kinds.values())


@dataclass(frozen=True)
class Block:
    """A discriminator block's resampling and activations: [N, channels, size, size] -> [N, out, size / 2, size / 2]."""

    network: str
    size: int
    channels: int
    out_channels: int
    use_fp16: bool

    @property
    def title(self) -> str:
        return f"{self.network}/D.b{self.size}"


@functools.cache
def blocks(network: str) -> tuple[Block, ...]:
    """The blocks of the discriminator that a network is trained with, from the image down."""
    resolution = int(network.partition("-")[2])
    with FakeTensorMode():  # as the meta device, but for the filters' explicit .to("cpu")
        net = Discriminator(c_dim=0, img_resolution=resolution, img_channels=3)
    result = []
    for size in net.block_resolutions:
        block = net.get_submodule(f"b{size}")
        out, channels = block.conv1.weight.shape[:2]  # type: ignore[union-attr, index]
        result.append(Block(network, size, channels, out, bool(block.use_fp16)))
    return tuple(result)
