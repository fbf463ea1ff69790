"""The part of `sg3.compat.patches` that is about PyTorch."""

from __future__ import annotations

import functools
import inspect
import sys
import sysconfig
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from sg3.compat.changes import Changes


def integer_betas(torch: ModuleType, changes: Changes) -> None:
    """Adam and AdamW refuse integers among their betas, such as [0, 0.99], since torch 2.6."""

    def adapted(init: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(init)
        def with_float_betas(self: Any, *args: Any, **kwargs: Any) -> None:
            bound = inspect.signature(init).bind(self, *args, **kwargs)
            betas = bound.arguments.get("betas", ())
            if any(isinstance(beta, int) for beta in betas):
                bound.arguments["betas"] = tuple(float(beta) for beta in betas)
            init(*bound.args, **bound.kwargs)

        return with_float_betas

    for optimizer in (torch.optim.Adam, torch.optim.AdamW):
        if "__init__" in vars(optimizer):
            changes.set(optimizer, "__init__", adapted(optimizer.__init__))


def load_with_objects(torch: ModuleType, changes: Changes) -> None:
    """`torch.load` reads nothing but weights by default since torch 2.6. For calls from the script and its own modules
    the default is again what it was when they were written; calls from installed packages are left alone.

    This executes what a file says, which is what the script would do with the torch that it was written for. A call
    that states `weights_only` gets what it states, and TORCH_FORCE_WEIGHTS_ONLY_LOAD=1 still rules it out altogether.
    """
    original = torch.load

    @functools.wraps(original)
    def load(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("weights_only") is None and not _is_installed(sys._getframe(1).f_code.co_filename):
            kwargs["weights_only"] = False
        return original(*args, **kwargs)

    changes.set(torch, "load", load)


def meshgrid_warning(torch: ModuleType, changes: Changes) -> None:
    """`torch.meshgrid` without `indexing` still means 'ij', but warns since torch 1.10. (The function itself stays:
    TorchScript knows it by identity.)"""
    before = list(warnings.filters)
    warnings.filterwarnings("ignore", message="torch.meshgrid: in an upcoming release", category=UserWarning)
    ours = [entry for entry in warnings.filters if entry not in before]

    def take_back() -> None:
        warnings.filters[:] = [entry for entry in warnings.filters if entry not in ours]  # type: ignore[index]
        # As the functions of `warnings` do after changing the list: what was decided by it is decided anew.
        warnings._filters_mutated()  # type: ignore[attr-defined]

    changes.call_on_undo(take_back)


def sampler_of_data(sampler: ModuleType, changes: Changes) -> None:
    """`Sampler.__init__` took the dataset, and ignored it; torch 2.13 has no such argument. InfiniteSampler passes it.

    Of object's two constructors one must be the class's own for the other to take arguments, so both are set.
    """
    if sampler.Sampler.__init__ is not object.__init__:
        return

    def __init__(self: Any, data_source: Any = None) -> None:
        pass

    changes.set(sampler.Sampler, "__init__", __init__)


def cuda_amp(amp: ModuleType, changes: Changes) -> None:
    """`torch.cuda.amp` is deprecated since torch 2.4 in favour of `torch.amp`; what it lacks is given back."""
    import torch

    for name in ("autocast", "GradScaler", "custom_fwd", "custom_bwd"):
        if name not in vars(amp):
            keyword = "device" if name == "GradScaler" else "device_type"
            changes.set(amp, name, functools.partial(getattr(torch.amp, name), **{keyword: "cuda"}))


def assert_allclose(testing: ModuleType, changes: Changes) -> None:
    """`torch.testing.assert_allclose` is deprecated since torch 1.12."""

    def assert_allclose(actual: Any, expected: Any, rtol: float | None = None, atol: float | None = None,
                        equal_nan: bool = True, msg: str = "") -> None:  # fmt: skip
        import torch

        actual = torch.as_tensor(actual)
        expected = torch.as_tensor(expected, dtype=actual.dtype)
        testing.assert_close(actual, expected, rtol=rtol, atol=atol, equal_nan=equal_nan, msg=msg or None,
                             check_device=True, check_dtype=False, check_stride=False)  # fmt: skip

    changes.set_missing(testing, "assert_allclose", assert_allclose)


@functools.cache
def _is_installed(filename: str) -> bool:
    """Whether a source file belongs to Python or to an installed package."""
    path = Path(filename)
    paths = sysconfig.get_paths()
    return any(path.is_relative_to(paths[kind]) for kind in ("stdlib", "platstdlib", "purelib", "platlib")) or \
        "site-packages" in path.parts or "dist-packages" in path.parts  # fmt: skip
