"""A generator and a discriminator made of every op, in the manner of the official networks."""

import numpy as np
import torch
from torch_utils import misc, persistence
from torch_utils.ops import bias_act, conv2d_gradfix, conv2d_resample, filtered_lrelu, fma, upfirdn2d


@persistence.persistent_class
class Layer(torch.nn.Module):
    def __init__(self, channels, up):
        super().__init__()
        self.up = up
        self.weight = torch.nn.Parameter(torch.randn(channels, channels, 3, 3) / np.sqrt(channels * 9))
        self.bias = torch.nn.Parameter(torch.zeros(channels))
        self.register_buffer("taps", upfirdn2d.setup_filter([1, 3, 3, 1] * 2, separable=True))

    def forward(self, x, scale):
        x = conv2d_gradfix.conv2d(input=x, weight=self.weight, padding=1)
        x = fma.fma(x, scale, torch.zeros_like(x[:1]))
        size = x.shape[2] * self.up
        x = filtered_lrelu.filtered_lrelu(
            x=x, fu=self.taps, fd=self.taps, b=self.bias, up=2 * self.up, down=2, padding=[7, 7, 7, 7],
            gain=np.sqrt(2), slope=0.2, clamp=256,
        )  # fmt: skip
        misc.assert_shape(x, [None or x.shape[0], x.shape[1], size, size])
        return x


@persistence.persistent_class
class Generator(torch.nn.Module):
    def __init__(self, z_dim, channels):
        super().__init__()
        self.z_dim = z_dim
        self.fc = torch.nn.Linear(z_dim, channels)
        self.const = torch.nn.Parameter(torch.randn(channels, 8, 8))
        self.layer = Layer(channels, up=2)
        self.rgb = torch.nn.Parameter(torch.randn(3, channels, 1, 1))

    def forward(self, z):
        w = bias_act.bias_act(self.fc(z), act="lrelu")
        x = self.layer(self.const.expand(z.shape[0], -1, -1, -1), w[:, :, None, None])
        return conv2d_resample.conv2d_resample(x=x, w=self.rgb)


@persistence.persistent_class
class Discriminator(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(channels, 3, 3, 3) * 0.2)
        self.bias = torch.nn.Parameter(torch.zeros(channels))
        self.register_buffer("taps", upfirdn2d.setup_filter([1, 3, 3, 1]))

    def forward(self, img):
        x = conv2d_resample.conv2d_resample(img, self.weight, f=self.taps, down=2, padding=1)
        return bias_act.bias_act(x, self.bias, act="lrelu", gain=bias_act.activation_funcs["lrelu"].def_gain).mean(
            [1, 2, 3]
        )
