"""The augmentation pipeline: the original's numbers, gradients, independence of the batch, all sets of operations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sg3.errors import UsageError
from sg3.formats.official_write import write
from sg3.formats.pickle_values import Record, read_pickle
from sg3.formats.snapshot import Snapshot
from sg3.models import augment_geometry as geometry
from sg3.models.augment import SPECS, Augmentations, AugmentPipe
from sg3.models.augment_draws import Draws

OPERATIONS = tuple(SPECS["bgcfnc"])
SNAPSHOTS = ("sg3t-64", "sg3r-64", "sg2-32-cond", "ada-sg2-32")


def rngs(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, index]) for index in range(count)]


def smooth_image(size: int, x: float = 0.0, y: float = 0.0) -> torch.Tensor:
    """[1, 3, size, size] in float64, of low frequencies, with nothing symmetric about it, moved by (x, y) pixels."""
    place = torch.arange(size, dtype=torch.float64)
    y_, x_ = torch.meshgrid((place - y) / 32, (place - x) / 32, indexing="ij")
    return torch.stack([torch.sin(5 * x_ + 2 * y_), torch.cos(3 * y_ - x_ + 1), torch.sin(4 * y_ + 3 * x_ + 2)])[None]


# The original's numbers.


@pytest.mark.parametrize("percentile", ["0.15", "0.8"])
@pytest.mark.parametrize("name", [*(name for name in OPERATIONS if name != "noise"), "bgc"])
def test_golden(golden: Path, name: str, percentile: str) -> None:
    arrays = np.load(golden / "augment.npz")
    pipe = AugmentPipe(**(SPECS["bgc"] if name == "bgc" else {name: 1}))
    got = pipe(torch.from_numpy(arrays["images"]), debug_percentile=float(percentile))
    np.testing.assert_allclose(got.numpy(), arrays[f"{name}/{percentile}"], atol=2e-5, rtol=0)  # float32's noise


def test_golden_filters(golden: Path) -> None:
    arrays = np.load(golden / "augment.npz")
    pipe = AugmentPipe()
    np.testing.assert_allclose(pipe.Hz_geom.numpy(), arrays["Hz_geom"], atol=1e-8, rtol=0)
    np.testing.assert_allclose(pipe.Hz_fbank.numpy(), arrays["Hz_fbank"], atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_the_originals_state_loads(golden: Path, name: str) -> None:
    """Constructor arguments, attributes and buffers of a snapshot's pipeline are those of ours."""
    record = read_pickle(golden / f"{name}.pkl")["augment_pipe"]
    pipe = AugmentPipe(**record.state["_init_kwargs"])
    buffers = record.state["_buffers"]
    assert {k: v.shape for k, v in pipe.state_dict().items()} == {k: v.shape for k, v in buffers.items()}
    for attribute, value in record.state.items():
        if not attribute.startswith("_") and attribute != "training":
            assert getattr(pipe, attribute) == value, attribute
    assert pipe.p == 1
    pipe.load_state_dict(buffers, strict=True)
    assert pipe.p == buffers["p"] != 1


def test_the_pipe_can_be_saved_in_a_snapshot(tmp_path: Path) -> None:
    pipe = AugmentPipe(**SPECS["bgcfnc"], imgfilter_bands=(1, 0.5, 1, 0))
    write(Snapshot(G=None, D=None, G_ema=None, augment_pipe=pipe, training_set_kwargs={}), tmp_path / "pipe.pkl")
    record = read_pickle(tmp_path / "pipe.pkl")["augment_pipe"]
    assert isinstance(record, Record)
    again = AugmentPipe(**record.state["_init_kwargs"])
    assert again.init_kwargs == pipe.init_kwargs
    assert again.imgfilter_bands == [1, 0.5, 1, 0]


def test_sets_of_operations() -> None:
    assert {name: " ".join(spec) for name, spec in SPECS.items() if len(name) < 4 or name == "blit"} == {
        "blit": "xflip rotate90 xint",
        "bg": "xflip rotate90 xint scale rotate aniso xfrac",
        "bgc": "xflip rotate90 xint scale rotate aniso xfrac brightness contrast lumaflip hue saturation",
    }
    assert list(SPECS["bgcfnc"])[-3:] == ["imgfilter", "noise", "cutout"]
    assert list(SPECS["r3gan"].values()) == [1.0] * 7 + [0.5] * 5 + [1.0]
    assert len(SPECS) == 12
    assert repr(AugmentPipe(xflip=1, xint=0.5)) == "AugmentPipe(xflip=1, xint=0.5)"


# Gradients.


@pytest.mark.parametrize("spec", ["bgcfnc", "geom"])
def test_derivatives(spec: str) -> None:
    """First and second order with respect to the images, in float64."""
    pipe = AugmentPipe(**SPECS[spec], cutout_size=0.4)
    chosen = pipe.draw(rngs(1), 5, 4, 3, p=1.0)
    x = torch.randn(1, 3, 5, 4, dtype=torch.float64, requires_grad=True)

    def augment(x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)  # the same noise each time
        return pipe(x, chosen)

    assert augment(x).dtype == torch.float64
    assert torch.autograd.gradcheck(augment, x)
    assert torch.autograd.gradgradcheck(augment, x)


@pytest.mark.usefixtures("traced_gradients")
def test_compiled_gradient_penalty() -> None:
    """R1's gradient of a gradient, through the pipeline, under torch.compile."""
    import torch._dynamo.config

    pipe = AugmentPipe(**SPECS["bgcf"], cutout=1)
    chosen = pipe.draw(rngs(2), 8, 8, 3, p=1.0)
    w = torch.randn(4, 3, 3, 3, requires_grad=True)

    def penalty(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        logits = torch.nn.functional.conv2d(pipe(x, chosen), w).tanh().sum(dim=[1, 2, 3])
        (dx,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        return dx.square().sum()

    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    value = penalty(x, w)
    (dw,) = torch.autograd.grad(value, w)
    assert dw.abs().max() > 0
    compiled = torch.compile(penalty, fullgraph=True, backend="aot_eager")(x, w)
    (dw_compiled,) = torch.autograd.grad(compiled, w)
    torch.testing.assert_close(compiled, value)
    torch.testing.assert_close(dw_compiled, dw, rtol=1e-4, atol=1e-4 * float(dw.abs().max()))


# What happens to an image.


def test_without_probability_nothing_changes() -> None:
    pipe = AugmentPipe(**SPECS["bgcfnc"])
    images = torch.randn(3, 3, 17, 16)
    assert torch.equal(pipe(images, pipe.draw(rngs(3), 17, 16, 3, p=0)), images)


def test_skipped_steps_would_have_given_the_same() -> None:
    """Orthonormal wavelets: up, down and nothing between is the identity; so are equal gains of all bands."""
    pipe = AugmentPipe(**SPECS["bgcf"])
    images = torch.randn(2, 3, 17, 24)
    inverse = np.tile(np.eye(3), [2, 1, 1])
    margins = geometry.margins(inverse, 17, 24)
    assert margins == (6, 6, 6, 6)
    matrices = torch.from_numpy(geometry.sampling_matrices(inverse, 17, 24, margins)).float()
    still = Augmentations((2, 3, 17, 24), inverse=matrices, margins=margins, bands=torch.ones(2, 4))
    torch.testing.assert_close(pipe(images, still), images, atol=2e-5, rtol=0)


def test_an_integer_shift_is_a_shift() -> None:
    pipe = AugmentPipe(xint=1)
    images = torch.randn(1, 3, 40, 48)
    shifts = set()
    for seed in range(5):
        inverse = pipe.inverse_geometry(Draws.random(rngs(1, seed), 1.0), 40, 48)
        x, y = (-inverse[0, :2, 2]).round().astype(int).tolist()
        shifts.add((x, y))
        expected = images.roll((y, x), dims=(2, 3))[:, :, 5:-5, 6:-6]
        got = pipe(images, pipe.draw(rngs(1, seed), 40, 48, 3, p=1))[:, :, 5:-5, 6:-6]
        torch.testing.assert_close(got, expected, atol=2e-5, rtol=0)
    assert len(shifts) > 2


def test_flips_and_turns() -> None:
    """Against torch's flip and rot90, well below the filters' band.

    sym6's centre of gravity lies 0.098 taps from its middle tap. Going down makes up for going up, but of an axis that
    has been turned round in between it adds, and the picture moves by that.
    """
    taps = torch.tensor(geometry.SYM6, dtype=torch.float64)
    off = float((torch.arange(12) * taps).sum() / taps.sum()) - 5
    assert off == pytest.approx(0.098, abs=1e-3)
    image = smooth_image(40)

    def near(got: torch.Tensor, expected: torch.Tensor) -> None:
        torch.testing.assert_close(got[..., 6:-6, 6:-6], expected[..., 6:-6, 6:-6], atol=5e-4, rtol=0)

    near(AugmentPipe(xflip=1)(image, debug_percentile=0.8), smooth_image(40, x=off).flip(3))
    for percentile, turns, expected in (
        (0.3, 1, smooth_image(40, x=off)),
        (0.6, 2, smooth_image(40, x=off, y=off)),
        (0.8, 3, smooth_image(40, y=off)),
    ):
        near(AugmentPipe(rotate90=1)(image, debug_percentile=percentile), expected.rot90(turns, dims=(2, 3)))


def test_zoom_turn_and_fractional_shift() -> None:
    """Against the picture drawn at the transformed places."""
    pipe = AugmentPipe(scale=1, rotate=1, xfrac=1, rotate_max=0.1)
    inverse = pipe.inverse_geometry(Draws.at_percentile(1, 0.6), 40, 40)[0]
    y, x = np.mgrid[-19.5:20, -19.5:20]
    x, y = (inverse[row, 0] * x + inverse[row, 1] * y + inverse[row, 2] + 19.5 for row in (0, 1))
    expected = np.stack([np.sin((5 * x + 2 * y) / 32), np.cos((3 * y - x) / 32 + 1), np.sin((4 * y + 3 * x) / 32 + 2)])
    got = pipe(smooth_image(40), debug_percentile=0.6)[0].numpy()
    np.testing.assert_allclose(got[:, 8:-8, 8:-8], expected[:, 8:-8, 8:-8], atol=3e-3)


def test_beyond_one_reflection_there_is_nothing() -> None:
    """Seen from afar: the image, reflected once on all sides, on a grey that is 0."""
    pipe = AugmentPipe(scale=1, scale_std=5)
    inverse = pipe.inverse_geometry(Draws.at_percentile(1, 0.2), 8, 30)
    assert inverse[0, 0, 0] == pytest.approx(7.87, abs=0.01)  # from that many pixels away
    assert geometry.margins(inverse, 8, 30) == (29, 7, 29, 7)
    got = pipe(torch.ones(1, 3, 8, 30), debug_percentile=0.2)
    assert got[0, 0, :, [5, 24]].abs().max() == 0
    assert got[0, 0, [0, 7]].abs().max() < 0.02  # the downsampling filter rings
    assert got[0, 0, 4, 15] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 16, 16), (2, 9, 16), (3, 17, 23), (4, 16, 9), (3, 1, 2)])
def test_all_sets_on_all_kinds_of_images(spec: str, channels: int, height: int, width: int) -> None:
    pipe = AugmentPipe(**SPECS[spec])
    images = torch.rand(4, channels, height, width) * 2 - 1
    got = pipe(images, pipe.draw(rngs(4), height, width, channels, p=1))
    assert got.shape == images.shape
    assert got.isfinite().all()
    assert not torch.equal(got, images) or height == 1


def test_grey_is_the_mean_of_three_equal_channels() -> None:
    grey = torch.rand(5, 1, 8, 8) * 2 - 1
    pipe = AugmentPipe(brightness=1, contrast=1, lumaflip=1)
    rgb = pipe(grey.repeat(1, 3, 1, 1), pipe.draw(rngs(5), 8, 8, 3, p=1))
    got = pipe(grey, pipe.draw(rngs(5), 8, 8, 1, p=1))
    torch.testing.assert_close(got, rgb.mean(dim=1, keepdim=True))
    only_hues = AugmentPipe(hue=1, saturation=1)
    assert only_hues.draw(rngs(5), 8, 8, 1, p=1).color is None


def test_noise() -> None:
    """Zero mean, the drawn strengths, fresh numbers of torch's generator for every pixel."""
    pipe = AugmentPipe(noise=1, noise_std=0.5)
    chosen = pipe.draw(rngs(6), 64, 64, 3, p=0.5)
    assert chosen.noise is not None
    added = pipe(torch.zeros(6, 3, 64, 64), chosen)
    strength = added.std(dim=[1, 2, 3])
    assert 0 < (chosen.noise == 0).sum() < 6
    torch.testing.assert_close(strength, chosen.noise, rtol=4 / (2 * 3 * 64 * 64) ** 0.5, atol=0)
    assert not torch.equal(pipe(torch.zeros(6, 3, 64, 64), chosen), added)
    torch.manual_seed(0)  # what the test began with
    assert torch.equal(pipe(torch.zeros(6, 3, 64, 64), chosen), added)


def test_cutout_sets_boxes_to_zero() -> None:
    pipe = AugmentPipe(cutout=1)
    images = torch.ones(20, 3, 10, 20)
    chosen = pipe.draw(rngs(20), 10, 20, 3, p=1)
    assert chosen.cutout is not None
    got = pipe(images, chosen)
    for sample, (left, top, right, bottom) in zip(got, chosen.cutout.tolist(), strict=True):
        assert (sample == 0).sum() == 3 * (right - left) * (bottom - top)
        assert (sample[:, top:bottom, left:right] == 0).all()
        assert right - left <= 10
        assert bottom - top <= 5
    assert (chosen.cutout[:, 2] - chosen.cutout[:, 0] == 10).any()  # whole boxes, and some over the edge
    assert (chosen.cutout[:, 2] == 20).any()


# Use.


def test_it_draws_by_itself_from_torchs_generator() -> None:
    pipe = AugmentPipe(**SPECS["bgcfnc"])
    images = torch.randn(2, 3, 16, 16)
    first = pipe(images)
    second = pipe(images)
    torch.manual_seed(0)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(pipe(images), first)
    assert not torch.equal(first, second)
    pipe.p.zero_()
    assert torch.equal(pipe(images), images)
    pipe.p.fill_(21.8)  # snapshots of the original may hold this
    assert pipe(images).shape == images.shape


def test_debug_percentile_touches_no_generator() -> None:
    pipe = AugmentPipe(**SPECS["bgcf"], cutout=1)
    images = torch.randn(2, 3, 16, 16)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = pipe(images, debug_percentile=0.3)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    pipe.p.zero_()
    assert torch.equal(pipe(images, debug_percentile=0.3), first)  # whatever p is


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    pipe = AugmentPipe(**SPECS["bgcf"])
    images = torch.randn(2, 3, 16, 16).to(dtype)
    chosen = pipe.draw(rngs(2), 16, 16, 3, p=1)
    expected = pipe(images.float(), chosen)
    assert torch.equal(pipe(images, chosen), expected.to(dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pipe(images.float(), chosen), expected)


def test_an_empty_batch() -> None:
    pipe = AugmentPipe(**SPECS["bgcfnc"])
    assert pipe(torch.empty(0, 3, 16, 16)).shape == (0, 3, 16, 16)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (UsageError, "images with 5 channels: colour augmentations need 1", lambda: draw(channels=5)),
        (ValueError, "p: got 1.5, expected a probability", lambda: draw(p=1.5)),
        (ValueError, "p: got nan", lambda: draw(p=float("nan"))),
        (ValueError, r"images: got shape \[1, 3, 16, 16\], augmentations for \[1, 3, 16, 20\]",
         lambda: AugmentPipe()(torch.zeros(1, 3, 16, 16), draw(width=20))),
        (ValueError, "debug_percentile: replaces", lambda: AugmentPipe()(torch.zeros(1, 3, 16, 16), draw(), 0.5)),
        (ValueError, "debug_percentile: got 1", lambda: AugmentPipe()(torch.zeros(1, 3, 16, 16), None, 1)),
        (TypeError, "images: got dtype torch.uint8", lambda: AugmentPipe()(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))),
        (ValueError, "xflip: got -1, expected a finite number >= 0", lambda: AugmentPipe(xflip=-1)),
        (ValueError, "scale_std: got inf", lambda: AugmentPipe(scale_std=float("inf"))),
        (ValueError, "imgfilter_bands: got 3 values, expected 4", lambda: AugmentPipe(imgfilter_bands=(1, 1, 1))),
        (ValueError, "imgfilter_bands: got -1", lambda: AugmentPipe(imgfilter_bands=(1, 1, 1, -1))),
    ],
)  # fmt: skip
def test_wrong_use_is_explained(error: type[Exception], message: str, call) -> None:
    with pytest.raises(error, match=message):
        call()


def draw(channels: int = 3, p: float = 1.0, width: int = 16) -> Augmentations:
    return AugmentPipe(**SPECS["bgc"]).draw(rngs(1), 16, width, channels, p)


@pytest.mark.gpu
def test_a_gpu_is_never_waited_for() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pipe = AugmentPipe(**SPECS["bgcfnc"]).cuda()
    images = torch.randn(4, 3, 32, 32, device="cuda", requires_grad=True)

    def step(seed: int) -> None:
        y = pipe(images, pipe.draw(rngs(4, seed), 32, 32, 3, p=0.9))
        (dx,) = torch.autograd.grad(y.square().sum(), images, create_graph=True)
        dx.square().sum().backward()

    step(0)  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
