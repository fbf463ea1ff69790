"""Networks for images that are not square: kin to a square network, whose names, shapes and weights they share."""

from __future__ import annotations

import pytest
import torch

from sg3 import canvas
from sg3.metrics import compute, parse
from sg3.models import stylegan2, stylegan3

TINY2 = {"channel_base": 256, "channel_max": 8}
R = {"conv_kernel": 1, "use_radial_filters": True}


def sg3_network(img_size=None, resolution: int = 64, **kwargs) -> stylegan3.Generator:
    shape = {"channel_base": 512, "channel_max": 16, "num_layers": 8, "mapping_kwargs": {"num_layers": 1}}
    torch.manual_seed(3)
    return stylegan3.Generator(16, 0, 16, resolution, 3, img_size=img_size, **{**shape, **kwargs}).eval()


def shapes(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def differing(one: torch.nn.Module, other: torch.nn.Module) -> set[str]:
    a, b = shapes(one), shapes(other)
    assert a.keys() == b.keys()
    return {name for name in a if a[name] != b[name]}


@pytest.mark.parametrize(("size", "rate", "constant", "nominal"), [
    ((512, 512), 512, (4, 4), 512), ((384, 512), 512, (3, 4), 512), ((384, 640), 512, (3, 5), 512),
    ((144, 256), 256, (9, 16), 64), ((1088, 1920), 1024, (17, 30), 256), ((24, 32), 32, (3, 4), 32),
    ((48, 48), 64, (3, 3), 64), ((16, 16), 16, (4, 4), 16), ((720, 1280), None, (45, 80), 64),
])  # fmt: skip
def test_what_a_size_means(size, rate, constant, nominal) -> None:
    assert (canvas.sampling_rate(size), canvas.constant(size), canvas.nominal(size)) == (rate, constant, nominal)
    assert canvas.is_possible(size) == (rate is not None)


def test_the_nearest_possible_size_is_possible() -> None:
    for height in range(1, 700, 17):
        for width in range(1, 700, 13):
            near = canvas.nearest_possible((height, width))
            assert canvas.is_possible(near)
            assert not canvas.is_possible((height, width)) or near == (height, width)
    assert canvas.nearest_possible((720, 1280)) == (768, 1280)
    assert canvas.nearest_possible((390, 370)) == (384, 384)
    assert canvas.nearest_possible((300, 300)) == (320, 320)
    assert not any(map(canvas.is_possible, [(40, 30), (12, 16), (8, 8), (384, 500), (300, 300), (18, 18)]))


def test_what_a_size_must_be_is_what_is_said() -> None:
    """Every side from 16 on a multiple of a step that grows with the image, or else the reason names that step."""
    for height in range(14, 600, 7):
        for width in (height, height + 2, 2 * height, 48, 320):
            words = canvas.obstacle((height, width))
            if words is not None and "multiples" in words:
                step = int(words.split("multiples of ")[1].split()[0])
                assert height % step or width % step
            assert (words is None) == canvas.is_possible((height, width))
    step = "StyleGAN2 and 3 want sides that are multiples of 32 pixels at about this size"
    assert canvas.obstacle((720, 1280)) == step
    assert canvas.obstacle((12, 64)) == "StyleGAN2 and 3 want sides of at least 16 pixels"


@pytest.mark.parametrize("kwargs", [{}, R], ids=["t", "r"])
def test_stylegan3_sizes_of_512_by_384(kwargs) -> None:
    few = {"channel_base": 1024, "channel_max": 4}
    G, square = (stylegan3.Generator(4, 0, 4, 512, 3, img_size=s, **few, **kwargs) for s in ((384, 512), None))
    layers = [getattr(G.synthesis, name) for name in G.synthesis.layer_names]
    widths = [36, 36, 52, 52, 84, 84, 148, 148, 276, 276, 532, 532, 532, 512]  # into the second layer and so on
    heights = [32, 32, 44, 44, 68, 68, 116, 116, 212, 212, 404, 404, 404, 384]
    assert G.synthesis.input.shape == (32, 36)
    assert [layer.in_shape for layer in layers[1:]] == list(zip(heights, widths, strict=True))
    assert [layer.padding for layer in layers] == [
        getattr(square.synthesis, name).padding for name in square.synthesis.layer_names
    ]
    assert differing(G, square) == set()
    assert (G.img_size, G.num_ws) == ((384, 512), square.num_ws)


@pytest.mark.parametrize("size", [(48, 64), (36, 64), (80, 48), (64, 96)])
@pytest.mark.parametrize("kwargs", [{}, R], ids=["t", "r"])
@torch.no_grad()
def test_stylegan3_draws_the_same_plane_on_any_canvas(size, kwargs) -> None:
    """The weights of the square network, and what both canvases show is the same but for their borders."""
    square, G = sg3_network(**kwargs), sg3_network(size, **kwargs)
    square(torch.randn(2, 16), update_emas=True)
    G.load_state_dict(square.state_dict())
    z = torch.randn(2, 16)
    a, b = square(z), G(z)
    assert b.shape == (2, 3, *size)
    away = 8  # pixels from any border
    h, w = (min(64, side) - 2 * away for side in size)
    middle = [
        image[:, :, (image.shape[2] - h) // 2 :, (image.shape[3] - w) // 2 :][:, :, :h, :w] for image in (a, b)
    ]
    worst = float((middle[0] - middle[1]).abs().max() / middle[0].std())
    assert worst < 1e-3


def equivariances(G: stylegan3.Generator) -> list[float]:
    for _ in range(20):
        G(torch.randn(2, 16), update_emas=True)
    G.synthesis.output_scale /= float(torch.cat([G(torch.randn(4, 16)) for _ in range(4)]).std())
    names = ("eqt16_int", "eqt16_frac", "eqr16")
    results = compute([parse(name) for name in names], G, device="cpu")
    return [result.results[result.metric.name] for result in results]


@pytest.mark.slow
@torch.no_grad()
def test_rectangles_stay_equivariant() -> None:
    """EQ-T and EQ-R of random weights, within 3 dB of the square network's; T's EQ-R is low on both."""
    for kwargs in ({}, R):
        square, wide = (equivariances(sg3_network(size, **kwargs)) for size in (None, (48, 64)))
        assert min(square[:2]) > 50
        for a, b in zip(square[: 2 if not kwargs else 3], wide, strict=False):
            assert abs(a - b) < 3


@pytest.mark.parametrize("size", [(384, 512), (24, 32), (40, 24)])
def test_stylegan2_differs_in_constant_and_noise_alone(size) -> None:
    nominal, start = canvas.nominal(size), canvas.constant(size)
    few = {"channel_base": 512, "channel_max": 8}
    G, square = (stylegan2.Generator(8, 0, 8, nominal, 3, img_size=s, **few) for s in (size, None))
    D, square_D = (stylegan2.Discriminator(0, nominal, 3, img_size=s, **few) for s in (size, None))
    with torch.no_grad():
        images = G(torch.randn(2, 8))
        assert images.shape == (2, 3, *size)
        assert D(images).shape == (2, 1)
    noise = {name for name in shapes(G) if name.endswith("noise_const")}
    assert differing(G, square) == noise | {"synthesis.b4.const"}
    assert differing(D, square_D) == {"b4.fc.weight"}
    assert G.get_parameter("synthesis.b4.const").shape[1:] == start
    assert D.get_parameter("b4.fc.weight").shape[1] == 8 * start[0] * start[1]


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_stylegan2_architectures_and_noise(architecture) -> None:
    G = stylegan2.Generator(8, 0, 8, 32, 3, img_size=(24, 32), architecture=architecture, **TINY2)
    D = stylegan2.Discriminator(0, 32, 3, img_size=(24, 32), architecture=architecture, **TINY2)
    for layer in G.modules():
        if isinstance(layer, stylegan2.SynthesisLayer):
            torch.nn.init.ones_(layer.noise_strength)
    z = torch.randn(4, 8)
    fixed = G(z, noise_mode="const")
    assert torch.equal(fixed, G(z, noise_mode="const"))
    assert not torch.allclose(G(z), fixed)
    images = G(z).requires_grad_(True)
    (slope,) = torch.autograd.grad(D(images).sum(), images, create_graph=True)
    slope.square().sum().backward()
    assert all(p.grad is not None for p in D.parameters() if p.requires_grad and p.ndim == 4)
    with pytest.raises(ValueError, match=r"img: got shape \[4, 3, 32, 32\], expected \[N, 3, 24, 32\]"):
        D(torch.zeros(4, 3, 32, 32))


@pytest.mark.parametrize("make", [
    lambda **size: stylegan3.Generator(8, 0, 8, 32, 3, channel_base=64, channel_max=4, **size),
    lambda **size: stylegan2.Generator(8, 0, 8, 32, 3, **TINY2, **size),
    lambda **size: stylegan2.Discriminator(0, 32, 3, **TINY2, **size),
], ids=["stylegan3", "stylegan2", "discriminator"])  # fmt: skip
def test_a_square_said_in_full_is_the_square(make) -> None:
    torch.manual_seed(0)
    plain = make()
    torch.manual_seed(0)
    said = make(img_size=[32, 32])
    assert said.init_kwargs == plain.init_kwargs
    assert "img_size" not in said.init_kwargs
    assert said.img_size == plain.img_size == (32, 32)
    assert not canvas.is_canvas(said)
    assert all(torch.equal(a, b) for a, b in zip(said.state_dict().values(), plain.state_dict().values(), strict=True))
    wide = make(img_size=(24, 32))
    assert wide.init_kwargs["img_size"] == [24, 32]
    assert canvas.is_canvas(wide)
    for wrong in ((24,), (24, 32, 3), "24x32", (24.0, 32), (True, 32), (0, 32)):
        with pytest.raises(ValueError, match=r"img_size: got .*, expected height and width"):
            make(img_size=wrong)
    with pytest.raises(ValueError, match=r"img_size: got .*, expected multiples of"):
        make(img_size=(23, 31))
