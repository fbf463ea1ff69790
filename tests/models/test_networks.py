"""Behaviour of the networks beyond golden: architectures, labels, truncation, equivariance, wrong inputs."""

from __future__ import annotations

import pytest
import torch

from sg3.models import stylegan2, stylegan3
from sg3.models.discriminator import MinibatchStdLayer
from sg3.models.layers import MappingNetwork

TINY3 = {"channel_base": 256, "channel_max": 8, "num_layers": 4}
TINY2 = {"channel_base": 256, "channel_max": 8}


def tiny_sg3(resolution: int = 16, c_dim: int = 0, **kwargs) -> stylegan3.Generator:
    return stylegan3.Generator(8, c_dim, 8, resolution, 3, **{**TINY3, **kwargs})


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_stylegan2_architectures(architecture: str) -> None:
    G = stylegan2.Generator(8, 0, 8, 16, 3, architecture=architecture, **TINY2)
    D = stylegan2.Discriminator(0, 16, 3, architecture=architecture, **TINY2)
    img = G(torch.randn(4, 8))
    assert img.shape == (4, 3, 16, 16)
    assert G.num_ws == 2 * 4 - 2
    D(img).sum().backward()
    for module in (G, D):
        unused = [name for name, p in module.named_parameters() if p.grad is None]
        assert unused == []


def test_stylegan2_names_follow_the_architecture() -> None:
    def names(**kwargs) -> set[str]:
        G = stylegan2.Generator(8, 0, 8, 16, 3, **TINY2, **kwargs)
        return {name.rsplit(".", 2)[0] for name, _ in G.named_parameters()}

    assert "synthesis.b8.torgb" in names(architecture="skip")
    assert "synthesis.b8.torgb" not in names(architecture="orig")
    assert "synthesis.b16.torgb" in names(architecture="orig")
    D = stylegan2.Discriminator(0, 16, 3, architecture="skip", **TINY2)
    assert {"b16.fromrgb.weight", "b8.fromrgb.weight", "b4.fromrgb.weight"} <= set(D.state_dict())


def test_noise_modes() -> None:
    G = stylegan2.Generator(8, 0, 8, 16, 3, **TINY2)
    for name, p in G.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.ones_(p)
    z = torch.randn(1, 8)
    with torch.no_grad():
        assert torch.equal(G(z, noise_mode="const"), G(z, noise_mode="const"))
        assert not torch.equal(G(z, noise_mode="random"), G(z, noise_mode="random"))
        assert not torch.equal(G(z, noise_mode="none"), G(z, noise_mode="const"))
        with pytest.raises(ValueError, match="noise_mode: got 'off'"):
            G(z, noise_mode="off")
        with pytest.raises(ValueError, match="noise_mode: got 'off'"):
            tiny_sg3()(z, noise_mode="off")


def test_labels_change_the_image_and_are_required() -> None:
    for G in (tiny_sg3(c_dim=3), stylegan2.Generator(8, 3, 8, 16, 3, **TINY2)):
        z, c = torch.randn(2, 8), torch.eye(3)[:2]
        with torch.no_grad():
            assert not torch.allclose(G(z, c, noise_mode="const"), G(z, c.flip(0), noise_mode="const"))
        with pytest.raises(ValueError, match=r"c: got shape None, expected \[N, 3\]"):
            G(z)
        with pytest.raises(ValueError, match=r"z: got shape \[2, 7\], expected \[N, 8\]"):
            G(z[:, :7], c)
    D = stylegan2.Discriminator(3, 16, 3, **TINY2)
    img = torch.randn(4, 3, 16, 16)
    assert not torch.allclose(D(img, torch.eye(3)[[0] * 4]), D(img, torch.eye(3)[[1] * 4]))


def test_truncation_and_running_mean() -> None:
    m = MappingNetwork(8, 0, 8, num_ws=5, num_layers=2, w_avg_beta=0.9)
    z = torch.randn(64, 8)
    w = m(z, None, update_emas=True)
    torch.testing.assert_close(m.w_avg, w[:, 0].mean(dim=0) * 0.1, atol=1e-6, rtol=1e-5)
    m.w_avg.copy_(torch.ones(8))
    half = m(z, None, truncation_psi=0.5, truncation_cutoff=2)
    torch.testing.assert_close(half[:, :2], 1 + (w[:, :2] - 1) * 0.5)
    assert torch.equal(half[:, 2:], w[:, 2:])
    assert torch.equal(m(z, None, truncation_psi=0)[3, 4], m.w_avg)


def test_magnitude_ema_normalises_the_input() -> None:
    G = tiny_sg3(magnitude_ema_beta=0.0)
    layer = getattr(G.synthesis, G.synthesis.layer_names[0])
    x, w = torch.randn(2, 8, layer.spec.in_size, layer.spec.in_size) * 7, torch.randn(2, 8)
    layer(x, w, update_emas=True)
    torch.testing.assert_close(layer.magnitude_ema, x.square().mean())
    torch.testing.assert_close(layer(x, w), layer(x, w, update_emas=True))


@pytest.mark.parametrize("kwargs", [{}, {"conv_kernel": 1, "use_radial_filters": True}], ids=["t", "r"])
@torch.no_grad()
def test_input_transform_translates_the_image(kwargs) -> None:
    """The point of StyleGAN3: moving the Fourier features by a pixel moves the whole image by a pixel."""
    G = tiny_sg3(resolution=32, **kwargs)
    z = torch.randn(1, 8)
    still = G(z)
    G.synthesis.input.transform[0, 2] = -4 / 32  # inverse of 4 pixels to the right
    moved = G(z)
    inside = slice(6, 26)
    error = (moved[:, :, :, 10:26] - still[:, :, :, 6:22])[:, :, inside].square().mean().sqrt()
    assert float(error) < 1e-5 * float(still.std())
    unmoved = (moved - still)[:, :, inside, 10:26].square().mean().sqrt()
    assert float(unmoved) > 0.15 * float(still.std())


def test_minibatch_std_groups_are_strided() -> None:
    x = torch.zeros(4, 2, 1, 1)
    x[0], x[2] = 1.0, -1.0  # one group of stride 2; the other holds zeros
    y = MinibatchStdLayer(group_size=2)(x)
    assert y.shape == (4, 3, 1, 1)
    torch.testing.assert_close(y[:, 2, 0, 0], torch.tensor([1.0, 1e-4, 1.0, 1e-4]))
    with pytest.raises(ValueError, match="batch of 5, expected a multiple of the minibatch-std group size 4"):
        MinibatchStdLayer(4)(torch.zeros(5, 2, 1, 1))


def test_frozen_layers_are_buffers_under_the_same_names() -> None:
    free = stylegan2.Discriminator(0, 16, 3, **TINY2)
    frozen = stylegan2.Discriminator(0, 16, 3, block_kwargs={"freeze_layers": 3}, **TINY2)
    assert set(free.state_dict()) == set(frozen.state_dict())
    fixed = {n for n, _ in free.named_parameters()} - {n for n, _ in frozen.named_parameters()}
    assert {n.rsplit(".", 1)[0] for n in fixed} == {"b16.fromrgb", "b16.conv0", "b16.conv1"}


def test_wrong_shapes_are_named() -> None:
    G, D = tiny_sg3(), stylegan2.Discriminator(0, 16, 3, **TINY2)
    with pytest.raises(ValueError, match=r"ws: got shape \[1, 5, 8\], expected \[N, 6, 8\]"):
        G.synthesis(torch.zeros(1, 5, 8))
    with pytest.raises(ValueError, match=r"img: got shape \[1, 3, 8, 8\], expected \[N, 3, 16, 16\]"):
        D(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="img_resolution: got 24"):
        stylegan2.Discriminator(0, 24, 3)
    with pytest.raises(ValueError, match="architecture: got 'unet'"):
        stylegan2.Generator(8, 0, 8, 16, 3, architecture="unet")


def test_construction_is_recorded() -> None:
    G = tiny_sg3(c_dim=2)
    again = stylegan3.Generator(**G.init_kwargs)
    again.load_state_dict(G.state_dict())
    z, c = torch.randn(2, 8), torch.eye(2)
    with torch.no_grad():
        assert torch.equal(G(z, c), again(z, c))
