"""Where kernels are tested: in Triton's interpreter on the CPU, and natively where there is a GPU and -m gpu."""

from __future__ import annotations

import os

import pytest
import torch

from sg3.kernels.dispatch import triton_status


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():  # the interpreter would take its tensors, too
        pytest.skip("PyTorch sees no CUDA device")
    status = triton_status(torch.device(request.param))
    if not status.usable:
        pytest.skip(f"Triton cannot run on {request.param}: {status.reason}")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # of the convolutions beside kernels
    return request.param


@pytest.fixture(scope="session")
def compiling(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of processes in which kernels are compiled, not interpreted. They share Triton's cache."""
    environ = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return environ | {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))}
