"""Where kernels are tested: in Triton's interpreter on the CPU, and natively where there is a GPU and -m gpu."""

from __future__ import annotations

import pytest
import torch

from sg3.kernels.dispatch import triton_status


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    status = triton_status(torch.device(request.param))
    if not status.usable:
        pytest.skip(f"Triton cannot run on {request.param}: {status.reason}")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # of the convolutions beside kernels
    return request.param
