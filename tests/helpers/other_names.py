"""State dicts as other StyleGAN implementations name them, from networks of sg3, written out weight by weight."""

from __future__ import annotations

import torch
from torch import nn

from sg3.models import stylegan2

State = dict[str, torch.Tensor]


def generator(conv_clamp: float | None = None, c_dim: int = 0) -> stylegan2.Generator:
    """StyleGAN2 at 16 x 16 with channels that tell apart where they belong, all tensors random."""
    network = stylegan2.Generator(
        z_dim=8, c_dim=c_dim, w_dim=8, img_resolution=16, img_channels=3, mapping_kwargs={"num_layers": 3},
        channel_base=96, channel_max=10, conv_clamp=conv_clamp, num_fp16_res=0,
    )  # fmt: skip
    return randomized(network)


def discriminator() -> stylegan2.Discriminator:
    network = stylegan2.Discriminator(
        c_dim=0, img_resolution=16, img_channels=3, channel_base=96, channel_max=10, conv_clamp=None, num_fp16_res=0
    )
    return randomized(network)


def randomized(network):
    """The network with every weight, noise and mean random; filters stay."""
    rng = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if "filter" not in name and "magnitude" not in name and "transform" not in name:
                scale = 100.0 if name.startswith("mapping.fc") else 1.0
                tensor.copy_(torch.randn(tensor.shape, generator=rng) * scale)
    return network.eval().requires_grad_(False)


def rosinality_generator(G: stylegan2.Generator) -> State:
    s, out = G.state_dict(), {}
    for i in range(3):
        out[f"style.{i + 1}.weight"] = s[f"mapping.fc{i}.weight"]
        out[f"style.{i + 1}.bias"] = s[f"mapping.fc{i}.bias"]
    out["input.input"] = s["synthesis.b4.const"][None]
    places = {"b4.conv1": "conv1", "b8.conv0": "convs.0", "b8.conv1": "convs.1", "b16.conv0": "convs.2"}
    places["b16.conv1"] = "convs.3"
    for k, (ours, theirs) in enumerate(places.items()):
        out[f"{theirs}.conv.weight"] = s[f"synthesis.{ours}.weight"][None]
        out[f"{theirs}.conv.modulation.weight"] = s[f"synthesis.{ours}.affine.weight"]
        out[f"{theirs}.conv.modulation.bias"] = s[f"synthesis.{ours}.affine.bias"]
        out[f"{theirs}.noise.weight"] = s[f"synthesis.{ours}.noise_strength"].reshape(1)
        out[f"{theirs}.activate.bias"] = s[f"synthesis.{ours}.bias"]
        out[f"noises.noise_{k}"] = s[f"synthesis.{ours}.noise_const"][None, None]
    kernel = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = torch.outer(kernel, kernel) / 64 * 4
    for k in (0, 2):
        out[f"convs.{k}.conv.blur.kernel"] = kernel.clone()
    for ours, theirs in {"b4": "to_rgb1", "b8": "to_rgbs.0", "b16": "to_rgbs.1"}.items():
        out[f"{theirs}.conv.weight"] = s[f"synthesis.{ours}.torgb.weight"][None]
        out[f"{theirs}.conv.modulation.weight"] = s[f"synthesis.{ours}.torgb.affine.weight"]
        out[f"{theirs}.conv.modulation.bias"] = s[f"synthesis.{ours}.torgb.affine.bias"]
        out[f"{theirs}.bias"] = s[f"synthesis.{ours}.torgb.bias"].reshape(1, 3, 1, 1)
        if theirs != "to_rgb1":
            out[f"{theirs}.upsample.kernel"] = kernel.clone()
    return {name: tensor.clone() for name, tensor in out.items()}


def rosinality_discriminator(D: stylegan2.Discriminator) -> State:
    s, out = D.state_dict(), {}
    kernel = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = torch.outer(kernel, kernel) / 64
    out["convs.0.0.weight"], out["convs.0.1.bias"] = s["b16.fromrgb.weight"], s["b16.fromrgb.bias"]
    for i, block in {1: "b16", 2: "b8"}.items():
        out[f"convs.{i}.conv1.0.weight"] = s[f"{block}.conv0.weight"]
        out[f"convs.{i}.conv1.1.bias"] = s[f"{block}.conv0.bias"]
        out[f"convs.{i}.conv2.1.weight"] = s[f"{block}.conv1.weight"]
        out[f"convs.{i}.conv2.2.bias"] = s[f"{block}.conv1.bias"]
        out[f"convs.{i}.skip.1.weight"] = s[f"{block}.skip.weight"]
        out[f"convs.{i}.conv2.0.kernel"], out[f"convs.{i}.skip.0.kernel"] = kernel.clone(), kernel.clone()
    out["final_conv.0.weight"], out["final_conv.1.bias"] = s["b4.conv.weight"], s["b4.conv.bias"]
    for k, layer in enumerate(("fc", "out")):
        out[f"final_linear.{k}.weight"], out[f"final_linear.{k}.bias"] = s[f"b4.{layer}.weight"], s[f"b4.{layer}.bias"]
    return {name: tensor.clone() for name, tensor in out.items()}


def mmagic_generator(G: stylegan2.Generator) -> State:
    """mmagic's names, from rosinality's: only the last parts differ. Blur kernels lie elsewhere."""
    out = {}
    for name, tensor in rosinality_generator(G).items():
        if name.startswith("style."):
            changed = name.replace("style.", "style_mapping.").replace(".weight", ".linear.weight_orig")
        elif name.startswith("noises."):
            changed = name.replace("noises.noise_", "injected_noise_")
        else:
            changed = name.replace("input.input", "constant_input.input")
            changed = changed.replace("noise.weight", "noise_injector.weight")
            changed = changed.replace("modulation.weight", "modulation.linear.weight_orig")
            changed = changed.replace("modulation", "style_modulation").replace("conv.weight", "conv.weight_orig")
        out[changed] = tensor
    return out


def mmagic_discriminator(D: stylegan2.Discriminator) -> State:
    out = {}
    for name, tensor in rosinality_discriminator(D).items():
        dense = name.startswith("final_linear")
        out[name.replace("weight", "linear.weight_orig" if dense else "conv.weight_orig")] = tensor
    return out


def mmagic_stylegan3(G: nn.Module) -> State:
    names = {name: name.replace("mapping.", "style_mapping.") for name in G.state_dict()}
    return {names[name]: tensor.clone() for name, tensor in G.state_dict().items()}
