"""A room and its function share a name; whatever is imported first, the package's attribute is the function."""

from __future__ import annotations

import subprocess
import sys

import pytest

ROOMS = ("bias_act", "filtered_lrelu", "modulated_conv2d", "upfirdn2d")


@pytest.mark.parametrize(
    "first",
    ["", "import sg3.kernels.filtered_lrelu.banded", "from sg3.kernels.upfirdn2d.op import upfirdn2d_ref",
     "from sg3.kernels.bias_act import op; import sg3.kernels.modulated_conv2d.op"],
)  # fmt: skip
def test_the_attribute_is_the_function(first: str) -> None:
    code = f"""
import sys
{first}
from sg3.kernels import {", ".join(ROOMS)}
import sg3.kernels, torch
assert not {{"triton", "numba", "torch._dynamo"}} & set(sys.modules)
assert not torch.cuda.is_initialized()
for name in {ROOMS}:
    module = __import__(f"sg3.kernels.{{name}}.op", fromlist=["op"])
    assert getattr(sg3.kernels, name) is getattr(module, name), name
    assert callable(getattr(module, name)), name
from sg3.kernels.filtered_lrelu import op, geometry
assert op.filtered_lrelu is filtered_lrelu
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
