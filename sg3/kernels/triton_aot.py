"""Compile every kernel that sg3 can launch, for GPUs that are not there, and count what each takes.

    python -m sg3.kernels.triton_aot [--arch 80 --arch 90] [--match filtered_lrelu] [--json FILE]

The launchers run as in production, on small CPU tensors and with a stand-in for Triton's driver that only names the
target; launches are written down and compiled, not carried out. Registers and stack come from the binary (a stack means
spilled registers), shared memory from Triton, instructions from the disassembly.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from sg3.kernels.bias_act import impl_triton as bias_act
from sg3.kernels.filtered_lrelu import impl_triton as filtered_lrelu
from sg3.kernels.modulated_conv2d import impl_triton as modulated_conv2d
from sg3.kernels.modulated_conv2d import modulation_triton as modulation
from sg3.kernels.repeats import repeats
from sg3.kernels.triton_launch import INTERPRETING
from sg3.kernels.upfirdn2d import impl_triton as upfirdn2d

MODULES = (filtered_lrelu, modulated_conv2d, modulation, upfirdn2d, bias_act)

# Shared memory that one program may have, in bytes, by compute capability (CUDA C++ programming guide, appendix).
SHARED_LIMIT = {80: 166912, 86: 101376, 89: 101376, 90: 232448, 100: 232448, 120: 101376}


@dataclass(frozen=True)
class Resources:
    """What one compiled kernel takes. Registers are per thread, stack and shared memory in bytes."""

    case: str
    arch: int
    warps: int
    registers: int
    stack: int
    shared: int
    tensor_cores: str  # the kind of matrix instructions found: '', 'HMMA', 'HGMMA' (warp group) or both
    widest_load: int   # bits of the widest load from global memory
    seconds: float     # that the compilation took


class Target:
    """Stands in for a driver: names the GPU to compile for, and has nothing else."""

    def __init__(self, arch: int) -> None:
        self.arch = arch

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)

    def get_current_device(self) -> int:
        return self.arch  # compiled kernels are remembered per device

    def get_current_stream(self, device: int) -> int:
        return 0


@dataclass(frozen=True)
class Launch:
    """A launch of a Triton kernel that was written down instead of carried out."""

    kernel: Any
    arguments: tuple[Any, ...]
    grid: tuple[int, ...]
    options: dict[str, Any]

    def compile(self, arch: int) -> Any:
        """Triton's compiled kernel for sm_`arch`: `.asm`, `.metadata`, `.src.signature`."""
        driver.set_active(Target(arch))
        return RUN(self.kernel, *self.arguments, grid=self.grid, warmup=True, **self.options)


RUN = JITFunction.run


@contextmanager
def recorded(arch: int) -> Iterator[list[Launch]]:
    """The launches inside, in order; for launchers, which may ask, the GPU is one of sm_`arch`. Tensors may be on the
    CPU, and large: nobody touches them.

    Raises RuntimeError in the interpreter, which has taken the kernels' place.
    """
    if INTERPRETING:
        raise RuntimeError("TRITON_INTERPRET is set: kernels are interpreted and cannot be compiled; unset it")
    launches: list[Launch] = []

    def note(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        launches.append(Launch(self, args, grid, options))

    driver.set_active(Target(arch))
    JITFunction.run = note
    try:
        with repeats.paused():  # of another GPU
            yield launches
    finally:
        JITFunction.run = RUN


def compile_all(arch: int, match: str = "") -> Iterator[Resources]:
    """Every case of the launchers' own lists in whose name the expression `match` is found."""
    for module in MODULES:
        for name, run in module.compile_cases():
            if not re.search(match, name):
                continue
            with recorded(arch) as launches:
                run()
            for number, launch in enumerate(launches):
                start = time.perf_counter()
                kernel = launch.compile(arch)
                label = name if len(launches) == 1 else f"{name} ({number + 1})"
                yield measure(label, arch, kernel, time.perf_counter() - start)


def measure(case: str, arch: int, kernel: Any, seconds: float) -> Resources:
    """Look into the binary with the tools that come with Triton."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(kernel.asm["cubin"])

        def run(option: str) -> str:
            return subprocess.run([tool, option, binary], capture_output=True, text=True, check=True).stdout

        usage, code = run("--dump-resource-usage"), run("-sass")
    registers, stack = (int(re.search(rf"{key}:(\d+)", usage)[1]) for key in ("REG", "STACK"))  # type: ignore[index]
    loads = [int(bits) for bits in re.findall(r"\bLDG(?:STS)?\.E\.(?:\w+\.)*?(64|128)\b", code)]
    kinds = [kind for kind in ("HGMMA", "HMMA", "QGMMA", "UTCHMMA") if re.search(rf"\b{kind}\b", code)]
    return Resources(
        case, arch, kernel.metadata.num_warps, registers, stack, kernel.metadata.shared, "+".join(kinds),
        max(loads, default=32), round(seconds, 2),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Compile sg3's kernels for GPUs that are not there")
    parser.add_argument("--arch", type=int, action="append", help="compute capability, e.g. 90; may be repeated")
    parser.add_argument("--match", default="", help="only cases in whose name this regular expression is found")
    parser.add_argument("--json", type=Path, help="also write the table here")
    arguments = parser.parse_args()

    rows, bad = [], 0
    for arch in arguments.arch or [80, 90]:
        for row in compile_all(arch, arguments.match):
            rows.append(row)
            wrong = row.stack > 0 or row.shared > SHARED_LIMIT.get(arch, SHARED_LIMIT[86])
            bad += wrong
            print(f"sm_{arch} {row.case:60} {row.warps:2} warps {row.registers:4} registers {row.stack:5} stack "
                  f"{row.shared:7} shared {row.widest_load:4} bit loads {row.tensor_cores:10} {row.seconds:6.2f} s"
                  f"{'  <-- too much' if wrong else ''}", flush=True)  # fmt: skip
    if arguments.json:  # a row a line, without the times: what changes in it has changed
        lines = [json.dumps({k: v for k, v in asdict(row).items() if k != "seconds"}) for row in rows]
        kernels = ",\n  ".join(lines)
        arguments.json.write_text(f'{{"triton": "{triton.__version__}",\n "kernels": [\n  {kernels}\n]}}\n')
    if bad:
        sys.exit(f"{bad} of {len(rows)} kernels spill registers or take too much shared memory")


if __name__ == "__main__":
    main()
