"""What the marching kernels are written for, looked for in Triton's intermediate code: nothing passes between threads.

In a process of its own, where kernels are not interpreted.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

COMPILE = """
import json, sys
from sg3.kernels.filtered_lrelu import impl_triton
from sg3.kernels.triton_aot import recorded
wanted = {f"filtered_lrelu/{name}" for name in sys.argv[1:]}
codes = {}
for arch in (80, 90):
    for name, run in impl_triton.compile_cases():
        if name in wanted:
            with recorded(arch) as launches:
                run()
            compiled = launches[-1].compile(arch)
            codes[f"{name} sm_{arch}"] = [compiled.metadata.shared, compiled.asm["ttgir"]]
json.dump(codes, sys.stdout)
"""


CASES = [
    ["2->2/float16/with signs", "2->2/float16/grad"],
    ["4->2 radial/float16/with signs"],  # for symmetric filters
    pytest.param(["2->2/bfloat16/with signs", "2->2/bfloat16/grad"], marks=pytest.mark.slow),
    pytest.param(["4->2 radial/bfloat16/with signs", "2 radial->4/float16/grad", "2 radial->4/bfloat16/grad"],
                 marks=pytest.mark.slow),
]  # fmt: skip


@pytest.fixture(scope="module", params=CASES, ids=["2->2", "radial", "2->2 bf16", "radial others"])
def codes(request: pytest.FixtureRequest, compiling: dict[str, str]) -> dict[str, tuple[int, str]]:
    """For kernels that write and that read signs: bytes of shared memory, intermediate code."""
    return compiled(request.param, compiling)


def compiled(names: list[str], environ: dict[str, str]) -> dict[str, tuple[int, str]]:
    """The same of these cases."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", COMPILE, *names]
    done = subprocess.run(command, env=environ, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert len(found) == 2 * len(names)
    return found


def layouts(code: str) -> dict[str, str]:
    """Names of layouts and what they are."""
    return dict(re.findall(r"^(#\w+) = (#ttg\.\S.*|#ttg\.\w+<\{.*)$", code, flags=re.MULTILINE))


def pairs_along_the_last_axis(layout: str) -> bool:
    """Whether elements 2 i and 2 i + 1 of a thread's registers are neighbours in a row."""
    if "nvidia_mma" in layout:
        return "instrShape = [16, 8]" in layout
    if "linear" in layout:
        return re.search(r"register = \[\[0, 1\]", layout) is not None
    return re.search(r"sizePerThread = \[1, (2|4|8)\].*order = \[1, 0\]", layout) is not None


def test_all_stays_in_registers(codes: dict[str, tuple[int, str]]) -> None:
    """No shared memory: no operand, load or store goes through it. (Layouts change only by other names for them.)"""
    for name, (shared, code) in codes.items():
        assert shared == 0, name
        assert code.count("tt.dot ") > 30, name
        assert not re.search(r"ttg\.(local|async)", code), name


def test_halves_of_a_register_are_neighbours_in_a_row(codes: dict[str, tuple[int, str]]) -> None:
    """What `signs.py` takes for granted of the instructions that it writes in PTX: both halves have one place in their
    bytes."""
    for name, (_, code) in codes.items():
        known = layouts(code)
        lines = [line for line in code.splitlines() if "tt.elementwise_inline_asm" in line]
        assert lines, name
        for line in lines:
            used = re.findall(r"tensor<16x16x\w+, (#\w+)>", line)
            assert used, line
            assert all(pairs_along_the_last_axis(known[layout]) for layout in used), (name, line)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_operands_are_as_wide_as_threads_have_them(compiling: dict[str, str]) -> None:
    """Of float32 (`unseen` in marching_products.py): if twice as wide, they and a matrix are shuffled."""
    names = ["2->2/float32/grad", "4->2/float32/with signs", "2->4/float32/grad"]
    for name, (shared, code) in compiled(names, compiling).items():
        assert shared == 0, name
        assert code.count("tt.dot ") > 30, name
        assert "kWidth = 2" in code, name
        assert "kWidth = 4" not in code, name
