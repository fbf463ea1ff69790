"""`sg3 export`: plain operators only, the same pictures, any batch, settings as inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import sg3
from sg3.errors import NumericalError, UsageError
from sg3.models import Generator, fastgan, r3gan, stylegan2, stylegan3
from sg3.sampling import seed_latents, set_transform
from sg3.tools import export
from sg3.tools.export import trace, verify, write_archive, write_onnx

NETWORKS: dict[str, Callable[[], Generator]] = {
    "stylegan2": lambda: stylegan2.Generator(8, 3, 8, 16, 3, channel_base=128, channel_max=8),
    "stylegan3-t": lambda: stylegan3.Generator(8, 0, 8, 16, 3, channel_base=128, channel_max=8, num_layers=4),
    "stylegan3-r": lambda: stylegan3.Generator(
        8, 0, 8, 16, 3, channel_base=128, channel_max=8, num_layers=4, conv_kernel=1, use_radial_filters=True
    ),
    "fastgan": lambda: fastgan.Generator(z_dim=16, img_resolution=128, ngf=4, synthesis_kwargs={"lite": True}),
    "r3gan": lambda: r3gan.Generator(NoiseDimension=8, WidthPerStage=[8, 8], CardinalityPerStage=[2, 2],
                                     BlocksPerStage=[1, 1], ExpansionFactor=2),
}  # fmt: skip


def network(name: str) -> Generator:
    torch.manual_seed(1)
    G = NETWORKS[name]().eval().requires_grad_(False)
    if not isinstance(G, fastgan.Generator | r3gan.Generator):
        G.mapping.w_avg.normal_()
    return G


def test_a_conditional_network_as_an_archive(tmp_path) -> None:
    G = network("stylegan2")
    module, program = trace(G)
    write_archive(program, tmp_path / "x.pt2")
    assert verify(module, tmp_path / "x.pt2").difference < 1e-5
    z, c = seed_latents([3, 4, 5], 8).float(), torch.eye(3)
    run = torch.export.load(tmp_path / "x.pt2").module()
    found = run(z=z, c=c, truncation=torch.tensor(0.6))
    expected = G(z, c, truncation_psi=0.6, noise_mode="const")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stylegan3-t", "stylegan3-r"])
def test_the_transform_is_an_input(tmp_path, name) -> None:
    G = network(name)
    _, program = trace(G)
    z = seed_latents([3, 4], 8).float()
    set_transform(G, (0.1, 0.05), 20)
    found = program.module()(z=z, truncation=torch.tensor(0.7), transform=G.synthesis.input.transform.clone())
    torch.testing.assert_close(found, G(z, None, truncation_psi=0.7), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_parts_fit_together(tmp_path) -> None:
    G = network("stylegan3-t")
    mapping, synthesis = (trace(G, part)[1].module() for part in ("mapping", "synthesis"))
    z = seed_latents([3], 8).float()
    ws = mapping(z=z, truncation=torch.tensor(0.7))
    found = synthesis(ws=ws, transform=torch.eye(3))
    torch.testing.assert_close(found, G(z, None, truncation_psi=0.7), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_onnx(tmp_path, name, half) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    module, program = trace(network(name), half=half)
    write_onnx(module, program, tmp_path / "x.onnx")
    assert verify(module, tmp_path / "x.onnx").difference < (5e-2 if half else 1e-4)
    model = onnx.load(tmp_path / "x.onnx")
    onnx.checker.check_model(model)
    assert {entry.domain for entry in model.opset_import} <= {"", "pkg.onnxscript.torch_lib.common"}
    assert next(entry.version for entry in model.opset_import if entry.domain == "") == 18


@pytest.mark.slow
def test_the_command_at_a_real_size(tmp_path, run) -> None:
    """A 256-pixel StyleGAN3-T within 1e-4, at an eighth of the width."""
    pytest.importorskip("onnxruntime")
    torch.manual_seed(1)
    G = stylegan3.Generator(64, 0, 64, 256, 3, channel_base=4096, channel_max=64).eval()
    sg3.save(sg3.Snapshot(G_ema=G), tmp_path / "net.safetensors")
    result = run("export", f"--network={tmp_path / 'net.safetensors'}", f"--output={tmp_path / 'x.onnx'}")
    assert (result.code, result.out) == (0, f"{tmp_path / 'x.onnx'}\n"), result.err
    assert "differs from PyTorch by at most" in result.err
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"))
    z = seed_latents([7], 64).numpy().astype(np.float32)
    inputs = {"z": z, "truncation": np.array(0.7, np.float32), "transform": np.eye(3, dtype=np.float32)}
    (image,) = session.run(["image"], inputs)
    pixels = (image * 127.5 + 128).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    expected = sg3.generate(tmp_path / "net.safetensors", 7, trunc=0.7, device="cpu")
    assert np.abs(pixels.astype(int) - expected.astype(int)).max() <= 1


def test_a_file_that_gives_something_else_is_named(tmp_path, recwarn) -> None:
    module, program = trace(network("stylegan2"), "mapping")
    assert [str(each.message) for each in recwarn] == []  # of what PyTorch does in its own code
    write_archive(program, tmp_path / "x.pt2")
    module.G.mapping.w_avg.add_(0.01)
    with pytest.raises(NumericalError, match=r"x\.pt2: differs from PyTorch by 0\.0"):
        verify(module, tmp_path / "x.pt2")


def test_the_command_runs_what_it_wrote_unless_told_not_to(tmp_path, run, monkeypatch) -> None:
    monkeypatch.setitem(export.TOLERANCE, torch.float32, -1.0)  # nothing is near enough
    sg3.save(sg3.Snapshot(G_ema=network("stylegan2")), tmp_path / "net.safetensors")
    words = (f"--network={tmp_path / 'net.safetensors'}", f"--output={tmp_path / 'x.pt2'}", "--part=mapping")
    result = run("export", *words)
    assert result.code == 70, result.err
    assert "x.pt2: differs from PyTorch by" in result.err
    assert run("export", *words, "--verify=0").code == 0


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["--output=x.pb"], 2, "x.pb: expected a name ending in .onnx or .pt2"),
        (["--output=no/where/x.pt2", "--part=mapping"], 74, "no/where"),
        (["--output=x.onnx", "--verify=0"], 66, "x.onnx: needs onnx, onnxscript; pip install 'sg3[onnx]'"),
        (["--output=x.onnx"], 66, "x.onnx: needs onnx, onnxscript, onnxruntime; pip install 'sg3[onnx]'"),
    ],
)
def test_what_goes_wrong(tmp_path: Path, run, monkeypatch, words, code, why) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    sg3.save(sg3.Snapshot(G_ema=network("stylegan2")), tmp_path / "net.safetensors")
    result = run("export", "--network=net.safetensors", *words)
    assert result.code == code, result.err
    assert why in result.err


def test_no_parts_without_a_w() -> None:
    with pytest.raises(UsageError, match="only StyleGAN generators have parts"):
        trace(network("fastgan"), "mapping")
