"""Layers in 16 bits, which on a CPU no network uses by itself: here they are made to."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sg3.models import discriminator, stylegan2, stylegan3
from sg3.models.layers import HALF_TYPES, set_half_type

SIZES = {"channel_base": 256, "channel_max": 16, "num_fp16_res": 2, "conv_clamp": 256.0}


@pytest.fixture(params=["float16", "bfloat16"])
def half(request, monkeypatch) -> str:
    """The type, in which layers that may compute from now on."""

    def anywhere(is_half: bool, half_type: str, *_: object) -> torch.dtype:
        return HALF_TYPES[half_type] if is_half else torch.float32

    for module in (discriminator, stylegan2, stylegan3):
        monkeypatch.setattr(module, "working_type", anywhere)
    return request.param


def seen_by_convolutions(monkeypatch) -> list[torch.Tensor]:
    """What torch's convolutions, but those of resampling, get for images, as it comes."""
    inputs: list[torch.Tensor] = []
    plain = F.conv2d

    def conv2d(x: torch.Tensor, w: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        if w.shape[1] > 1:
            inputs.append(x)
        return plain(x, w, *args, **kwargs)

    monkeypatch.setattr(F, "conv2d", conv2d)
    return inputs


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("architecture", ["resnet", "skip", "orig"])
def test_discriminator(monkeypatch, half: str, architecture: str, last: bool) -> None:
    """Close to float32, differentiable twice, and with fp16_channels_last in that format from the first layer on."""
    torch.manual_seed(0)
    D = stylegan2.Discriminator(0, 32, 3, architecture, block_kwargs={"fp16_channels_last": last}, **SIZES)
    set_half_type(D, half)
    img = torch.randn(4, 3, 32, 32, requires_grad=True)
    exact = D(img, None, force_fp32=True)
    inputs = seen_by_convolutions(monkeypatch)
    logits = D(img, None)
    kinds = [x for x in inputs if x.dtype == HALF_TYPES[half]]
    assert len(kinds) >= 4
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in kinds) or not last
    assert all(x.is_contiguous() for x in kinds) or last
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, exact, rtol=0.05, atol=0.05)
    (grad,) = torch.autograd.grad(logits.sum(), img, create_graph=True)
    grad.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for n, p in D.named_parameters() if n.endswith("weight"))
    assert D.b32.conv0.weight.is_contiguous(memory_format=torch.channels_last) == last


@pytest.mark.parametrize("resolutions", [0, 2], ids=["fp32", "partial"])
def test_channels_last_on_a_cpu_in_float32(monkeypatch, resolutions: int) -> None:
    """fp16_channels_last holds for all blocks there, values and gradients stay the same but for rounding."""
    torch.manual_seed(0)
    sizes = {**SIZES, "num_fp16_res": resolutions}
    G = stylegan2.Generator(8, 0, 8, 32, 3, **sizes)
    D = stylegan2.Discriminator(0, 32, 3, **sizes)
    last_G = stylegan2.Generator(8, 0, 8, 32, 3, fp16_channels_last=True, **sizes)
    last_D = stylegan2.Discriminator(0, 32, 3, block_kwargs={"fp16_channels_last": True}, **sizes)
    last_G.load_state_dict(G.state_dict())
    last_D.load_state_dict(D.state_dict())
    z = torch.randn(4, 8)

    def run(G: torch.nn.Module, D: torch.nn.Module) -> list[torch.Tensor]:
        img = G(z, noise_mode="const")
        logits = D(img, None)
        (grad,) = torch.autograd.grad(logits.sum(), img, create_graph=True)
        weights = [G.synthesis.b8.conv0.weight, G.synthesis.b32.conv1.weight, D.b32.conv0.weight, D.b8.conv1.weight]
        return [img, logits, *torch.autograd.grad(grad.square().sum() + logits.sum(), weights)]

    expected = run(G, D)
    inputs = seen_by_convolutions(monkeypatch)
    found = run(last_G, last_D)
    blocks = [x for x in inputs if x.shape[2] > 4]
    assert len(blocks) >= 10
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in blocks)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5 * float(one.detach().abs().max()))


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
def test_stylegan2(monkeypatch, half: str, last: bool) -> None:
    torch.manual_seed(0)
    G = stylegan2.Generator(8, 0, 8, 32, 3, fp16_channels_last=last, **SIZES)
    set_half_type(G, half)
    z = torch.randn(2, 8)
    exact = G(z, noise_mode="const", force_fp32=True)
    inputs = seen_by_convolutions(monkeypatch)
    img = G(z, noise_mode="const")
    kinds = [x for x in inputs if x.dtype == HALF_TYPES[half]]
    assert kinds
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in kinds) or not last
    assert img.dtype == torch.float32
    torch.testing.assert_close(img, exact, rtol=0.05, atol=0.05)
    img.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in G.parameters())


@pytest.mark.parametrize("rotation", [False, True], ids=["t", "r"])
def test_stylegan3(half: str, rotation: bool) -> None:
    torch.manual_seed(0)
    kernel = {"conv_kernel": 1, "use_radial_filters": True} if rotation else {}
    G = stylegan3.Generator(8, 0, 8, 32, 3, num_layers=5, margin_size=4, **kernel, **SIZES)
    set_half_type(G, half)
    z = torch.randn(2, 8)
    exact = G(z, force_fp32=True)
    img = G(z)
    assert img.dtype == torch.float32
    assert not torch.equal(img, exact)
    torch.testing.assert_close(img, exact, rtol=0.05, atol=0.05)
    img.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in G.parameters())
