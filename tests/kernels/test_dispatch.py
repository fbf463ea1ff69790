"""Which implementation runs, on machines that this one only pretends to be."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from ast import literal_eval
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sg3.kernels import bias_act, dispatch, toolchain
from sg3.kernels.dispatch import (
    IMPLEMENTATIONS,
    ImplUnavailableError,
    Status,
    describe,
    explain,
    numba_status,
    resolve,
    triton_status,
)
from sg3.kernels.toolchain import host_status, library_builder, python_headers

with suppress(ImportError):  # before a test takes TRITON_INTERPRET away, which Triton's own functions ask on import
    import triton.language  # noqa: F401

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
HEADERS_PACKAGE = f"python{sys.version_info[0]}.{sys.version_info[1]}-dev"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("SG3_IMPL", "TRITON_INTERPRET", "CC"):
        monkeypatch.delenv(name, raising=False)
    for cached in (dispatch._probe, dispatch._import_numba, dispatch._say_once):
        cached.cache_clear()
    yield
    for cached in (dispatch._probe, dispatch._import_numba):
        cached.cache_clear()


@pytest.fixture
def all_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table as it will be when an op has all three implementations."""
    monkeypatch.setattr(dispatch, "IMPLEMENTATIONS",
                        {"bias_act": ("triton", "torch", "ref"), "grid_sample": ("triton", "ref")})


Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """Pretend to be a machine; by default one on which everything is there."""

    def pretend(
        platform: str = "linux",
        packages: tuple[str, ...] = ("triton",),
        gpu: str | None = "NVIDIA A100",
        capability: tuple[int, int] = (8, 0),
        compilers: tuple[str, ...] = ("gcc",),
        headers: bool = True,
        cuda: str | None = "13.0",
        hip: str | None = None,
    ) -> None:
        monkeypatch.setattr(dispatch, "sys", SimpleNamespace(platform=platform, executable=sys.executable,
                                                             version_info=sys.version_info))
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in packages else None)
        monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name in compilers else None)
        if headers:
            (tmp_path / "Python.h").touch()
        monkeypatch.setattr(toolchain, "python_headers", lambda: tmp_path)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.version, "hip", hip)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: gpu)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)

    return pretend


def test_every_op_has_its_plain_formula_last() -> None:
    assert set(IMPLEMENTATIONS) == {"bias_act", "upfirdn2d", "filtered_lrelu", "modulated_conv2d",
                                    "modulation", "conv2d_resample", "grid_sample"}
    assert all(impls[-1] == "ref" for impls in IMPLEMENTATIONS.values())


def test_cudnns_convolutions_come_before_tritons(machine: Machine) -> None:
    machine()
    for dtype in (torch.float16, torch.float32, torch.float64):
        assert resolve("modulated_conv2d", "auto", GPU, dtype) == "torch"
    assert resolve("modulated_conv2d", "triton", GPU, torch.float16) == "triton"
    assert resolve("modulated_conv2d", "auto", CPU, torch.float16) == "torch"
    assert resolve("modulated_conv2d", "ref", GPU, torch.float16) == "ref"


@pytest.mark.parametrize("op", IMPLEMENTATIONS)
def test_auto_runs_on_the_cpu(op: str) -> None:
    skipped = ("triton",) if numba_status(CPU).usable else ("triton", "numba")
    best = next(name for name in IMPLEMENTATIONS[op] if name not in skipped)
    assert resolve(op, "auto", CPU) == resolve(op, "cuda", CPU) == explain(op, CPU)[0] == best
    assert resolve(op, "ref", CPU) == "ref"


def test_unknown_names_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="impl: got 'fast', expected one of auto, triton, numba, torch, ref"):
        resolve("bias_act", "fast", CPU)
    with pytest.raises(ValueError, match="op: got 'bias', expected one of bias_act, "):
        resolve("bias", "auto", CPU)
    monkeypatch.setenv("SG3_IMPL", "fast")
    with pytest.raises(ValueError, match="SG3_IMPL: got 'fast'"):
        resolve("bias_act", "auto", CPU)


def test_the_environment_replaces_auto_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, all_written: None
) -> None:
    monkeypatch.setenv("SG3_IMPL", "torch")
    assert resolve("bias_act", "auto", CPU) == resolve("bias_act", "cuda", CPU) == "torch"
    assert resolve("bias_act", "ref", CPU) == "ref"
    assert explain("bias_act", CPU) == ("torch", "SG3_IMPL='torch' asks for it")
    for nothing in ("", "auto", "cuda"):
        monkeypatch.setenv("SG3_IMPL", nothing)
        assert explain("bias_act", CPU) == ("torch", "the fastest on cpu")


def test_one_line_for_the_log(machine: Machine, all_written: None) -> None:
    assert describe(CPU) == "torch for bias_act; ref for grid_sample"
    machine()
    assert describe(GPU) == "triton for bias_act, grid_sample"
    assert describe(GPU, besides=["grid_sample"]) == "triton for bias_act"


def test_what_does_not_exist_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "IMPLEMENTATIONS", {"bias_act": ("ref",)})
    for impl in ("numba", "triton"):
        with pytest.raises(ImplUnavailableError, match=f"impl='{impl}' does not exist.*use impl='auto'"):
            resolve("bias_act", impl, CPU)
    # The variable is for a whole program: what it names is taken where it exists.
    monkeypatch.setenv("SG3_IMPL", "torch")
    assert resolve("bias_act", "auto", CPU) == "ref"
    assert explain("bias_act", CPU) == ("ref", "SG3_IMPL='torch', which this op does not have")


@pytest.mark.parametrize("op", IMPLEMENTATIONS)
def test_torch_serves_every_op(op: str) -> None:
    """As what is asked for by name, on any device, in any type: without a faster form it is the plain formula."""
    for device in (CPU, GPU, torch.device("meta")):
        for dtype in (torch.float16, torch.float32, torch.float64):
            assert resolve(op, "torch", device, dtype) == ("torch" if "torch" in IMPLEMENTATIONS[op] else "ref")


def test_bias_act_runs_on_torch_by_name() -> None:
    x, b = torch.randn(2, 3, 4, 4), torch.randn(3)
    assert torch.equal(bias_act(x, b, act="swish", impl="torch"), bias_act(x, b, act="swish", impl="ref"))


def test_triton_has_no_float64(machine: Machine, all_written: None) -> None:
    machine()
    assert resolve("bias_act", "auto", GPU, torch.float16) == "triton"
    assert resolve("bias_act", "auto", GPU, torch.float64) == "torch"
    with pytest.raises(ImplUnavailableError, match="bias_act: impl='triton' has no float64; use impl='ref'"):
        resolve("bias_act", "triton", GPU, torch.float64)


def test_numba_is_for_the_cpu_and_float32(machine: Machine) -> None:
    machine(packages=("triton", "numba"))
    pytest.importorskip("numba")
    assert resolve("filtered_lrelu", "auto", CPU) == resolve("filtered_lrelu", "numba", CPU) == "numba"
    assert explain("filtered_lrelu", CPU) == ("numba", numba_status(CPU).reason)
    assert resolve("filtered_lrelu", "auto", GPU) == "triton"
    assert resolve("filtered_lrelu", "auto", torch.device("meta")) == "torch"
    assert resolve("upfirdn2d", "auto", CPU) == resolve("conv2d_resample", "auto", CPU) == "numba"
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        assert resolve("filtered_lrelu", "auto", CPU, dtype) == "torch"
        assert resolve("upfirdn2d", "auto", CPU, dtype) == "torch"
    with pytest.raises(ImplUnavailableError, match="impl='numba' has no float16; use impl='ref' or another dtype"):
        resolve("filtered_lrelu", "numba", CPU, torch.float16)
    with pytest.raises(ImplUnavailableError, match=r"impl='numba' cannot run on cuda:0: its kernels run on the CPU"):
        resolve("filtered_lrelu", "numba", GPU)


def test_without_numba(machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    machine()
    assert resolve("filtered_lrelu", "auto", CPU) == "torch"
    assert explain("filtered_lrelu", CPU) == ("torch", "Numba cannot run: the package numba is not installed; "
                                                       "pip install 'numba>=0.61'")
    with pytest.raises(ImplUnavailableError, match=r"numba is not installed; pip install 'numba>=0.61', or use"):
        resolve("filtered_lrelu", "numba", CPU)
    assert not caplog.messages  # an extra that is not installed is no news

    dispatch._import_numba.cache_clear()
    machine(packages=("triton", "numba"))
    pretended = SimpleNamespace(__version__="0.68", config=SimpleNamespace(DISABLE_JIT=1))
    monkeypatch.setattr(importlib, "import_module", lambda name: pretended)
    assert resolve("filtered_lrelu", "auto", CPU) == "torch"
    assert "NUMBA_DISABLE_JIT is set" in explain("filtered_lrelu", CPU)[1]

    def refuse(name: str) -> None:
        raise ImportError("Numba needs NumPy 2.4\nor less")

    dispatch._import_numba.cache_clear()
    monkeypatch.setattr(importlib, "import_module", refuse)
    assert resolve("filtered_lrelu", "auto", CPU) == "torch"
    assert "cannot be imported: Numba needs NumPy 2.4 or less" in explain("filtered_lrelu", CPU)[1]


def test_triton_on_a_capable_gpu(machine: Machine, all_written: None) -> None:
    machine()
    assert resolve("bias_act", "auto", GPU) == resolve("bias_act", "triton", GPU) == "triton"
    impl, reason = explain("bias_act", GPU)
    assert impl == "triton"
    assert "NVIDIA A100" in reason
    assert "gcc" in reason
    assert resolve("bias_act", "auto", CPU) == "torch"
    assert resolve("grid_sample", "auto", CPU) == "ref"
    assert triton_status(torch.device("cuda")) == triton_status(GPU)  # no index: the current device


def test_triton_windows_is_recognised(machine: Machine, all_written: None) -> None:
    """It brings a compiler and Python's headers along; whether it runs, nobody has tried."""
    machine(platform="win32", compilers=(), headers=False)
    assert resolve("bias_act", "auto", GPU) == "triton"
    said = "NVIDIA A100, compute capability 8.0; triton-windows, with which sg3 is untested"
    assert triton_status(GPU).reason == said
    machine(platform="win32", capability=(7, 5))
    dispatch._probe.cache_clear()
    assert not triton_status(GPU).usable


@pytest.mark.parametrize(
    ("what", "reason", "fix"),
    [
        ({"platform": "win32", "packages": ()}, "triton-windows is not installed, this is win32",
         "pip install triton-windows"),
        ({"platform": "darwin"}, "Linux only, this is darwin", None),
        ({"packages": ()}, "triton is not installed", "pip install triton"),
        ({"gpu": None, "cuda": None}, "PyTorch is for CPU only", "CUDA"),
        ({"gpu": None}, "no CUDA device", "nvidia-smi"),
        ({"gpu": "Tesla T4", "capability": (7, 5)}, "Tesla T4 has compute capability 7.5, .* need 8.0", None),
        ({"gpu": "MI300", "capability": (9, 4), "hip": "6.4"}, "AMD", None),
        ({"compilers": ()}, "a C compiler", "apt-get install gcc libc6-dev .*pip install ziglang"),
        ({"headers": False}, r"Python\.h", f"apt-get install {HEADERS_PACKAGE}$"),
        ({"compilers": (), "headers": False}, r"a C compiler and .*Python\.h",
         f"apt-get install gcc libc6-dev {HEADERS_PACKAGE} "),
    ],
    ids=["windows", "mac", "no-triton", "cpu-build", "no-gpu", "t4", "amd", "no-cc", "no-headers", "neither"],
)
def test_what_stands_in_the_way_of_triton(
    what: dict[str, object], reason: str, fix: str | None, machine: Machine, all_written: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine(**what)
    status = triton_status(GPU)
    assert not status.usable
    assert re.search(reason, status.reason), status
    assert re.search(fix, status.fix or "") if fix else status.fix is None, status

    with pytest.raises(ImplUnavailableError) as error:
        resolve("bias_act", "triton", GPU)
    assert status.reason in str(error.value)
    assert "\n" not in str(error.value)

    for _ in range(3):
        assert resolve("bias_act", "auto", GPU) == "torch"
    assert explain("bias_act", GPU) == ("torch", f"Triton cannot run: {status.reason}")
    assert len(caplog.messages) == 1  # one line, not one per call
    assert status.reason in caplog.messages[0]


def test_triton_on_the_cpu_needs_the_interpreter(
    machine: Machine, all_written: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(gpu=None, compilers=(), headers=False)
    with pytest.raises(ImplUnavailableError, match=r"cannot run on cpu: .*TRITON_INTERPRET=1"):
        resolve("bias_act", "triton", CPU)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert resolve("bias_act", "triton", CPU) == "triton"
    assert resolve("bias_act", "auto", CPU) == "torch"  # nobody wants the interpreter unasked


def test_compilers_in_tritons_order(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(compilers=("gcc", "clang"), packages=("triton", "ziglang"))
    assert toolchain.c_compiler() == ("/usr/bin/gcc",)
    machine(compilers=("clang",), packages=("triton", "ziglang"))
    assert toolchain.c_compiler() == ("/usr/bin/clang",)
    machine(compilers=(), packages=("triton", "ziglang"))
    assert toolchain.c_compiler() == (sys.executable, "-m", "ziglang", "cc")
    machine(compilers=("gcc", "tcc"))
    monkeypatch.setenv("CC", "tcc")
    assert toolchain.c_compiler() == ("/usr/bin/tcc",)
    for wrong in ("gcc -m64", ""):
        monkeypatch.setenv("CC", wrong)
        assert "CC=" in host_status().reason
        assert not host_status().usable


ZIG_STAND_IN = """import sys, pathlib
words = sys.argv[1:]
pathlib.Path(words[words.index("-o") + 1]).write_text(repr(words))
"""


def test_zig_builds_tritons_stub_and_nothing_else(machine: Machine, tmp_path: Path) -> None:
    """It has Triton's own options, and CC, which every other build of the process would follow, stays as it is."""
    machine()
    assert library_builder() is None  # gcc needs no help
    machine(compilers=(), packages=("triton", "ziglang"), headers=False)
    build = library_builder()
    assert build is not None
    package = tmp_path / "ziglang"
    package.mkdir()
    (package / "__main__.py").write_text(ZIG_STAND_IN)
    done = subprocess.run(
        [sys.executable, "-c", "import os, sys, triton\nfrom sg3.kernels import triton_launch\n"
         "built = triton.knobs.build.impl('stub', 'a b.c', sys.argv[1], ['lib'], ['inc'], ['libcuda.so.1', 'm'])\n"
         "print([built, 'CC' in os.environ])", str(tmp_path)],
        capture_output=True, text=True, check=True,
        env={"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}", "PATH": str(package), "HOME": "/nowhere"},
    )  # fmt: skip
    built, has_cc = literal_eval(done.stdout)
    assert not has_cc
    assert Path(built).name.startswith("stub.")
    assert literal_eval(Path(built).read_text()) == [
        "cc", "a b.c", "-O3", "-shared", "-fPIC", "-Wno-psabi", "-o", built, "-l:libcuda.so.1", "-lm", "-Llib",
        "-Iinc", f"-I{tmp_path}", f"-I{python_headers()}",
    ]  # fmt: skip


def test_the_machine_is_looked_at_once(
    machine: Machine, all_written: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine()
    looks: list[str] = []
    monkeypatch.setattr(shutil, "which", lambda name: looks.append(name) or f"/usr/bin/{name}")
    for _ in range(5):
        resolve("bias_act", "auto", GPU)
        resolve("bias_act", "auto", CPU)
    assert looks == ["gcc"]


def test_compiled_code_takes_the_answer_as_a_constant(
    all_written: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_at_files(device: torch.device) -> Status:
        os.stat(sys.executable)  # as the probe does; Dynamo cannot trace this
        return Status(True, f"pretending for {device}")

    monkeypatch.setattr(dispatch, "triton_status", look_at_files)

    def op(x: torch.Tensor, impl: str) -> torch.Tensor:
        return x + (1 if resolve("bias_act", impl, x.device) == "triton" else 2)

    compiled = torch.compile(op, backend="eager", fullgraph=True)
    assert compiled(torch.zeros(1), "triton") == 1
    assert compiled(torch.zeros(1), "auto") == 2


def test_importing_looks_at_nothing() -> None:
    code = "import sys, sg3; before = {*sys.modules}; import sg3.kernels.dispatch, torch; " \
           "print(bool({'triton', 'numba'} & set(sys.modules)), torch.cuda.is_initialized(), " \
           "'torch._dynamo' in sys.modules, " \
           "sorted(m for m in {*sys.modules} - before if m.startswith('sg3.') and not m.startswith('sg3.kernels')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=3) == ["False", "False", "False", "[]\n"]
