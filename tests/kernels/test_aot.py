"""Every kernel compiles for GPUs that are not here, without spills, within their shared memory, as the table says.

The table is `tests/kernels/resources.json`, to be renewed by `python -m sg3.kernels.triton_aot --json
tests/kernels/resources.json`. With the Triton that wrote it, it holds to the register; with others, limits hold.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

TABLE = Path(__file__).with_name("resources.json")

# The commonest class, which test_marching_layouts.py looks at, too, and one of each file of kernels.
QUICK = "|".join([
    r"filtered_lrelu/2->2/float16/(with signs|grad)", r"filtered_lrelu/(1->1|4->2 radial)/float16/with signs",
    r"modulated_conv2d/small float16 nchw", r"upfirdn2d/float16/contiguous/4x4/up1down1",
    r"^bias_act/lrelu/float16/contiguous",
])  # fmt: skip


def compile_for(archs: list[int], match: str, folder: Path, environ: dict[str, str]) -> list[dict[str, Any]]:
    """In a process of its own. Fails on spills and too much shared memory."""
    command = [sys.executable, "-m", "sg3.kernels.triton_aot", f"--match={match}", f"--json={folder / 'table.json'}"]
    command += [f"--arch={arch}" for arch in archs]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    wrong = [line for line in done.stdout.splitlines() if "too much" in line]
    assert done.returncode == 0, "\n".join([*wrong, done.stderr[-3000:]])
    return json.loads((folder / "table.json").read_text())["kernels"]


def check(rows: list[dict[str, Any]]) -> None:
    """Against the tracked table."""
    table = json.loads(TABLE.read_text())
    expected = {(row["case"], row["arch"]): row for row in table["kernels"]}
    for row in rows:
        was = expected[row["case"], row["arch"]]
        if version("triton") == table["triton"]:
            assert row == was
        # Another compiler may trade registers, but tensor cores that were there must not be lost.
        assert bool(row["tensor_cores"]) == bool(was["tensor_cores"]), row


def test_some_kernels(tmp_path: Path, compiling: dict[str, str]) -> None:
    rows = compile_for([80, 90], QUICK, tmp_path, compiling)
    assert len(rows) == 14
    check(rows)


def test_the_table_is_complete_and_has_no_spill() -> None:
    """Every case that the launchers know, for both architectures; the rules hold for what is tracked as well."""
    from sg3.kernels.triton_aot import MODULES

    names = {name for module in MODULES for name, _ in module.compile_cases()}
    rows = json.loads(TABLE.read_text())["kernels"]
    for arch, shared in ((80, 166912), (90, 232448)):
        of_arch = [row for row in rows if row["arch"] == arch]
        assert {row["case"].partition(" (")[0] for row in of_arch} == names
        assert all(row["stack"] == 0 and row["shared"] <= shared for row in of_arch)
    # Half precision is multiplied by tensor cores, exact float32 is not.
    for row in rows:
        if row["case"].startswith(("filtered_lrelu/2->2/", "modulated_conv2d/wide")):
            exact = "float32 ieee" in row["case"] or "modulated_conv2d/wide float32 n" in row["case"]
            looks_for_the_largest = row["case"].endswith(" (1)")  # before it multiplies float32 in parts
            assert bool(row["tensor_cores"]) != (exact or looks_for_the_largest), row


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_every_kernel(tmp_path: Path, compiling: dict[str, str]) -> None:
    check(compile_for([80, 90], "", tmp_path, compiling))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("arch", [86, 89, 100, 120])
def test_other_architectures(arch: int, tmp_path: Path, compiling: dict[str, str]) -> None:
    """What is not in the table, smaller Ampere, Ada and Blackwell: no spills, and within their shared memory."""
    assert len(compile_for([arch], "", tmp_path, compiling)) >= 250
