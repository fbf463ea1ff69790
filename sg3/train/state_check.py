"""Whether a training state is one of this run: each entry against the one that the run itself would save.

A state has a checksum, which tells that nobody has damaged it, not that it holds what it should. So what a fresh
trainer's `state_dict` has is the schema: the same names, tensors of the same shapes, numbers where there are numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

import torch

from sg3.errors import DataError
from sg3.terminal import printable
from sg3.train.options import LOSS_SCALES

# Which states of earlier versions have not, or of a run that had no dynamic loss scaler then.
OPTIONAL = {"last_tick", "stats_by_rank", "scalers", "scalers.G", "scalers.D"}
MOMENTS = {"step", "exp_avg", "exp_avg_sq"}  # what Adam, the only optimiser in use, keeps of a parameter
# Their entries depend on what has happened, or are compared later.
FREE = {"config", "bad_steps", "stats", "stats_by_rank", "last_tick"}


def check_state(
    state: Mapping[str, Any], like: Mapping[str, Any], optimizers: Mapping[str, torch.optim.Optimizer], where: str
) -> None:
    """Raises DataError that begins with `where` and names the first entry which is not as in `like`."""
    try:
        for name, value in like.items():
            if name in state or name not in OPTIONAL:
                _check(state.get(name), value, name)
        for name, optimizer in optimizers.items():
            _check_optimizer(state["optimizers"][name], optimizer, f"optimizers.{name}")
    except ValueError as error:
        raise DataError(f"{where}: is no training state of this run: {error}") from None


def _check(value: Any, like: Any, path: str) -> None:
    if path in FREE:
        _check_plain(value, type(like), path)
    elif isinstance(like, torch.Tensor):
        _check_tensor(value, like, path)
    elif isinstance(like, Mapping):
        if not isinstance(value, dict):
            raise ValueError(f"{path} is a {type(value).__name__}, expected entries by name")
        for name, entry in like.items():
            if name not in value:
                if f"{path}.{name}" in OPTIONAL:
                    continue
                raise ValueError(f"{path} has no {name}")
            if not path.startswith("optimizers."):
                _check(value[name], entry, f"{path}.{name}")
    elif isinstance(like, list):
        if not isinstance(value, list) or len(value) != len(like):
            raise ValueError(f"{path} is no list of {len(like)}")
        for index, (entry, its_like) in enumerate(zip(value, like, strict=True)):
            _check(entry, its_like, f"{path}.{index}")
    elif isinstance(like, (bool, int, float)):
        _check_number(value, like, path)


def _check_tensor(value: Any, like: torch.Tensor, path: str) -> None:
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{path} is a {type(value).__name__}, expected a tensor")
    is_real = value.is_floating_point() == like.is_floating_point()
    if value.shape != like.shape or value.layout != like.layout or not is_real:
        kinds = f"{value.dtype} {list(value.shape)}, expected {like.dtype} {list(like.shape)}"
        raise ValueError(f"{path} is a tensor of {kinds}")


def _check_number(value: Any, like: bool | float, path: str) -> None:
    wanted: tuple[type, ...] = (bool,) if isinstance(like, bool) else (int,) if isinstance(like, int) else (int, float)
    fits = isinstance(value, wanted) and (isinstance(like, bool) or not isinstance(value, bool))
    if not fits or not 0 <= value < 2**62 or not isfinite(value):
        kind = "true or false" if isinstance(like, bool) else "a number from 0 up"
        raise ValueError(f"{path} is {printable(repr(value))}, expected {kind}")
    if path.startswith("scalers.") and path.endswith(".scale") and value not in LOSS_SCALES:
        raise ValueError(f"{path} is {value:g}, expected a power of two from 1 to {LOSS_SCALES[-1]}")


def _check_plain(value: Any, kind: type, path: str, level: int = 0) -> None:
    """Numbers, text, tensors and containers of them, with text for names; at the top a container of this kind."""
    if level == 0 and not isinstance(value, kind):
        raise ValueError(f"{path} is a {type(value).__name__}, expected a {kind.__name__}")
    if level > 10:
        raise ValueError(f"{path} is nested too deeply")
    if (path in ("bad_steps", "stats") and level == 1) or (path == "stats_by_rank" and level in (1, 2)):
        known = int if path == "bad_steps" else dict if level == 1 and path == "stats_by_rank" else torch.Tensor
        is_right = isinstance(value, known) and not isinstance(value, bool)
        if not is_right:
            raise ValueError(f"{path} holds {printable(repr(value))}, which it never does")
    if isinstance(value, dict):
        if not all(isinstance(name, str) for name in value):
            raise ValueError(f"{path} has an entry whose name is no text")
        value = list(value.values())
    for entry in value if isinstance(value, (list, tuple)) else ():
        _check_plain(entry, kind, path, level + 1)


def _check_optimizer(value: Any, optimizer: torch.optim.Optimizer, path: str) -> None:
    """Settings of its groups, and for each parameter tensors like it or of one element."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    groups, state = value["param_groups"], value["state"]
    if not isinstance(groups, list) or len(groups) != len(optimizer.param_groups):
        raise ValueError(f"{path}.param_groups is not a list of {len(optimizer.param_groups)}")
    first = 0
    for group, ours in zip(groups, optimizer.param_groups, strict=True):
        numbers = list(range(first, first + len(ours["params"])))
        first += len(numbers)
        listed = group.get("params") if isinstance(group, dict) else None
        is_list = isinstance(listed, list) and all(type(number) is int for number in listed)
        if not is_list or listed != numbers:
            raise ValueError(f"{path}.param_groups does not have the parameters of this run")
        for name, setting in ours.items():
            if name in group and name != "params" and isinstance(setting, (bool, int, float)):
                _check_number(group[name], setting, f"{path}.param_groups.{name}")
            elif name in group and isinstance(setting, tuple) and not _is_pair(group[name]):
                raise ValueError(f"{path}.param_groups.{name} is {printable(repr(group[name]))}, expected two numbers")
    if not isinstance(state, dict):
        raise ValueError(f"{path}.state is a {type(state).__name__}, expected entries by number")
    for number, entries in state.items():
        if type(number) is not int or not 0 <= number < len(parameters) or not isinstance(entries, dict):
            raise ValueError(f"{path}.state has an entry {printable(repr(number))} of no parameter")
        for name, entry in entries.items():
            is_like = isinstance(entry, torch.Tensor) and entry.shape in (parameters[number].shape, ())
            if not isinstance(name, str) or not is_like or not entry.is_floating_point():
                raise ValueError(f"{path}.state.{number}.{printable(name)} does not fit its parameter")
        if entries and not entries.keys() >= MOMENTS:
            raise ValueError(f"{path}.state.{number} has not all of {', '.join(sorted(MOMENTS))}")


def _is_pair(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(n, float) for n in value)
