"""Shared fixtures. Golden data (numbers of the original implementation) is found here and nowhere else."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.arrays import Arrays
from tests.helpers.commands import Result
from tests.helpers.image_files import write_dataset

if not torch.cuda.is_available():  # read when a kernel is defined, so before any test imports one
    os.environ["TRITON_INTERPRET"] = "1"
torch.set_num_threads(1)  # the networks here are too small to gain from more, and machines too busy

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(os.environ.get("SG3_GOLDEN") or ROOT.parent / "shared" / "golden")  # may be absent: use the fixture


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Tests on bytes are counted, not named by their content: archives hold the time, and all processes of a run
    must collect the same names (pytest-xdist stops otherwise).
    """
    return argname if isinstance(val, (bytes, bytearray)) else None


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden data: $SG3_GOLDEN, or shared/golden beside the project. Skips where there is none."""
    if not (GOLDEN / "ops.npz").is_file():
        if os.environ.get("SG3_REQUIRE_GOLDEN"):
            pytest.fail(f"golden data required, but {GOLDEN} has no ops.npz")
        pytest.skip("golden data not available (set SG3_GOLDEN to its folder)")
    return GOLDEN


@pytest.fixture(scope="session")
def golden_networks(golden: Path) -> tuple[dict[str, Any], Arrays]:
    """Constructor arguments and loss settings, and the arrays, of the golden networks."""
    return json.loads((golden / "networks.json").read_text()), Arrays(golden / "networks.npz")


@pytest.fixture(scope="session")
def golden_ops(golden: Path) -> tuple[list[dict[str, Any]], Arrays]:
    """The golden op cases and their arrays."""
    return json.loads((golden / "ops.json").read_text()), Arrays(golden / "ops.npz")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums of the tests that follow depend on it."""
    yield
    left = torch.get_num_threads()
    torch.set_num_threads(1)
    assert left == 1, "the test leaves PyTorch another number of threads"


@pytest.fixture(autouse=True, scope="session")
def _checked_memory() -> Iterator[None]:
    """Every interpreted kernel of every test has its loads and stores checked."""
    if "TRITON_INTERPRET" not in os.environ or importlib.util.find_spec("triton") is None:
        yield
        return
    from tests.helpers.interpreter_checks import checked_memory

    with checked_memory():
        yield


@pytest.fixture
def traced_gradients() -> Iterator[None]:
    """torch.compile takes `torch.autograd.grad` into its graph. Skips where PyTorch cannot (2.10)."""
    if not hasattr(torch._dynamo.config, "trace_autograd_ops"):
        pytest.skip("this PyTorch cannot compile a gradient's gradient")
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        yield


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every `x.new_empty` comes filled with NaN (integers: all ones), so that what a kernel forgets to write shows."""

    def filling(plain: Any) -> Any:
        def allocate(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            result = plain(self, *args, **kwargs)
            return result.fill_(float("nan") if result.is_floating_point() else -1 if result.dtype.is_signed else 255)

        return allocate

    for name in ("new_empty", "new_empty_strided"):
        monkeypatch.setattr(torch.Tensor, name, filling(getattr(torch.Tensor, name)))


@pytest.fixture(scope="session")
def discs(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "discs.zip")


@pytest.fixture(scope="session")
def labelled_discs(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "labelled.zip", labels=3)


@pytest.fixture
def run(capfd) -> Callable[..., Result]:
    """run("train", "--outdir=x") -> Result, in this process."""

    def call(*args: object) -> Result:
        capfd.readouterr()
        from sg3.cli import _run

        code = _run([str(arg) for arg in args], debug=False)
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return call
