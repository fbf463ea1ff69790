"""Which device a command runs on, and what the process does so as not to wait there."""

from __future__ import annotations

import ctypes

import torch

from sg3.errors import UsageError
from sg3.threads import leave_cpus_to_others

EXPECTED = "auto, cpu, cuda or cuda:N"
# From glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
LARGEST_ON_HEAP = 32 * 2**20  # glibc takes no larger value; what is larger comes from the system every time
NEVER = -1


def choose_device(name: str) -> torch.device:
    """'auto' is the first GPU, or the CPU without one. Raises UsageError for a device that is not there.

    For the CPU, the process is set up by `keep_freed_memory`.
    """
    device = _find(name)
    if device.type == "cpu":
        keep_freed_memory()
    return device


def device_for_work(name: str) -> torch.device:
    """`choose_device` for a command: on a CPU it takes as many threads as others leave CPUs."""
    device = choose_device(name)
    if device.type == "cpu":
        leave_cpus_to_others()
    return device


def _find(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise UsageError(f"--device={name}: expected {EXPECTED}") from None
    if device.type not in ("cpu", "cuda", "mps") or (device.type == "mps" and not torch.backends.mps.is_available()):
        raise UsageError(f"--device={name}: nothing runs there; expected {EXPECTED}")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise UsageError(f"--device={name}: {torch.cuda.device_count()} CUDA devices found; see `sg3 doctor`")
    return device


def keep_freed_memory() -> bool:
    """Have glibc keep the memory that tensors free for the next ones; False where there is no glibc.

    By default it hands what lies at the end of the heap back to the system, which gives it again moments later, zeroed
    page by page: a training step frees all of its tensors, and the next one waits for a hundred megabytes of new pages
    (measured on two cores: a seventh of a training step, a fifth of generating an image). The process stays as large as
    it was at its largest.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_ON_HEAP) and mallopt(M_TRIM_THRESHOLD, NEVER))


def upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """On the device. From pageable memory the copy would wait for everything that a GPU has yet to do."""
    if tensor.device.type == "cpu" and device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
