"""The roofline model against numbers worked out by hand and against the networks."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from bench import roofline
from bench.roofline import Cost, Device
from bench.shapes import NETWORKS, Layer, blocks, layers, representative
from sg3.kernels import filtered_lrelu
from sg3.models.stylegan3 import SynthesisNetwork


def layer(title: str) -> Layer:
    network, _, name = title.partition("/")
    return next(x for x in layers(network) if x.name == name)


def test_shapes_are_the_networks_own() -> None:
    net = SynthesisNetwork(8, 256, 3, channel_base=65536, channel_max=1024, conv_kernel=1, use_radial_filters=True)
    assert [x.name for x in layers("r-256")] == net.layer_names
    for x in layers("r-256"):
        own = net.get_submodule(x.name)
        assert (x.up, x.down, x.up_taps, x.down_taps) == (
            own.up_factor, own.down_factor, own.up_taps, own.down_taps
        )  # fmt: skip
        for ours, filter in zip(x.filters(), (own.up_filter, own.down_filter), strict=True):
            assert (ours is None) == (filter is None)
            assert ours is None or torch.equal(ours, filter)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_op_makes_these_sizes(network: str) -> None:
    for x in layers(network):
        fu, fd = x.filters()
        y = filtered_lrelu(
            torch.empty(1, 1, x.conv_size, x.conv_size, device="meta"), *(None if f is None else f.to("meta")
            for f in (fu, fd)), up=x.up, down=x.down, padding=[*x.padding, *x.padding], impl="ref",
        )  # fmt: skip
        assert y.shape[2:] == (x.spec.out_size, x.spec.out_size)


def test_representative_layers_cover_every_kind() -> None:
    kinds = {(x.up, x.down, x.radial, x.spec.use_fp16) for x in layers("r-1024")}
    assert {(x.up, x.down, x.radial, x.spec.use_fp16) for x in representative("r-1024")} == kinds


def test_discriminator_blocks() -> None:
    assert [(b.size, b.channels, b.out_channels) for b in blocks("t-1024")][:2] == [(1024, 32, 64), (512, 64, 128)]
    assert [b.use_fp16 for b in blocks("r-256")] == [True] * 4 + [False] * 2


def test_unknown_network() -> None:
    with pytest.raises(ValueError, match="t-128"):
        layers("t-128")


@pytest.mark.parametrize(
    ("title", "dtype", "terms"),
    [("r-1024/L10_1044_161", torch.float16, 2), ("r-1024/L10_1044_161", torch.float32, 3),
     ("r-1024/L13_1024_64", torch.float32, 1), ("t-1024/L6_148_512", torch.float32, 1)],
)  # fmt: skip
def test_terms_of_radial_filters(title: str, dtype: torch.dtype, terms: int) -> None:
    assert layer(title).terms(dtype) == terms


def test_macs_of_the_ordinary_layer() -> None:
    # Per output: 2 x 6 and 4 x 6 multiply-adds up, 2 x 12 and 12 down.
    assert roofline.useful_macs((2, 12, 1, None), (2, 12, 1, None), 1.0) == 72
    # Two products of 64 x 64 x 64, one of 32 x 64 x 64, one of 32 x 32 x 64, for 26 x 26 outputs.
    assert roofline.banded_macs(2, 2, 12, 12, 1, 1, 64) == 720_896 / 26**2


def test_macs_of_a_radial_filter() -> None:
    direct = roofline.useful_macs((2, 12, 1, None), (2, 12, 9, 144), 1.0)
    few_terms = roofline.useful_macs((2, 12, 1, None), (2, 12, 2, 144), 1.0)
    assert direct == 36 + 144
    assert few_terms == 36 + 72


def test_nothing_to_resample_costs_no_flop() -> None:
    rgb = layers("t-256")[-1]
    cost = roofline.filtered_lrelu(rgb, 1, 3, torch.float16, backward=False)
    assert cost.useful == cost.executed == 0
    assert cost.bytes == 3 * 2 * 256**2 * 2


def test_a_tile_too_small_for_the_filter_is_no_tile() -> None:
    assert roofline.banded_macs(2, 4, 12, 24, 1, 1, 16) == math.inf


def test_bytes_of_filtered_lrelu() -> None:
    x = layer("t-1024/L6_148_512")
    forward, both = (roofline.filtered_lrelu(x, 2, 3, torch.float16, backward) for backward in (False, True))
    data, signs = 6 * (150**2 + 148**2) * 2, 6 * (147 * 2 + 12) ** 2 / 4
    assert forward.bytes == data  # no signs without a gradient
    assert both.bytes == 2 * (data + signs)
    assert both.executed > 2 * forward.executed * 0.9


def test_byte_floor_of_the_design() -> None:
    """Large fp16 images, up 2 down 2, with signs: 2 bytes in, 2 out, 1 of signs per output, 1.2 ps at 4.3 TB/s."""
    x = layer("t-1024/L11_1044_51")
    both = roofline.filtered_lrelu(x, 1, 1, torch.float16, backward=True)
    seconds = Device().byte_floor(both) / 2 / 1044**2
    assert seconds == pytest.approx(1.2e-12, rel=0.05)


def test_modulated_conv2d() -> None:
    x = layer("t-1024/L6_148_512")
    cost = roofline.modulated_conv2d(x, 2, 5, 7, torch.float16, backward=False)
    assert cost.useful == cost.executed == 2 * 2 * 5 * 7 * 9 * 148**2
    assert cost.bytes == 2 * 5 * 148**2 * 2 + 2 * 7 * 150**2 * 2 + 5 * 7 * 9 * 4
    assert roofline.modulated_conv2d(x, 2, 5, 7, torch.float16, backward=True).useful == 3 * cost.useful


def test_upfirdn2d_and_bias_act() -> None:
    assert roofline.upfirdn2d(1, 8, 16, 2, (4, 4), torch.float32, False).useful == 2 * 16**2 * 4
    assert roofline.upfirdn2d(1, 8, 8, 1, (61,), torch.float32, False).useful == 2 * 2 * 8**2 * 61
    assert roofline.bias_act(100, torch.float16, False).bytes == 400
    assert roofline.bias_act(100, torch.float16, True).bytes == 1000


def test_floor_is_the_larger_one() -> None:
    device = Device(bandwidth=10, fp16=100, fp32=1)
    cost = Cost(bytes=20, useful=1, executed=50, dtype=torch.float16)
    assert device.byte_floor(cost) == device.floor(cost) == 2
    assert device.floor(dataclasses.replace(cost, dtype=torch.float32)) == 50


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    roofline.main(["--network=t-256", "--batch=2", "--bandwidth=1e12"])
    out = capsys.readouterr().out
    assert out.startswith("Batch 2, 1.00 TB/s, 990 TFLOP/s")
    assert sum(line.startswith("| t-256/L") for line in out.splitlines()) == 30  # 15 layers, two ops
    assert "| t-256/D.b256 | bias_act | float16 |" in out
    assert "| t-256 | filtered_lrelu |" in out


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_measuring_needs_a_gpu() -> None:
    with pytest.raises(SystemExit, match="CUDA device"):
        roofline.main(["--measure"])
