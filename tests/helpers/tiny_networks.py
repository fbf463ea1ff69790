"""Networks small enough to save and load hundreds of times."""

from __future__ import annotations

import torch
from torch import nn

import sg3
from sg3.models import stylegan2, stylegan3


def stylegan3_generator(radial: bool = False) -> nn.Module:
    return stylegan3.Generator(
        z_dim=6, c_dim=0, w_dim=7, img_resolution=16, img_channels=3, mapping_kwargs={"num_layers": 1},
        channel_base=64, channel_max=6, num_layers=4, num_critical=2,
        conv_kernel=1 if radial else 3, use_radial_filters=radial,
    )  # fmt: skip


def stylegan2_generator() -> nn.Module:
    return stylegan2.Generator(
        z_dim=6, c_dim=3, w_dim=7, img_resolution=8, img_channels=3, mapping_kwargs={"num_layers": 2},
        channel_base=64, channel_max=6, conv_clamp=None, resample_filter=(1, 2, 1),
    )  # fmt: skip


def discriminator(c_dim: int = 3) -> nn.Module:
    return stylegan2.Discriminator(
        c_dim=c_dim, img_resolution=8, img_channels=3, channel_base=64, channel_max=6,
        block_kwargs={"freeze_layers": 2}, epilogue_kwargs={"mbstd_group_size": 2},
    )  # fmt: skip


def snapshot(generator: nn.Module) -> sg3.Snapshot:
    """A snapshot as training writes it, all tensors random: three networks and the data they were trained on."""
    networks = generator, discriminator(), stylegan2_generator()
    with torch.no_grad():
        for network in networks:
            for tensor in network.state_dict().values():
                tensor.copy_(torch.rand_like(tensor) + 0.1)
    data = {"class_name": "training.dataset.ImageFolderDataset", "path": "a.zip", "max_size": None, "xflip": True}
    return sg3.Snapshot(G=networks[0], D=networks[1], G_ema=networks[2], training_set_kwargs=data)


def image(generator: nn.Module, count: int = 1) -> torch.Tensor:
    """What the generator makes of fixed latents and labels."""
    rng = torch.Generator().manual_seed(1)
    z = torch.randn(count, generator.z_dim, generator=rng)
    c = torch.eye(generator.c_dim)[:count] if generator.c_dim else torch.zeros(count, 0)
    with torch.no_grad():
        return generator(z, c, noise_mode="const")


def generator3(seed: int = 0) -> nn.Module:
    """StyleGAN3, 16 px, no labels."""
    torch.manual_seed(seed)
    return stylegan3_generator().eval().requires_grad_(False)


def generator2(seed: int = 0) -> nn.Module:
    """StyleGAN2, 8 px, 3 classes, with strong noise in its layers."""
    torch.manual_seed(seed)
    G = stylegan2_generator().eval().requires_grad_(False)
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.5)
    return G


GENERATORS = {
    "t": stylegan3_generator,
    "r": lambda: stylegan3_generator(radial=True),
    "sg2": stylegan2_generator,
}
