"""Which implementation of an op runs, and why.

    impl     what it is                              where it runs
    triton   Triton kernels                          NVIDIA GPU of compute capability 8.0 or newer, Linux
                                                     (any device under TRITON_INTERPRET=1, for tests)
    numba    kernels for CPUs, of sg3's extra `cpu`  CPU, float32
    torch    fast PyTorch                            any device
    ref      the plain formula, any dtype            any device
    auto     the first of these that exists for the op and runs on the device

`cuda`, the name the original used, means `auto`. The environment variable SG3_IMPL replaces `auto`, so that a
whole program can be run on one implementation; an op that has no such implementation runs on the best it has. What is
asked for by name either runs or raises; it is never swapped for another. `torch` serves every op: one that
has no faster form in PyTorch than the plain formula runs that.

Three ops add a rule, where they call `resolve`: grid_sample's `auto` is `ref` for a grid that requires a gradient,
modulated_conv2d's `ref` is `torch` for an empty batch, and upfirdn2d's `auto` leaves to `torch` the shapes at which
Numba is slower on one thread; on several `auto` is `torch` here already.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import torch

from sg3.kernels import toolchain
from sg3.kernels.toolchain import Status

# The implementations of each op, best first. The plain formula always exists and comes last.
IMPLEMENTATIONS: Mapping[str, tuple[str, ...]] = {
    "bias_act": ("triton", "ref"),
    "upfirdn2d": ("triton", "numba", "torch", "ref"),
    "filtered_lrelu": ("triton", "numba", "torch", "ref"),
    "modulated_conv2d": ("torch", "triton", "ref"),
    "modulation": ("triton", "ref"),  # modulated_conv2d's weights and scales
    "conv2d_resample": ("triton", "numba", "torch", "ref"),
    "grid_sample": ("torch", "ref"),
}

# Ops of which most calls are too short for Numba to use a second thread (`python -m bench.resampling steps`).
NUMBA_ON_ONE_THREAD = frozenset({"upfirdn2d", "conv2d_resample"})

KERNELS = ("triton", "numba")  # do not run everywhere

IMPL_NAMES = ("auto", "triton", "numba", "torch", "ref")


class ImplUnavailableError(RuntimeError):
    """The implementation asked for cannot run on this device, or does not exist for this op."""

    exit_code = 2  # on the command line: the request does not fit the machine


class UnknownImplError(ValueError):
    """`impl` or SG3_IMPL is not the name of an implementation."""

    exit_code = 2


def resolve(op: str, impl: str, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    """The implementation to run for `impl` on `device`: 'triton', 'numba', 'torch' or 'ref', one that takes `dtype`.

    Raises ValueError for a name that does not exist and ImplUnavailableError for one that cannot run here.
    """
    available = _available(op)
    asked, source = _asked_for(impl)
    if asked == "auto":
        if op in NUMBA_ON_ONE_THREAD and torch.get_num_threads() > 1:
            available = tuple(name for name in available if name != "numba")
        return _best(available, device, dtype)
    instead = "unset SG3_IMPL" if source.startswith("SG3_IMPL") else "use impl='auto'"
    if asked == "torch" and "torch" not in available:
        return "ref"
    if asked not in available:
        if source.startswith("SG3_IMPL"):  # meant for the ops that have it
            return _best(tuple(name for name in available if name != "triton"), device, dtype)
        raise ImplUnavailableError(f"{op}: {source} does not exist for this op, "
                                   f"only {', '.join(available)}; {instead}")
    if asked in KERNELS:
        status = _status(asked, device)
        if not status.usable:
            fix = f"{status.fix}, or {instead}" if status.fix else instead
            raise ImplUnavailableError(f"{op}: {source} cannot run on {device}: {status.reason}; {fix}")
        if not _takes(asked, dtype):
            kind = str(dtype).removeprefix("torch.")
            raise ImplUnavailableError(f"{op}: {source} has no {kind}; use impl='ref' or another dtype")
    return asked


# torch.compile calls this function while tracing and keeps the answer: the probe looks at files and cannot be
# traced. torch.compiler.assume_constant_result sets the same mark, but imports Dynamo first, a second's work.
resolve.__dict__["_dynamo_marked_constant"] = True


@contextmanager
def asking_for(impl: str) -> Iterator[None]:
    """Inside, SG3_IMPL asks for this implementation, in the whole process; afterwards it is what it was."""
    before = os.environ.get("SG3_IMPL")
    os.environ["SG3_IMPL"] = impl
    try:
        yield
    finally:
        del os.environ["SG3_IMPL"]
        if before is not None:
            os.environ["SG3_IMPL"] = before


def explain(op: str, device: torch.device) -> tuple[str, str]:
    """What `impl='auto'` means for an op on a device: (implementation, reason). Raises as `resolve` does."""
    available = _available(op)
    impl = resolve(op, "auto", device)
    asked, source = _asked_for("auto")
    if asked != "auto":
        return impl, f"{source} asks for it" if impl == asked else f"{source}, which this op does not have"
    if impl in KERNELS:
        return impl, _status(impl, device).reason
    if device.type == "cuda" and "triton" in available:
        return impl, f"Triton cannot run: {triton_status(device).reason}"
    if device.type == "cpu" and "numba" in available:
        status = numba_status(device)
        if status.usable:
            return impl, "the fastest on several threads"
        return impl, f"Numba cannot run: {status.reason}; {status.fix}"
    return impl, f"the fastest on {device.type}"


def describe(device: torch.device, besides: Collection[str] = ()) -> str:
    """One line for a log: what runs which ops on a device, but for those `besides`. Raises as `resolve` does."""
    ops: dict[str, list[str]] = {}
    for op in (op for op in IMPLEMENTATIONS if op not in besides):
        ops.setdefault(resolve(op, "auto", device), []).append(op)
    return "; ".join(f"{impl} for {', '.join(names)}" for impl, names in ops.items())


def triton_status(device: torch.device) -> Status:
    """Whether Triton kernels can run on `device`, and why. Looks at the machine once per device."""
    index = device.index
    if index is None:
        index = torch.cuda.current_device() if device.type == "cuda" and torch.cuda.is_available() else 0
    return _probe(device.type, index, _interpreting())


def numba_status(device: torch.device) -> Status:
    """Whether Numba kernels can run on `device`, and why. Imports Numba the first time that the CPU is asked for."""
    if device.type != "cpu":
        return Status(False, f"its kernels run on the CPU, not on {device.type}")
    return _import_numba()


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


def _status(impl: str, device: torch.device) -> Status:
    return triton_status(device) if impl == "triton" else numba_status(device)


def _takes(impl: str, dtype: torch.dtype) -> bool:
    if impl == "numba":
        return dtype == torch.float32
    return impl != "triton" or dtype != torch.float64


def _best(available: tuple[str, ...], device: torch.device, dtype: torch.dtype) -> str:
    for name in available:
        if name not in KERNELS:
            return name
        if not _takes(name, dtype):
            continue
        if name == "triton" and device.type != "cuda":
            continue  # elsewhere Triton has only its interpreter, which nobody wants unasked
        status = _status(name, device)
        if status.usable:
            return name
        if name == "triton":
            _say_once(f"sg3: PyTorch instead of Triton kernels on {device}: {status.reason}"
                      + (f"; {status.fix}" if status.fix else ""))
    raise AssertionError(f"nothing among {available} runs everywhere")


@functools.cache
def _say_once(line: str) -> None:
    logging.getLogger("sg3").warning(line)


def _interpreting() -> bool:
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


@functools.cache
def _import_numba() -> Status:
    if importlib.util.find_spec("numba") is None:
        return Status(False, "the package numba is not installed", "pip install 'numba>=0.61'")
    try:
        numba = importlib.import_module("numba")
    except Exception as error:  # it refuses a NumPy that is too new for it, for one
        return Status(False, f"the package numba cannot be imported: {' '.join(str(error).split())}",
                      "pip install --upgrade numba")
    if numba.config.DISABLE_JIT:
        return Status(False, "NUMBA_DISABLE_JIT is set, so its kernels would be plain Python", "unset it")
    return Status(True, f"Numba {numba.__version__}")


@functools.cache
def _probe(device_type: str, index: int, interpreting: bool) -> Status:
    """The one look at the machine, kept: what it reads is not expected to change while a process runs."""
    on_windows = sys.platform == "win32"
    if on_windows and importlib.util.find_spec("triton") is None:
        return Status(False, "the package triton-windows is not installed, this is win32", "pip install triton-windows")
    if not on_windows and not sys.platform.startswith("linux"):
        return Status(False, f"sg3 uses Triton on Linux only, this is {sys.platform}")
    if importlib.util.find_spec("triton") is None:
        return Status(False, "the package triton is not installed", "pip install triton")
    if interpreting:
        return Status(True, "TRITON_INTERPRET=1: Triton's interpreter, on any device, slow, for tests")
    if device_type == "meta":
        return Status(True, "on meta nothing runs, only shapes are worked out")
    if device_type != "cuda":
        return Status(False, f"kernels run on a CUDA device, not on {device_type}",
                      "move the tensors to a GPU, or set TRITON_INTERPRET=1 to test kernels")
    if torch.version.hip is not None:
        return Status(False, "this is an AMD GPU, the kernels are written for NVIDIA's")
    if not torch.cuda.is_available():
        if torch.version.cuda is None:
            return Status(False, "this build of PyTorch is for CPU only", "install one for CUDA")
        return Status(False, "PyTorch sees no CUDA device", "see whether nvidia-smi does")
    name, (major, minor) = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
    if major < 8:
        return Status(False, f"{name} has compute capability {major}.{minor}, the kernels need 8.0")
    if on_windows:  # that package brings a compiler
        return Status(True, f"{name}, compute capability {major}.{minor}; triton-windows, with which sg3 is untested")
    host = toolchain.host_status()
    if not host.usable:
        return host
    return Status(True, f"{name}, compute capability {major}.{minor}; {host.reason}")
