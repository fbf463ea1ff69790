"""DINOv2 against the implementation of `transformers`, Pillow and the formula of cubic interpolation."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sg3.errors import DataError, MissingInputError
from sg3.metrics import RealImages, compute, detectors, parse
from sg3.metrics.detectors import open_detector
from sg3.models.features import DinoV2, dinov2
from sg3.models.features.dinov2 import BASE, LARGE, Variant
from sg3.models.features.resize import resize_bicubic
from tests.helpers.tiny_networks import generator3

SMALL = Variant("small", width=48, depth=3, heads=4)


def random_network(variant: Variant = SMALL) -> DinoV2:
    """With weights that let every part be seen in the output."""
    torch.manual_seed(3)
    network = DinoV2(variant)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            spread = 0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
            parameter.copy_(torch.randn(parameter.shape) * spread + ("norm" in name and "weight" in name))
    return network.eval().requires_grad_(False)


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def theirs(network: DinoV2) -> torch.nn.Module:
    """The network in `transformers`, whose modules have other names and separate queries, keys and values."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    variant = network.variant
    config = transformers.Dinov2Config(
        hidden_size=variant.width, num_hidden_layers=variant.depth, num_attention_heads=variant.heads, image_size=518,
        patch_size=14, mlp_ratio=4, hidden_act="gelu", qkv_bias=True, layer_norm_eps=1e-6, use_swiglu_ffn=False,
    )  # fmt: skip
    model = transformers.Dinov2Model(config).eval()
    names = {
        "embeddings.cls_token": "cls_token", "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection": "patch_embed.proj", "layernorm": "norm",
    }  # fmt: skip
    for i in range(variant.depth):
        layer = f"encoder.layer.{i}"
        names |= {
            f"{layer}.norm1": f"blocks.{i}.norm1", f"{layer}.norm2": f"blocks.{i}.norm2",
            f"{layer}.attention.o_proj": f"blocks.{i}.attn.proj",
            f"{layer}.layer_scale1.lambda1": f"blocks.{i}.ls1.gamma",
            f"{layer}.layer_scale2.lambda1": f"blocks.{i}.ls2.gamma",
            f"{layer}.mlp.fc1": f"blocks.{i}.mlp.fc1", f"{layer}.mlp.fc2": f"blocks.{i}.mlp.fc2",
        }  # fmt: skip
    ours, state = network.state_dict(), {}
    for name in model.state_dict():
        stem, _, last = name.rpartition(".")
        if name in names:
            state[name] = ours[names[name]]
        elif stem in names:
            state[name] = ours[f"{names[stem]}.{last}"]
        elif ".attention." in name:
            number, part = name.split(".")[2], name.split(".")[-2]
            qkv = ours[f"blocks.{number}.attn.qkv.{last}"].chunk(3)
            state[name] = qkv[("q_proj", "k_proj", "v_proj").index(part)]
        else:
            assert name == "embeddings.mask_token"
            state[name] = torch.zeros(1, variant.width)
    model.load_state_dict(state)
    return model


class TestNetwork:
    @pytest.mark.slow
    def test_is_that_of_transformers(self) -> None:
        """At the size that positions were learned for, where nothing is interpolated, token by token."""
        network = random_network()
        model = theirs(network)
        x = images(2, 3, 518, 518).float()
        mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        with torch.no_grad():
            expected = model((x / 255 - mean) / deviation).last_hidden_state
        ours = network(x, resize_images=False)
        assert relative(ours, expected[:, 0]) <= 1e-5
        assert relative(network(x[:1] * 0.5, resize_images=False), expected[:1, 0]) > 1e-3  # it does look at pixels

    def test_positions_step_by_37_over_16_point_1(self) -> None:
        """Cubic convolution with a = -0.75, written out; 37 / 16 gives other positions."""
        network = random_network()

        def kernel(x: np.ndarray, a: float = -0.75) -> np.ndarray:
            x = np.abs(x)
            near = (a + 2) * x**3 - (a + 3) * x**2 + 1
            far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            return np.where(x <= 1, near, np.where(x < 2, far, 0))

        def matrix(step: float) -> np.ndarray:
            rows = np.zeros((16, 37))
            for i in range(16):
                centre = (i + 0.5) * step - 0.5
                for j in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
                    rows[i, min(max(j, 0), 36)] += kernel(np.array(centre - j))
            return rows

        grid = network.pos_embed[0, 1:].double().numpy().reshape(37, 37, -1)
        found = network.positions(16, 16)[0].numpy()
        assert np.array_equal(found[0], network.pos_embed[0, 0].numpy())
        for step, agrees in ((37 / 16.1, True), (37 / 16, False)):
            expected = np.einsum("yi,xj,ijc->yxc", matrix(step), matrix(step), grid).reshape(256, -1)
            assert (np.abs(found[1:] - expected).max() < 1e-4) == agrees

    @pytest.mark.parametrize(("variant", "millions"), [(LARGE, 304.3), (BASE, 86.5)])
    def test_published_sizes(self, variant: Variant, millions: float) -> None:
        with torch.device("meta"):
            network = DinoV2(variant)
        shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)
        last, width = variant.depth - 1, variant.width
        assert shapes["pos_embed"] == (1, 1370, width)
        assert shapes["patch_embed.proj.weight"] == (width, 3, 14, 14)
        assert shapes[f"blocks.{last}.attn.qkv.bias"] == (3 * width,)
        assert shapes[f"blocks.{last}.mlp.fc2.weight"] == (width, 4 * width)
        assert shapes[f"blocks.{last}.ls2.gamma"] == (width,)


class TestResize:
    @pytest.mark.parametrize("size", [(32, 32), (300, 500), (224, 224), (7, 1)])
    def test_is_pillows(self, size: tuple[int, int]) -> None:
        """An image at once here, a plane at a time there."""
        x = images(2, 3, *size)
        expected = [np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).resize((224, 224), Image.BICUBIC))
                    for image in x]  # fmt: skip
        ours = resize_bicubic(x, 224, 224)
        assert ours.dtype == torch.float32
        assert np.array_equal(ours.permute(0, 2, 3, 1).numpy(), np.stack(expected))
        assert resize_bicubic(x[:0], 224, 224).shape == (0, 3, 224, 224)

    def test_of_floats_is_not_rounded(self) -> None:
        x = images(1, 3, 300, 260) // 3 + 80
        exact, rounded = resize_bicubic(x.float(), 224, 224), resize_bicubic(x, 224, 224)
        assert 0 < float((exact - rounded).abs().max()) <= 1.2  # Pillow rounds after each direction: 0.5 + 0.5 sum |w|
        assert float((exact - rounded).abs().mean()) < 0.4


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small network's file under the published name."""
    monkeypatch.setitem(detectors.DINOV2S, "dinov2", SMALL)
    state = {**random_network().state_dict(), "mask_token": torch.zeros(1, SMALL.width)}
    torch.save(state, tmp_path / "dinov2_vitl14_pretrain.pth")
    return tmp_path


class TestDetector:
    def test_from_a_folder_a_file_and_an_address(self, weights: Path) -> None:
        path = weights / "dinov2_vitl14_pretrain.pth"
        x = images(2, 3, 32, 20)
        expected = random_network()(resize_bicubic(x, 224, 224), resize_images=False)
        opened = [open_detector("dinov2", folder=weights), open_detector("dinov2", source=str(path)),
                  open_detector("dinov2", source=path.as_uri())]  # fmt: skip
        for detector in opened:
            assert (detector.name, detector.dim, len(detector.sha256)) == ("dinov2", 48, 64)
            assert detector.resize == "224x224 bicubic of Pillow, rounded"
            assert relative(detector.features(x), expected) <= 1e-5
        gray = images(1, 1, 40, 40)
        assert torch.equal(detector.features(gray), detector.features(gray.repeat(1, 3, 1, 1)))
        assert detector.features(images(0, 3, 8, 8)).shape == (0, 48)

    def test_gradients_reach_floats(self, weights: Path) -> None:
        x = images(1, 3, 32, 32).float().requires_grad_()
        open_detector("dinov2", folder=weights).features(x).square().sum().backward()
        assert x.grad is not None
        assert x.grad.abs().max() > 0

    def test_other_files(self, weights: Path) -> None:
        state = random_network().state_dict()
        path = weights / "registers.pth"
        torch.save({**state, "register_tokens": torch.zeros(1, 4, 48)}, path)
        with pytest.raises(DataError, match=r"registers\.pth: is a DINOv2 with registers"):
            open_detector("dinov2", source=str(path))
        with pytest.raises(DataError):
            open_detector("dinov2b", source=str(weights / "dinov2_vitl14_pretrain.pth"))
        with pytest.raises(MissingInputError, match="there is no such file"):
            open_detector("dinov2", source=str(weights / "none.pth"))

    def test_metrics_and_what_they_take(self, weights: Path, real16: RealImages, capsys) -> None:
        """How long it will take is said before it begins."""
        metrics = [parse("fd_dinov2_9_full"), parse("mind_dinov2_9_full")]
        first, second = compute(metrics, generator3(), real16, device="cpu", detector_dir=weights)
        assert first.recipe["detector"] == second.recipe["detector"] == "dinov2"
        assert first.recipe["resize"] == "224x224 bicubic of Pillow, rounded"
        assert first.results["fd_dinov2_9_full"] > 0
        said = capsys.readouterr().err
        assert "s an image on this CPU" in said
        assert "for 9 generated ones and, unless they are known" in said
        assert "for 20 real ones" in said


def test_published_weights() -> None:
    """The real file, where SG3_DETECTORS has it: features of a plain image are finite, of length about 45 to 60."""
    folder = Path(os.environ.get("SG3_DETECTORS", "none"))
    names = [name for name in ("dinov2", "dinov2b") if (folder / detectors.SOURCES[name].files[0]).is_file()]
    if not names:
        pytest.skip("no weights of DINOv2 in $SG3_DETECTORS")
    for name in names:
        detector = open_detector(name)
        x = images(2, 3, 256, 256)
        x[1] = 128
        features = detector.features(x)
        assert features.shape == (2, (dinov2.LARGE if name == "dinov2" else dinov2.BASE).width)
        assert bool(features.isfinite().all())
        assert float((features[0] - features[1]).norm()) > 5
