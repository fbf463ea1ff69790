"""Whole networks on the Triton kernels (interpreted): images, losses and gradients of gradients are the reference's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sg3.models import stylegan2, stylegan3

T: dict[str, Any] = {"channel_base": 128, "channel_max": 8, "num_layers": 4, "margin_size": 4}
R: dict[str, Any] = {**T, "conv_kernel": 1, "use_radial_filters": True}


def everything(G: torch.nn.Module, D: torch.nn.Module, z: torch.Tensor, real: torch.Tensor) -> list[torch.Tensor]:
    """Image, path length, R1, and the gradients of all their sum for the parameters of both networks."""
    ws = G.mapping(z, None)
    img = G.synthesis(ws, noise_mode="const")
    (slope,) = torch.autograd.grad((img * real).sum(), ws, create_graph=True)
    x = real.detach().requires_grad_()
    (penalty,) = torch.autograd.grad(D(x, None).sum(), x, create_graph=True)
    loss = slope.square().sum() + penalty.square().sum() + D(img, None).sum()
    parameters = [*G.parameters(), *D.parameters()]
    return [img, slope, penalty, *torch.autograd.grad(loss, parameters, materialize_grads=True, allow_unused=True)]


SLOW = (pytest.mark.slow, pytest.mark.timeout(3600))  # 10 minutes were not enough beside others


@pytest.mark.parametrize(
    "name", ["stylegan2", pytest.param("stylegan3-t", marks=SLOW), pytest.param("stylegan3-r", marks=SLOW)]
)
def test_networks_on_triton(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "stylegan2":
        G: torch.nn.Module = stylegan2.Generator(8, 0, 8, 8, 3, channel_base=64, channel_max=8)
    else:
        G = stylegan3.Generator(8, 0, 8, 16, 3, **(R if name == "stylegan3-r" else T))
    size = 8 if name == "stylegan2" else 16
    D = stylegan2.Discriminator(0, size, 3, channel_base=64, channel_max=8)
    z, real = torch.randn(2, 8), torch.randn(2, 3, size, size)
    results = []
    for impl in ("ref", "triton"):
        monkeypatch.setenv("SG3_IMPL", impl)
        results.append(everything(G, D, z, real))
    for ours, plain in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=2e-5 * float(plain.detach().abs().max()) + 1e-9)
