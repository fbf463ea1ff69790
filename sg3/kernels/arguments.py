"""Reading and checking the arguments that several ops share.

Every complaint names the argument, what was given and what is expected, because these functions are where a wrong
shape in somebody's network first surfaces.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

Scaling = int | Sequence[int]   # int, or [x, y]
Padding = int | Sequence[int]   # int, [x, y], or [x0, x1, y0, y1]

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # of 8 bits there are more


def integer(name: str, value: object) -> int:
    """An int or anything that stands for one exactly (np.int64, ...); bool and float are refused."""
    if isinstance(value, bool):
        raise TypeError(f"{name}: got {value!r}, expected an integer")
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name}: got {value!r} ({type(value).__name__}), expected an integer") from None


def integers(name: str, value: int | Sequence[int], lengths: tuple[int, ...]) -> list[int]:
    """A sequence of integers of one of the given lengths; a single integer counts as a sequence of one."""
    items = list(value) if isinstance(value, (list, tuple)) or hasattr(value, "__iter__") else [value]
    if len(items) not in lengths:
        expected = " or ".join(str(n) for n in lengths)
        raise ValueError(f"{name}: got {len(items)} numbers {items!r}, expected {expected}")
    return [integer(name, item) for item in items]


def parse_scaling(name: str, value: Scaling) -> tuple[int, int]:
    """Resampling factor -> (x, y), each at least 1."""
    items = integers(name, value, (1, 2))
    x, y = items if len(items) == 2 else items * 2
    if x < 1 or y < 1:
        raise ValueError(f"{name}: got {value!r}, expected factors of at least 1")
    return x, y


def parse_padding(value: Padding) -> tuple[int, int, int, int]:
    """Padding -> (x0, x1, y0, y1); negative numbers crop."""
    items = integers("padding", value, (1, 2, 4))
    if len(items) == 1:
        items = items * 4
    elif len(items) == 2:
        items = [items[0], items[0], items[1], items[1]]
    x0, x1, y0, y1 = items
    return x0, x1, y0, y1


def check_type(name: str, x: torch.Tensor, shape: str) -> None:
    """`x` must be a tensor of one of the `FLOATS`. `shape`: what to say of it where it is no tensor."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name}: got {type(x).__name__}, expected a tensor{shape}")
    if x.dtype not in FLOATS:
        raise TypeError(f"{name}: got dtype {x.dtype}, expected a floating-point tensor (float16, bfloat16, float32 "
                        "or float64)")  # fmt: skip


def check_image(name: str, x: torch.Tensor) -> None:
    """`x` must be a floating-point tensor [N, C, H, W]; N = 0 is fine, an empty image is not."""
    check_type(name, x, " [N, C, H, W]")
    if x.ndim != 4:
        raise ValueError(f"{name}: got shape {list(x.shape)}, expected four dimensions [N, C, H, W]")
    if 0 in x.shape[1:]:
        raise ValueError(f"{name}: got shape {list(x.shape)}, expected at least one channel and one pixel")


def check_bias(b: torch.Tensor, channels: int, like: torch.Tensor) -> None:
    """`b` must be [channels] with the dtype and device of `like`."""
    if not isinstance(b, torch.Tensor):
        raise TypeError(f"b: got {type(b).__name__}, expected a tensor [{channels}]")
    if b.shape != (channels,):
        raise ValueError(f"b: got shape {list(b.shape)}, expected [{channels}], one value per channel of x")
    check_same("b", b, like)


def autocasting(x: torch.Tensor) -> bool:
    """Whether autocast is on for x's device. Some devices (meta) have none."""
    device = x.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def no_autocast(x: torch.Tensor) -> AbstractContextManager[object]:
    """Within it, autocast leaves the operations on x's device alone."""
    return torch.autocast(x.device.type, enabled=False) if autocasting(x) else nullcontext()


def cast_parameter(p: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Under autocast an op follows its input's dtype, and parameters beside it are cast; otherwise p as it is."""
    return p.to(like.dtype) if autocasting(like) else p


def check_same(name: str, tensor: torch.Tensor, like: torch.Tensor, like_name: str = "x") -> None:
    """`tensor` must share `like`'s dtype and device."""
    if tensor.dtype != like.dtype:
        raise TypeError(f"{name}: got dtype {tensor.dtype}, expected {like.dtype} as {like_name}")
    if tensor.device != like.device:
        raise ValueError(f"{name}: is on {tensor.device}, expected {like.device} as {like_name}")


def check_floating(name: str, tensor: torch.Tensor, like: torch.Tensor) -> None:
    """`tensor` must be of some floating-point dtype, on `like`'s device."""
    if not tensor.is_floating_point():
        raise TypeError(f"{name}: got dtype {tensor.dtype}, expected a floating-point tensor")
    if tensor.device != like.device:
        raise ValueError(f"{name}: is on {tensor.device}, expected {like.device} as x")


def check_filter(name: str, f: torch.Tensor | None, like: torch.Tensor) -> None:
    """`f` must be None or a non-empty floating-point FIR filter, [taps] or [taps_y, taps_x], on `like`'s device."""
    if f is None:
        return
    if not isinstance(f, torch.Tensor):
        raise TypeError(f"{name}: got {type(f).__name__}, expected a tensor [taps] or [taps_y, taps_x], or None")
    if not f.is_floating_point():
        raise TypeError(f"{name}: got dtype {f.dtype}, expected a floating-point filter (float32)")
    if f.ndim not in (1, 2) or f.numel() == 0:
        raise ValueError(f"{name}: got shape {list(f.shape)}, expected [taps] or [taps_y, taps_x]")
    if f.requires_grad:
        raise ValueError(f"{name}: requires a gradient, but filters are constants; pass {name}.detach()")
    if f.device != like.device:
        raise ValueError(f"{name}: is on {f.device}, expected {like.device} as x")


def filter_size(f: torch.Tensor | None) -> tuple[int, int]:
    """Taps in (x, y); a missing filter counts as the single tap 1, a 1-D one applies to both axes."""
    return (1, 1) if f is None else (int(f.shape[-1]), int(f.shape[0]))
