"""What a command on a CPU does with the memory of freed tensors."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys, torch
from sg3 import device
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # no huge pages: the counts below are of pages of 4 kB
# The worst that glibc does, always: every large tensor is new memory. By default it depends on what else there is.
assert ctypes.CDLL(None).mallopt(device.M_MMAP_THRESHOLD, 2**20)
if sys.argv[1] == "keep":
    assert device.choose_device("cpu").type == "cpu"

def faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        [torch.ones(2**20) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(8)
print(faults(8))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc takes settings")
def test_freed_memory_is_used_again() -> None:
    """Page faults of 8 x 4 tensors of 4 MB, 1,024 pages each: all or none."""
    faults = {}
    for mode in ("plain", "keep"):
        done = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True)
        faults[mode] = int(done.stdout)
    assert faults["keep"] < 200
    assert faults["plain"] > 30_000
