"""Layers that the StyleGAN2 and StyleGAN3 networks share.

All weights are stored with unit variance and scaled at run time ("equalized learning rate", Karras et al. 2018,
Section 4.1), so that Adam's steps mean the same in every layer.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise
from math import prod, sqrt
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from sg3.kernels import bias_act, conv2d_resample, setup_filter
from sg3.kernels.bias_act.activations import ACTIVATIONS
from sg3.kernels.kept import Kept

Value = TypeVar("Value")


class FullyConnectedLayer(nn.Module):
    """y = act(x @ weight.T * lr / sqrt(in) + bias * lr), x [N, in] -> [N, out].

    `lr_multiplier` slows learning down: parameters are stored 1 / lr larger and multiplied by it here.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: str = "linear",
        bias: bool = True,
        lr_multiplier: float = 1.0,
        weight_init: float = 1.0,
        bias_init: float | Sequence[float] = 0.0,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) * (weight_init / lr_multiplier))
        start = torch.as_tensor(bias_init, dtype=torch.float32).expand(out_features) / lr_multiplier
        self.bias = nn.Parameter(start.clone()) if bias else None
        self.weight_gain = lr_multiplier / sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sources = (self.weight,) if self.bias is None else (self.weight, self.bias)
        w, b = kept(self, "scaled", sources, x.dtype, lambda: self._scaled(x.dtype))
        if self.activation == "linear" and b is not None:
            return torch.addmm(b[None], x, w.t())
        return bias_act(x @ w.t(), b, act=self.activation)

    def _scaled(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor | None]:
        b = None if self.bias is None else self.bias.to(dtype) * self.bias_gain
        return self.weight.to(dtype) * self.weight_gain, b

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, activation={self.activation}"


def kept_by(layer: nn.Module) -> Kept | None:
    """Where a layer keeps what it computes from its weights; None in training, where nothing would be used twice.

    Made when it is first needed: a layer out of a pickle has never been through its constructor.
    """
    if layer.training or torch.compiler.is_compiling() or layer.__dict__.get("_is_replica"):
        return None  # (a replica of DataParallel shares the attributes of its original, and may be on another device)
    values: Kept | None = layer.__dict__.get("kept")
    if values is None:
        layer.kept = values = Kept()  # type: ignore[assignment]  # nn.Module knows only tensors and modules
    return values


def kept(
    layer: nn.Module, name: str, sources: tuple[torch.Tensor, ...], how: Hashable, compute: Callable[[], Value]
) -> Value:
    """`compute()`, kept by the layer, see `Kept.get`."""
    values = kept_by(layer)
    return compute() if values is None else values.get(name, sources, how, compute)


class Conv2dLayer(nn.Module):
    """Convolution with optional up- or downsampling, bias and activation: [N, I, H, W] -> [N, O, H', W'].

    `trainable=False` keeps weight and bias as buffers, under the same names.
    """

    resample_filter: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        activation: str = "linear",
        up: int = 1,
        down: int = 1,
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
        channels_last: bool = False,
        trainable: bool = True,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.up = up
        self.down = down
        self.conv_clamp = conv_clamp
        self.padding = kernel_size // 2
        self.weight_gain = 1 / sqrt(in_channels * kernel_size**2)
        self.act_gain = ACTIVATIONS[activation].gain
        self.register_buffer("resample_filter", setup_filter(list(resample_filter)))

        layout = torch.channels_last if channels_last else torch.contiguous_format
        weight = torch.randn(out_channels, in_channels, kernel_size, kernel_size).to(memory_format=layout)
        start = torch.zeros(out_channels) if bias else None
        if trainable:
            self.weight = nn.Parameter(weight)
            self.bias = nn.Parameter(start) if start is not None else None
        else:
            self.register_buffer("weight", weight)
            self.register_buffer("bias", start)

    def forward(self, x: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
        w = (self.weight * self.weight_gain).to(x.dtype)
        b = None if self.bias is None else self.bias.to(x.dtype)
        x = conv2d_resample(
            x, w, self.resample_filter, up=self.up, down=self.down, padding=self.padding, flip_weight=self.up == 1
        )
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return bias_act(x, b, act=self.activation, gain=self.act_gain * gain, clamp=clamp)

    def extra_repr(self) -> str:
        o, i, k = self.weight.shape[:3]
        return f"{i} -> {o}, kernel={k}, up={self.up}, down={self.down}, activation={self.activation}"


class BatchNorm2d(nn.BatchNorm2d):
    """torch's, but that it does not count its passes, whose number depends on that of processes and micro-batches.

    At a fixed momentum the count has no effect. The buffer `num_batches_tracked` is there, for whoever trains to set.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.momentum is not None
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )


class MappingNetwork(nn.Module):
    """z (and a label c) -> w (Karras et al. 2019, Section 2).

    `num_ws` is how often w is repeated for the synthesis layers, None to return it once; `w_avg_beta` the decay of the
    running mean of w that truncation pulls towards, None for no such mean; `embed_features` and `layer_features`
    default to w_dim. With z_dim = 0 only the label is mapped (the discriminator's use).
    """

    w_avg: torch.Tensor

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int | None,
        num_layers: int = 8,
        embed_features: int | None = None,
        layer_features: int | None = None,
        activation: str = "lrelu",
        lr_multiplier: float = 0.01,
        w_avg_beta: float | None = 0.998,
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.num_ws = num_ws
        self.num_layers = num_layers
        self.w_avg_beta = w_avg_beta

        embed_features = 0 if c_dim == 0 else embed_features or w_dim
        hidden = layer_features or w_dim
        self.embed = FullyConnectedLayer(c_dim, embed_features) if c_dim > 0 else None
        features = [z_dim + embed_features] + [hidden] * (num_layers - 1) + [w_dim]
        for index, (n_in, n_out) in enumerate(pairwise(features) if num_layers else ()):
            layer = FullyConnectedLayer(n_in, n_out, activation=activation, lr_multiplier=lr_multiplier)
            setattr(self, f"fc{index}", layer)
        if num_ws is not None and w_avg_beta is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: torch.Tensor | None,
        c: torch.Tensor | None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_emas: bool = False,
    ) -> torch.Tensor:
        """z [N, z_dim], c [N, c_dim] or None -> w [N, num_ws, w_dim], or [N, w_dim] if num_ws is None.

        `truncation_psi` interpolates from the mean (0) to the sample (1), in the first `truncation_cutoff` of the ws
        if given. `update_emas` moves the running mean towards this batch's.
        """
        first = self.embed if self.embed is not None else getattr(self, "fc0", None)
        dtype = torch.float32 if first is None else wide(first.weight)
        parts = []
        if self.z_dim > 0:
            if z is None or z.shape[1:] != (self.z_dim,):
                raise ValueError(f"z: got shape {_shape(z)}, expected [N, {self.z_dim}]")
            parts.append(normalize_2nd_moment(z.to(dtype)))
        if self.embed is not None:
            if c is None or c.shape[1:] != (self.c_dim,):
                raise ValueError(f"c: got shape {_shape(c)}, expected [N, {self.c_dim}] (this network takes labels)")
            parts.append(normalize_2nd_moment(self.embed(c.to(dtype))))
        x = torch.cat(parts, dim=1)
        for index in range(self.num_layers):
            x = getattr(self, f"fc{index}")(x)

        if update_emas and self.w_avg_beta is not None:
            update_running_mean(self.w_avg, x.detach().mean(dim=0), self.w_avg_beta)
        if self.num_ws is not None:
            x = x[:, None].repeat(1, self.num_ws, 1)
        if truncation_psi != 1:
            w_avg = self.w_avg.to(x.dtype)
            if self.num_ws is None or truncation_cutoff is None:
                x = w_avg.lerp(x, truncation_psi)
            else:
                near = w_avg.lerp(x[:, :truncation_cutoff], truncation_psi)
                x = torch.cat([near, x[:, truncation_cutoff:]], dim=1)
        return x

    def extra_repr(self) -> str:
        return f"z_dim={self.z_dim}, c_dim={self.c_dim}, w_dim={self.w_dim}, num_ws={self.num_ws}"


def normalize_2nd_moment(x: torch.Tensor) -> torch.Tensor:
    """Scale each row of x [N, F] to a mean square of 1."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


def update_running_mean(mean: torch.Tensor, value: torch.Tensor, beta: float) -> None:
    """mean <- beta * mean + (1 - beta) * value, in place; a value that is not finite is left out, or it would stay."""
    mean.copy_(torch.where(value.isfinite(), value.lerp(mean.to(value.dtype), beta), mean))


HALF_TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
HALF_DEVICES = ("cuda", "meta")  # on a CPU 16 bits would only be slower; on meta one asks what a GPU would do


def working_type(is_half: bool, half_type: str, device: torch.device, half_on_cpu: bool = False) -> torch.dtype:
    """What a layer computes in: 16 bits if it may, and the device is for it or was said to be."""
    is_for_it = device.type in HALF_DEVICES or half_on_cpu
    return HALF_TYPES[half_type] if is_half and is_for_it else torch.float32


def wide(weight: torch.Tensor, otherwise: torch.dtype = torch.float32) -> torch.dtype:
    """What a layer with such weights computes in: float64 if they are, after `network.double()`, else `otherwise`, also
    after `network.half()`."""
    return torch.float64 if weight.dtype == torch.float64 else otherwise


def layout_of(in_half: bool, on_cpu: bool, dtype: torch.dtype, device: torch.device) -> torch.memory_format:
    """How features lie in memory: channels last `in_half` precision, `on_cpu` in any, where oneDNN's convolutions of
    few channels want it."""
    is_half = dtype not in (torch.float32, torch.float64)
    is_last = (in_half and is_half) or (on_cpu and device.type == "cpu")
    return torch.channels_last if is_last else torch.contiguous_format


def set_half_type(network: nn.Module, half_type: str, on_cpu: bool = False) -> None:
    """Choose 'float16', which networks begin with, or 'bfloat16' for the layers that may run in 16 bits, and whether
    they do so on a CPU, too."""
    assert half_type in HALF_TYPES
    for module in network.modules():
        if hasattr(module, "half_type"):
            module.half_type = half_type  # type: ignore[assignment]  # known to be there
            module.half_on_cpu = on_cpu  # type: ignore[assignment]


def count_parameters(module: nn.Module) -> int:
    """Number of trainable scalars."""
    return sum(prod(p.shape) for p in module.parameters())


def _shape(x: torch.Tensor | None) -> str:
    return "None" if x is None else str(list(x.shape))
