"""`--device=cpu`: wherever a script says CUDA, PyTorch understands the CPU.

    device objects      torch.device("cuda", 0) is torch.device("cpu"), also for comparisons and in pickles
    strings, numbers    device="cuda:1", x.to(0), map_location="cuda" ...: a function mode reads every call's arguments
    x.cuda(), pinned    the tensor itself
    files               tensors that were saved from a GPU are read to the CPU
    processes           NCCL is gloo; DistributedDataParallel without device_ids
    generators          torch.Generator(device="cuda") is one of the CPU

What `torch.cuda` itself answers is in `cpu_cuda.py`. Autocast for CUDA is off, and networks that ask a tensor whether
it is on a GPU before they take 16 bits, as the official ones do, compute in float32.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from sg3.compat.changes import Changes

PINNED = "pin_memory"
WARNINGS = (  # of what is as it should be here
    "CUDA is not available or torch_xla is imported",
    "User provided device_type of 'cuda', but CUDA is not available",
    "torch.cuda.amp.GradScaler is enabled, but CUDA is not available",
    "'pin_memory' argument is set as true but no accelerator is found",
    r"`torch\.cuda\.amp\.\w+\(args\.\.\.\)` is deprecated",
)


def is_cuda(device: Any) -> bool:
    """Whether an argument that may be a device means a GPU: text, a number, or a device of torch."""
    if isinstance(device, str):
        return device == "cuda" or device.startswith("cuda:")
    if isinstance(device, int):
        return not isinstance(device, bool)
    return getattr(device, "type", None) == "cuda"


def on_cpu(device: Any) -> Any:
    """The same argument, with the CPU for every GPU."""
    return "cpu" if is_cuda(device) else device


def cuda_means_cpu(torch: ModuleType, changes: Changes) -> None:
    """All of the above."""
    _classes(torch, changes)
    _calls(torch, changes)
    _files(torch, changes)
    _processes(torch, changes)
    before = list(warnings.filters)
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    ours = [entry for entry in warnings.filters if entry not in before]
    changes.call_on_undo(lambda: _forget_filters(ours))


def _forget_filters(ours: Sequence[Any]) -> None:
    warnings.filters[:] = [entry for entry in warnings.filters if entry not in ours]  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]


# ---- classes --------------------------------------------------------------------------------------------------------


class _StandsIn(type):
    """The kind of a class whose calls make objects of another one, and whose instances those are."""

    real: type
    make: Callable[..., Any]

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls.make(*args, **kwargs)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.real)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls.real)


def stand_in(real: type, make: Callable[..., Any]) -> type:
    """A class to put in the place of `real`, which pickles by the same name."""
    body = {"real": real, "make": staticmethod(make), "__module__": "torch", "__qualname__": real.__name__,
            "__doc__": real.__doc__}  # fmt: skip
    return _StandsIn(real.__name__, (), body)


def _classes(torch: ModuleType, changes: Changes) -> None:
    device, generator = torch.device, torch.Generator

    def make_device(*args: Any, **kwargs: Any) -> Any:
        kind = args[0] if args else kwargs.get("device", kwargs.get("type"))
        return device("cpu") if is_cuda(kind) else device(*args, **kwargs)

    def make_generator(device: Any = "cpu") -> Any:
        return generator(device=on_cpu(device))

    changes.set(torch, "device", stand_in(device, make_device))
    changes.set(torch, "Generator", stand_in(generator, make_generator))


# ---- calls ----------------------------------------------------------------------------------------------------------


def _calls(torch: ModuleType, changes: Changes) -> None:
    Tensor = torch.Tensor

    def to(x: Any, *args: Any, **kwargs: Any) -> Any:
        return x.to(*([on_cpu(args[0]), *args[1:]] if args else ()), **kwargs)

    def stay(x: Any, *args: Any, **kwargs: Any) -> Any:
        memory_format = kwargs.get("memory_format")
        return x if memory_format is None else x.contiguous(memory_format=memory_format)

    def typed(x: Any, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
        name = dtype.replace("torch.cuda.", "torch.") if isinstance(dtype, str) else dtype
        return x.type(name, *args, **kwargs)

    special: dict[Any, Callable[..., Any]] = {
        Tensor.to: to, Tensor.cuda: stay, Tensor.pin_memory: stay, Tensor.type: typed,
    }

    class CudaMeansCpu(torch.overrides.TorchFunctionMode):  # type: ignore[name-defined]
        """Reads the arguments of every function of torch that this thread calls."""

        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
        ) -> Any:
            if kwargs:
                kwargs = dict(kwargs)
                if "device" in kwargs:
                    kwargs["device"] = on_cpu(kwargs["device"])
                if kwargs.get(PINNED):
                    kwargs[PINNED] = False
            return special.get(func, func)(*args, **(kwargs or {}))

    mode = CudaMeansCpu()
    mode.__enter__()
    changes.call_on_undo(lambda: mode.__exit__(None, None, None))
    start = threading.Thread.start

    @functools.wraps(start)
    def start_alike(thread: threading.Thread) -> None:
        run = thread.run

        def run_alike() -> None:
            with CudaMeansCpu():
                run()

        thread.run = run_alike  # type: ignore[method-assign]
        start(thread)

    changes.set(threading.Thread, "start", start_alike)

    module_to = torch.nn.Module.to

    @functools.wraps(module_to)
    def to_of_module(self: Any, *args: Any, **kwargs: Any) -> Any:
        if "device" in kwargs:
            kwargs["device"] = on_cpu(kwargs["device"])
        return module_to(self, *([on_cpu(args[0]), *args[1:]] if args else ()), **kwargs)

    changes.set(torch.nn.Module, "to", to_of_module)
    changes.set(Tensor, "record_stream", lambda x, stream: None)  # no function mode sees that: it checks `stream` first
    for storage in (torch.UntypedStorage, torch.TypedStorage):
        for name in ("cuda", PINNED):
            changes.set(storage, name, stay)
    default_type, default_device = torch.set_default_tensor_type, torch.set_default_device
    changes.set(torch, "set_default_tensor_type", lambda kind: default_type(
        kind.replace("torch.cuda.", "torch.") if isinstance(kind, str) else kind))  # fmt: skip
    changes.set(torch, "set_default_device", lambda device: default_device(on_cpu(device)))
    fork = torch.random.fork_rng  # by default of CUDA, whose module it asks for the states of its GPUs

    @functools.wraps(fork)
    def fork_rng(devices: Any = None, enabled: bool = True, **_: Any) -> Any:
        return fork(devices=[], enabled=enabled, device_type="cpu")

    changes.set(torch.random, "fork_rng", fork_rng)


# ---- files ----------------------------------------------------------------------------------------------------------


def _files(torch: ModuleType, changes: Changes) -> None:
    """Where `torch.load` and `torch.jit.load` put tensors: None would put them back where they came from."""
    for owner in (torch, torch.jit):
        changes.set(owner, "load", _reading_to_cpu(owner.load))


def _reading_to_cpu(load: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(load)
    def load_to_cpu(f: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(map_location, Mapping):
            map_location = {on_cpu(source): on_cpu(target) for source, target in map_location.items()} | {
                source: on_cpu(target) for source, target in map_location.items()
            }
        else:
            map_location = "cpu" if map_location is None else on_cpu(map_location)
        return load(f, map_location, *args, **kwargs)

    return load_to_cpu


# ---- processes ------------------------------------------------------------------------------------------------------


def _processes(torch: ModuleType, changes: Changes) -> None:
    distributed = torch.distributed
    if not distributed.is_available():
        return
    begin, barrier, group = distributed.init_process_group, distributed.barrier, distributed.new_group

    @functools.wraps(begin)
    def init_process_group(backend: Any = None, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("device_id", None)
        return begin(_gloo(backend), *args, **kwargs)

    @functools.wraps(group)
    def new_group(*args: Any, **kwargs: Any) -> Any:
        if "backend" in kwargs:
            kwargs["backend"] = _gloo(kwargs["backend"])
        return group(*args, **kwargs)

    changes.set(distributed, "init_process_group", init_process_group)
    changes.set(distributed, "new_group", new_group)
    changes.set(distributed, "barrier", functools.wraps(barrier)(
        lambda group=None, async_op=False, device_ids=None: barrier(group, async_op)))  # fmt: skip
    parallel = torch.nn.parallel.DistributedDataParallel
    init = parallel.__init__

    @functools.wraps(init)
    def without_device_ids(self: Any, module: Any, device_ids: Any = None, output_device: Any = None,
                           *args: Any, **kwargs: Any) -> None:  # fmt: skip
        init(self, module, None, None, *args, **kwargs)

    changes.set(parallel, "__init__", without_device_ids)


def _gloo(backend: Any) -> Any:
    """The backend for CPUs where one for GPUs was asked for; none at all would want both."""
    return "gloo" if backend is None or str(backend).lower() in ("nccl", "cpu:gloo,cuda:nccl") else backend
