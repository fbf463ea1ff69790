"""Which implementation of an op runs, and why. Nothing else decides.

    impl     what it is                              where it runs
    triton   Triton kernels                          NVIDIA GPU of compute capability 8.0 or newer, Linux
                                                     (any device under TRITON_INTERPRET=1, for tests)
    torch    fast PyTorch                            any device
    ref      the plain formula, any dtype            any device
    auto     the first of these that exists for the op and runs on the device

`cuda`, the name the original used, means `auto`. The environment variable SG3_IMPL replaces `auto`, so that a
whole program can be run on one implementation; an op that has no such implementation runs on the best it has. What is
asked for by name either runs or raises; it is never swapped for another.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import logging
import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

import torch

# The implementations of each op, best first. The plain formula always exists and comes last.
IMPLEMENTATIONS: Mapping[str, tuple[str, ...]] = {
    "bias_act": ("triton", "ref"),
    "upfirdn2d": ("triton", "torch", "ref"),
    "filtered_lrelu": ("triton", "torch", "ref"),
    "modulated_conv2d": ("torch", "triton", "ref"),  # but for shapes that its own table names
    "conv2d_resample": ("triton", "torch", "ref"),
    "grid_sample": ("torch", "ref"),
}

IMPL_NAMES = ("auto", "triton", "torch", "ref")


class ImplUnavailableError(RuntimeError):
    """The implementation asked for cannot run on this device, or does not exist for this op."""

    exit_code = 2  # on the command line: the request does not fit the machine


class UnknownImplError(ValueError):
    """`impl` or SG3_IMPL is not the name of an implementation."""

    exit_code = 2


@dataclass(frozen=True)
class TritonStatus:
    """Whether Triton kernels can run on a device; if not, what stands in the way and how to remove it."""

    usable: bool
    reason: str
    fix: str | None = None


def resolve(
    op: str,
    impl: str,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    order: tuple[str, ...] | None = None,
) -> str:
    """The implementation to run for `impl` on `device`: 'triton', 'torch' or 'ref'. Triton's take no float64.

    `order`, best first, takes the place of the op's row in `IMPLEMENTATIONS` where the choice is left open.
    Raises ValueError for a name that does not exist and ImplUnavailableError for one that cannot run here.
    """
    available = _available(op)
    asked, source = _asked_for(impl)
    if asked == "auto":
        best_first = available if order is None else order
        return _best(best_first if dtype != torch.float64 else _without_triton(best_first), device)
    instead = "unset SG3_IMPL" if source.startswith("SG3_IMPL") else "use impl='auto'"
    if asked not in available:
        if source.startswith("SG3_IMPL"):  # meant for the ops that have it
            return _best(_without_triton(available), device)
        raise ImplUnavailableError(f"{op}: {source} does not exist for this op yet, "
                                   f"only {', '.join(available)}; {instead}")
    if asked == "triton":
        status = triton_status(device)
        if not status.usable:
            fix = f"{status.fix}, or {instead}" if status.fix else instead
            raise ImplUnavailableError(f"{op}: {source} cannot run on {device}: {status.reason}; {fix}")
        if dtype == torch.float64:
            raise ImplUnavailableError(f"{op}: {source} has no float64; use impl='ref' or another dtype")
    return asked


# torch.compile calls this function while tracing and keeps the answer: the probe looks at files and cannot be
# traced. torch.compiler.assume_constant_result sets the same mark, but imports Dynamo first, a second's work.
resolve.__dict__["_dynamo_marked_constant"] = True


def explain(op: str, device: torch.device) -> tuple[str, str]:
    """What `impl='auto'` means for an op on a device: (implementation, reason). Raises as `resolve` does."""
    available = _available(op)
    impl = resolve(op, "auto", device)
    asked, source = _asked_for("auto")
    if asked != "auto":
        return impl, f"{source} asks for it" if impl == asked else f"{source}, which this op does not have"
    if impl == "triton":
        return impl, triton_status(device).reason
    if device.type == "cuda" and "triton" in available:
        return impl, f"Triton cannot run: {triton_status(device).reason}"
    return impl, f"the fastest on {device.type}"


def describe(device: torch.device) -> str:
    """One line for a log: what runs which ops on a device. Raises as `resolve` does."""
    ops: dict[str, list[str]] = {}
    for op in IMPLEMENTATIONS:
        ops.setdefault(resolve(op, "auto", device), []).append(op)
    return "; ".join(f"{impl} for {', '.join(names)}" for impl, names in ops.items())


def triton_status(device: torch.device) -> TritonStatus:
    """Whether Triton kernels can run on `device`, and why. Looks at the machine once per device."""
    index = device.index
    if index is None:
        index = torch.cuda.current_device() if device.type == "cuda" and torch.cuda.is_available() else 0
    return _probe(device.type, index, _interpreting())


def c_compiler() -> tuple[str, ...] | None:
    """The command to compile Triton's launcher stub: CC, gcc, clang (Triton's order), else zig, else None."""
    if "CC" in os.environ:
        named = shutil.which(os.environ["CC"])  # Triton runs CC as one word: no arguments in it
        return (named,) if named else None
    found = shutil.which("gcc") or shutil.which("clang")
    if found:
        return (found,)
    if importlib.util.find_spec("ziglang"):
        return (sys.executable, "-m", "ziglang", "cc")
    return None


def prepare_c_compiler(cache: Path, environ: MutableMapping[str, str] = os.environ) -> None:
    """Make the compiler of `c_compiler` the one Triton uses; to be called before the first kernel launch.

    gcc and clang it finds by itself. Zig's takes four words where Triton allows one, so a two-line script is
    written to the folder `cache` and named in CC.
    """
    command = c_compiler()
    if command is None or len(command) == 1:
        return
    text = '#!/bin/sh\nexec "{}" {} "$@"\n'.format(command[0], " ".join(command[1:]))
    name = f"zig-cc-{hashlib.sha256(text.encode()).hexdigest()[:8]}"  # one for each Python that has ziglang
    script = cache / name
    if not script.exists():
        cache.mkdir(parents=True, exist_ok=True)
        draft = cache / f"{name}.{os.getpid()}"
        draft.write_text(text)
        draft.chmod(0o755)
        draft.replace(script)  # other processes see the whole script or none
    environ["CC"] = str(script)


def python_headers() -> Path:
    """The folder in which Triton's build looks for Python.h."""
    scheme = sysconfig.get_default_scheme()
    if scheme == "posix_local":  # Debian's own scheme for packages; headers are never there
        scheme = "posix_prefix"
    return Path(sysconfig.get_paths(scheme=scheme)["include"])


def host_status() -> TritonStatus:
    """Triton's launcher stub is compiled on this machine at the first launch: is there what that takes?

    The Debian packages named are enough in a slim container; gcc only recommends the C library's headers.
    """
    compiler, headers = c_compiler(), python_headers()
    if compiler is None and "CC" in os.environ:
        return TritonStatus(False, f"CC={os.environ['CC']!r} is not a program (one word, without arguments)",
                            "unset CC or name a C compiler")
    missing, packages = [], []
    if compiler is None:
        missing.append("a C compiler")
        packages += ["gcc", "libc6-dev"]
    if not (headers / "Python.h").is_file():
        missing.append(f"{headers / 'Python.h'}")
        packages.append(f"python{sys.version_info[0]}.{sys.version_info[1]}-dev")
    if missing:
        fix = f"apt-get install {' '.join(packages)}"
        if compiler is None:
            fix += " (for the compiler, pip install 'sg3[cc]' does as well)"
        return TritonStatus(False, f"Triton's first launch needs {' and '.join(missing)}", fix)
    assert compiler is not None
    return TritonStatus(True, f"C compiler {' '.join(compiler)}")


def _available(op: str) -> tuple[str, ...]:
    if op not in IMPLEMENTATIONS:
        raise ValueError(f"op: got {op!r}, expected one of {', '.join(IMPLEMENTATIONS)}")
    return IMPLEMENTATIONS[op]


def _asked_for(impl: str) -> tuple[str, str]:
    """The name to follow and, for messages, who asked for it."""
    argument, name = "impl", impl
    if name in ("auto", "cuda") and os.environ.get("SG3_IMPL"):
        argument, name = "SG3_IMPL", os.environ["SG3_IMPL"]
    if name == "cuda":
        name = "auto"
    if name not in IMPL_NAMES:
        raise UnknownImplError(f"{argument}: got {name!r}, expected one of {', '.join(IMPL_NAMES)}")
    return name, f"{argument}={name!r}"


def _without_triton(available: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in available if name != "triton")


def _best(available: tuple[str, ...], device: torch.device) -> str:
    for name in available:
        if name != "triton":
            return name
        if device.type == "cuda":  # elsewhere Triton has only its interpreter, which nobody wants unasked
            status = triton_status(device)
            if status.usable:
                return name
            _say_once(f"sg3: PyTorch instead of Triton kernels on {device}: {status.reason}"
                      + (f"; {status.fix}" if status.fix else ""))
    raise AssertionError(f"no implementation but Triton's in {available}")


@functools.cache
def _say_once(line: str) -> None:
    logging.getLogger("sg3").warning(line)


def _interpreting() -> bool:
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


@functools.cache
def _probe(device_type: str, index: int, interpreting: bool) -> TritonStatus:
    """The one look at the machine, kept: what it reads is not expected to change while a process runs."""
    if not sys.platform.startswith("linux"):
        return TritonStatus(False, f"sg3 uses Triton on Linux only, this is {sys.platform}")
    if importlib.util.find_spec("triton") is None:
        return TritonStatus(False, "the package triton is not installed", "pip install triton")
    if interpreting:
        return TritonStatus(True, "TRITON_INTERPRET=1: Triton's interpreter, on any device, slow, for tests")
    if device_type != "cuda":
        return TritonStatus(False, f"kernels run on a CUDA device, not on {device_type}",
                            "move the tensors to a GPU, or set TRITON_INTERPRET=1 to test kernels")
    if torch.version.hip is not None:
        return TritonStatus(False, "this is an AMD GPU, the kernels are written for NVIDIA's")
    if not torch.cuda.is_available():
        if torch.version.cuda is None:
            return TritonStatus(False, "this build of PyTorch is for CPU only", "install one for CUDA")
        return TritonStatus(False, "PyTorch sees no CUDA device", "see whether nvidia-smi does")
    name, (major, minor) = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
    if major < 8:
        return TritonStatus(False, f"{name} has compute capability {major}.{minor}, the kernels need 8.0")
    host = host_status()
    if not host.usable:
        return host
    return TritonStatus(True, f"{name}, compute capability {major}.{minor}; {host.reason}")
