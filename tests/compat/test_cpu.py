"""`--device=cpu`: scripts that take a GPU for granted run without one, and say in one line that they want it."""

from __future__ import annotations

import io
import json
import pickle
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sg3
import sg3.compat
from sg3.errors import UsageError
from sg3.models import stylegan3
from tests.compat.conftest import LAYOUT, Run
from tests.helpers.commands import free_port

SCRIPT = LAYOUT / "train_cuda_like.py"
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="here the script finds what it wants")


@pytest.fixture
def cpu() -> Iterator[None]:
    with sg3.compat.install(quiet=True, device="cpu"):
        yield


# ---- scripts --------------------------------------------------------------------------------------------------------


def check(outdir: Path, ranks: int) -> None:
    results = [json.loads((outdir / f"rank{rank}.json").read_text()) for rank in range(ranks)]
    for result in results:
        assert result["ms"] > 0
        assert result["loss"] > 0
        assert result["gpumem"] == 0
        assert result["same"] is True, "one device for all"
        assert result["thread"] == [True]
        assert result["is_device"] is True
        assert (result["noise"], result["moved"], result["float_type"]) == (5, False, "torch.FloatTensor")
        assert result["weights"] == results[0]["weights"], "ranks have drifted apart"


def test_a_script_that_takes_a_gpu_for_granted(run: Run, tmp_path: Path) -> None:
    done = run("--device=cpu", SCRIPT, "--outdir", tmp_path, "--gpus", 1)
    assert done.returncode == 0, done.stderr
    assert "cuda" not in done.stderr.lower().replace("train_cuda_like", "")
    check(tmp_path, ranks=1)


@pytest.mark.slow
def test_on_two_ranks(run: Run, tmp_path: Path) -> None:
    """Spawned processes, NCCL, DistributedDataParallel."""
    done = run("--device", "cpu", SCRIPT, "--outdir", tmp_path, "--gpus", 2)
    assert done.returncode == 0, done.stderr
    check(tmp_path, ranks=2)


@no_gpu
@pytest.mark.parametrize("gpus", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_without_it_one_line_says_so(run: Run, tmp_path: Path, gpus: int) -> None:
    done = run(SCRIPT, "--outdir", tmp_path, "--gpus", gpus)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: train_cuda_like.py: asks for CUDA, which is not here (")
    assert line.endswith("; `python -m sg3.compat --device=cpu train_cuda_like.py ...` runs it on the CPU")
    assert "Traceback" not in done.stderr


def test_other_errors_keep_their_traceback(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "a.py"
    script.write_text("import torch\nraise RuntimeError('no CUDA in here is meant')\n")
    for words in ((), ("--device=cpu",)):
        done = run(*words, script)
        assert (done.returncode, "Traceback" in done.stderr, "error: " in done.stderr) == (1, True, False)


def test_a_generating_script(run: Run, tmp_path: Path) -> None:
    """A network file through sg3's `legacy`: the same image as from sg3."""
    torch.manual_seed(0)
    G = stylegan3.Generator(8, 0, 8, 32, 3, num_layers=4, margin_size=4, channel_base=256, channel_max=8).eval()
    sg3.save(sg3.Snapshot(G_ema=G), tmp_path / "net.pkl")
    script = tmp_path / "gen_like.py"
    script.write_text(
        "import sys, dnnlib, legacy, numpy as np, PIL.Image, torch\n"
        "device = torch.device('cuda')\n"
        "with dnnlib.util.open_url(sys.argv[1]) as f:\n"
        "    G = legacy.load_network_pkl(f)['G_ema'].to(device)\n"
        "z = torch.from_numpy(np.random.RandomState(3).randn(1, G.z_dim)).to(device)\n"
        "label = torch.zeros([1, G.c_dim], device=device)\n"
        "img = G(z, label, truncation_psi=0.7, noise_mode='const')\n"
        "img = (img.permute(0, 2, 3, 1) * 127.5 + 128).clamp(0, 255).to(torch.uint8)\n"
        "PIL.Image.fromarray(img[0].cpu().numpy(), 'RGB').save(sys.argv[2])\n"
    )
    done = run("--device=cpu", script, tmp_path / "net.pkl", tmp_path / "a.png")
    assert done.returncode == 0, done.stderr
    z = torch.from_numpy(np.random.RandomState(3).randn(1, 8))
    expected = (G(z, None, truncation_psi=0.7).permute(0, 2, 3, 1) * 127.5 + 128).clamp(0, 255).to(torch.uint8)[0]
    with Image.open(tmp_path / "a.png") as image:
        assert np.abs(np.asarray(image).astype(int) - expected.numpy().astype(int)).max() <= 1


# ---- one thing after another ----------------------------------------------------------------------------------------

CUDA = ("cuda", "cuda:0", "cuda:1", 0, 1)


@pytest.mark.usefixtures("cpu")
def test_every_way_to_name_a_gpu() -> None:
    x = torch.ones(2)
    for name in CUDA:
        device = torch.device(name)
        assert (device.type, device == torch.device("cpu"), device in {torch.device("cpu")}) == ("cpu", True, True)
        assert x.to(name) is x.cuda(name) is x
        assert x.to(device=name, dtype=torch.float64).dtype == torch.float64
        for made in (
            torch.zeros(2, device=name), torch.tensor([1.0], device=device), torch.as_tensor([1], device=name),
            torch.randn([2], device=name, pin_memory=True), torch.empty_like(x, device=name), torch.eye(2, device=name),
            torch.arange(3, device=name), x.new_zeros(1, device=name), torch.nn.Linear(1, 1, device=name).weight,
            torch.nn.Linear(1, 1).to(name).bias, torch.randperm(3, device=name, generator=torch.Generator(name)),
        ):  # fmt: skip
            assert made.device == device
    assert torch.device("cuda", 3) == torch.device("cpu") == torch.device(type="cuda", index=1)
    assert torch.device("meta").type == "meta"
    assert torch.zeros(1, device="meta").is_meta
    assert torch.nn.Linear(1, 1).cuda().weight.device.type == "cpu"
    assert x.pin_memory() is x
    assert x.type("torch.cuda.HalfTensor").dtype == torch.float16
    assert x.double().to(torch.float32).dtype == x.to(x).dtype == torch.float32
    channels_last = torch.ones(1, 2, 3, 4).cuda(memory_format=torch.channels_last)
    assert channels_last.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated:DeprecationWarning")
@pytest.mark.usefixtures("cpu")
def test_devices_are_what_they_were_to_others() -> None:
    device = torch.device("cuda")
    assert isinstance(device, torch.device)
    assert pickle.loads(pickle.dumps(device)) == device
    assert pickle.loads(pickle.dumps(torch.device)) is torch.device
    assert issubclass(type(device), torch.device)
    assert (torch.device | None) is not None, "as an annotation"
    with torch.device("cuda"):
        assert torch.zeros(1).device == device
    assert isinstance(torch.Generator("cuda"), torch.Generator)
    torch.set_default_device("cuda")
    torch.set_default_device(None)

    def annotated(x: torch.Tensor, device: torch.device | None = None) -> torch.Tensor:
        return x.to(device) if device is not None else x

    assert torch.jit.trace(annotated, (torch.ones(1),))(torch.ones(1)).item() == 1


@pytest.mark.usefixtures("cpu")
def test_what_cuda_answers() -> None:
    cuda = torch.cuda
    assert (cuda.is_available(), cuda.device_count(), cuda.current_device()) == (False, 0, 0)
    assert cuda.get_device_properties("cuda:0").total_memory == cuda.mem_get_info()[1] > cuda.mem_get_info()[0] > 0
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats", "ipc_collect", "init"):
        assert getattr(cuda, name)() is None
    assert cuda.set_device(1) is None
    assert cuda.max_memory_allocated(torch.device("cuda", 0)) == cuda.memory_reserved() == 0
    assert dict(cuda.memory_stats()) == {}
    first, second = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    with pytest.raises(RuntimeError, match="must be recorded"):
        first.elapsed_time(second)
    first.record()
    second.record(cuda.default_stream())
    assert 0 <= first.elapsed_time(second) < 10_000
    with cuda.stream(cuda.Stream(device="cuda:1")) as inside:
        assert torch.ones(1).cuda().record_stream(cuda.current_stream()) is None
        assert inside is None
    cuda.manual_seed_all(3)
    a, state = torch.rand(1), cuda.get_rng_state("cuda")
    b = torch.rand(1, device="cuda")
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1, device="cuda"), a)
    cuda.set_rng_state(state)
    assert torch.equal(torch.rand(1), b)
    with cuda.nvtx.range("a"), torch.random.fork_rng():
        cuda.nvtx.range_push("b")
        cuda.nvtx.range_pop()
    with warnings.catch_warnings(), cuda.amp.autocast(), torch.autocast("cuda", dtype=torch.float16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    scaler = cuda.amp.GradScaler()
    assert scaler.scale(torch.ones(1)).item() == 1


def saved_on_a_gpu(monkeypatch: pytest.MonkeyPatch, **how: Any) -> io.BytesIO:
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:1")
        torch.save({"x": torch.arange(3.0)}, file := io.BytesIO(), **how)
    file.seek(0)
    return file


@no_gpu
@pytest.mark.parametrize("how", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "old"])
def test_tensors_from_a_gpu(monkeypatch: pytest.MonkeyPatch, how: dict) -> None:
    with pytest.raises(RuntimeError, match="Attempting to deserialize object on a CUDA device"):
        torch.load(saved_on_a_gpu(monkeypatch, **how))
    with sg3.compat.install(quiet=True, device="cpu"):
        as_it_is = lambda storage, _: storage.cuda()  # noqa: E731
        for location in (None, "cuda", torch.device("cuda", 0), {"cuda:1": "cuda:0"}, as_it_is):
            x = torch.load(saved_on_a_gpu(monkeypatch, **how), map_location=location)["x"]
            assert x.tolist() == [0, 1, 2]
            assert x.device.type == "cpu"
        assert torch.load(saved_on_a_gpu(monkeypatch, **how), "cuda", weights_only=True)["x"].sum() == 3


@pytest.mark.usefixtures("cpu")
def test_process_groups(tmp_path: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    torch.distributed.init_process_group(
        "nccl", init_method=address, rank=0, world_size=1, device_id=torch.device("cuda", 0)
    )
    try:
        assert torch.distributed.get_backend() == "gloo"
        assert torch.distributed.get_backend(torch.distributed.new_group(backend="nccl")) == "gloo"
        torch.distributed.barrier(device_ids=[0])
        linear = torch.nn.Linear(2, 1).cuda()
        module = torch.nn.parallel.DistributedDataParallel(linear, device_ids=[0], output_device=0)
        module(torch.ones(1, 2, device="cuda")).sum().backward()
        torch.distributed.all_reduce(x := torch.ones(1, device="cuda"))
        assert x.item() == 1
    finally:
        torch.distributed.destroy_process_group()


def state() -> list[object]:
    names = ("device", "Generator", "load", "set_default_device", "set_default_tensor_type")
    places = [(torch, name) for name in names] + [
        (torch.cuda, name) for name in ("synchronize", "Event", "Stream", "device", "manual_seed_all", "FloatTensor")
    ] + [
        (torch.distributed, "init_process_group"), (torch.nn.Module, "to"), (torch.jit, "load"),
        (threading.Thread, "start"), (torch.random, "fork_rng"),
        (torch.nn.parallel.DistributedDataParallel, "__init__"), (torch.cuda.nvtx, "range_push"),
    ]  # fmt: skip
    return [*(getattr(owner, name, None) for owner, name in places), list(warnings.filters),
            torch.overrides._get_current_function_mode_stack()]  # fmt: skip


def test_all_of_it_is_taken_back() -> None:
    before = state()
    for _ in range(2):
        with sg3.compat.install(quiet=True, device="cpu"):
            assert [a is b for a, b in zip(state()[:5], before[:5], strict=True)] == [False] * 5
        assert state() == before
    with sg3.compat.install(quiet=True), pytest.raises(UsageError, match=r"call sg3\.compat\.uninstall\(\) first"):
        sg3.compat.install(device="cpu")
    with pytest.raises(UsageError, match="device='tpu': expected 'cpu', or None"):
        sg3.compat.install(device="tpu")


def test_usage(run: Run) -> None:
    done = run("--device=tpu", SCRIPT)
    assert done.returncode == 2
    assert "argument --device: invalid choice: 'tpu'" in done.stderr
