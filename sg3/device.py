"""Which device a command runs on."""

from __future__ import annotations

import torch

from sg3.errors import UsageError

EXPECTED = "auto, cpu, cuda or cuda:N"


def choose_device(name: str) -> torch.device:
    """'auto' is the first GPU, or the CPU without one. Raises UsageError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device={name}: expected {EXPECTED}") from None
    if device.type not in ("cpu", "cuda", "mps") or (device.type == "mps" and not torch.backends.mps.is_available()):
        raise UsageError(f"--device={name}: nothing runs there; expected {EXPECTED}")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise UsageError(f"--device={name}: {torch.cuda.device_count()} CUDA devices found; see `sg3 doctor`")
    return device
