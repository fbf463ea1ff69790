"""The newest PyTorch that pip finds, with the Triton that it asks for, in an environment of its own.

Slow, and pip downloads about three gigabytes where it finds a build for CUDA only: `pytest -m slow -s
tests/test_newest_torch.py`. docs/install.md has what came out.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import GOLDEN, ROOT
from tests.helpers.environments import build_wheel, environment

# What leans on PyTorch's insides: registered ops, gradients, compiling, exporting, its files, the order of its sums.
TESTS = (
    "kernels/test_reference.py", "kernels/test_registration.py", "kernels/test_golden.py", "kernels/test_fast_torch.py",
    "kernels/test_triton_bias_act.py", "kernels/test_triton_upfirdn2d.py", "kernels/test_aot.py",
    "kernels/test_numba_filtered_lrelu.py", "models/test_golden.py", "models/test_networks.py",
    "models/test_augment.py",
    "formats/test_load_save.py", "formats/test_torch_file.py", "formats/test_torchscript.py",
    "metrics/test_functional.py", "metrics/test_features.py", "tools/test_export.py", "train/test_compiled.py",
    "train/test_resume.py", "train/test_distributed.py", "compat/test_cpu.py", "compat/test_run.py",
    "compat/test_patches.py",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
def test_with_the_newest_pytorch(tmp_path: Path) -> None:
    there = environment(tmp_path / "env")
    there.install("--upgrade", "torch")
    there.install(f"{build_wheel(tmp_path / 'wheel')}[test]")
    program = "import torch, triton, sys; print(torch.__version__, triton.__version__, sys.version)"
    print(there.run("-c", program).out)
    golden = {"SG3_GOLDEN": str(GOLDEN)} if GOLDEN.is_dir() else {}
    files = [f"tests/{name}" for name in TESTS]
    result = there.run("-m", "pytest", "-p", "no:cacheprovider", *files, cwd=ROOT, minutes=150, **golden)
    print(result.out)
    assert result.code == 0, result.err
    assert there.sg3("doctor").code == 0
