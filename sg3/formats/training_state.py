"""What snapshots hold beside networks, for training to go on: optimizers' states and counters.

R3GAN writes `G_opt_state`, `D_opt_state` (torch's Adam, parameters numbered in the order of the module) and
`cur_nimg`; Projected GAN a dictionary `progress` of one-element tensors.
"""

from __future__ import annotations

from typing import Any

import torch

from sg3.errors import DataError
from sg3.formats.pickle_values import Numbered
from sg3.formats.plain_data import plain
from sg3.formats.snapshot import Snapshot
from sg3.models import r3gan

SLOTS = ("G", "D")
COUNTERS = ("cur_nimg", "cur_tick", "batch_idx")  # integers; Projected GAN keeps each in a tensor of one element

Optimizer = dict[str, Any]  # {"state": {number: {name: tensor or number}}, "param_groups": [settings]}


def optimizers(content: dict[str, Any], where: str) -> dict[str, Optimizer] | None:
    """The optimizers' states in a snapshot's content, by slot; None if there are none. Raises DataError."""
    found: dict[str, Optimizer] = {}
    for slot in SLOTS:
        optimizer = content.get(f"{slot}_opt_state")
        if optimizer is None:
            continue
        if isinstance(optimizer, dict) and isinstance(optimizer.get("state"), Numbered):
            optimizer = {**optimizer, "state": optimizer["state"].entries}
        check(optimizer, f"{where}: {slot}_opt_state")
        found[slot] = optimizer
    return found or None


def check(optimizer: Any, where: str) -> None:
    """Raises DataError if this is no optimizer's state: tensors and numbers of numbered parameters, and settings."""
    match optimizer:
        case {"state": dict(state), "param_groups": list(groups)}:
            pass
        case _:
            raise DataError(f"{where}: is not an optimizer's state")
    entries = [entry for values in state.values() if isinstance(values, dict) for entry in values.values()]
    if not all(isinstance(number, int) and isinstance(values, dict) for number, values in state.items()):
        raise DataError(f"{where}: has an entry of no parameter")
    if not all(isinstance(entry, (torch.Tensor, int, float)) for entry in entries):
        raise DataError(f"{where}: holds something else than tensors and numbers")
    for group in groups:
        try:
            plain(group, iter(range(100_000)))  # the numbers of all parameters are in it
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: has unusable settings ({error})") from None


def progress(content: dict[str, Any]) -> dict[str, int | float] | None:
    """Counters, as numbers; None if there are none. What is no number is left out."""
    kept = content.get("progress")
    values = dict(kept) if isinstance(kept, dict) else {}
    if "cur_nimg" in content:
        values["cur_nimg"] = content["cur_nimg"]
    numbers: dict[str, int | float] = {}
    for name, value in values.items():
        if isinstance(value, torch.Tensor) and value.numel() == 1:
            value = value.item()
        if isinstance(value, (int, float)):
            numbers[name] = value
    return numbers or None


def content(snapshot: Snapshot) -> dict[str, Any]:
    """The entries of a snapshot pickle for the training state: R3GAN's for its networks, else Projected GAN's."""
    entries: dict[str, Any] = {
        f"{slot}_opt_state": {"state": Numbered(optimizer["state"]), "param_groups": optimizer["param_groups"]}
        for slot, optimizer in (snapshot.optimizers or {}).items()
    }
    counters = dict(snapshot.progress or {})
    if isinstance(snapshot.G_ema or snapshot.G, r3gan.Generator) and "cur_nimg" in counters:
        entries["cur_nimg"] = counters.pop("cur_nimg")
    if counters:
        entries["progress"] = {
            name: torch.tensor([value]) if name in COUNTERS else value for name, value in counters.items()
        }
    return entries


def tensors(states: dict[str, Optimizer]) -> dict[str, torch.Tensor]:
    """The tensors of optimizers' states under names: SLOT.NUMBER.NAME."""
    return {
        f"{slot}.{number}.{name}": entry
        for slot, optimizer in states.items()
        for number, values in optimizer["state"].items()
        for name, entry in values.items()
        if isinstance(entry, torch.Tensor)
    }


def without_tensors(states: dict[str, Optimizer]) -> dict[str, Any]:
    """The rest, as JSON takes it: the numbers among the states as [number, name, value], and the settings."""
    return {
        slot: {
            "numbers": [
                [number, name, entry]
                for number, values in optimizer["state"].items()
                for name, entry in values.items()
                if not isinstance(entry, torch.Tensor)
            ],
            "param_groups": optimizer["param_groups"],
        }
        for slot, optimizer in states.items()
    }


def put_together(rest: Any, parts: dict[str, torch.Tensor], where: str) -> dict[str, Optimizer] | None:
    """The states whose `tensors` and `without_tensors` these are. Raises DataError."""
    if rest is None and not parts:
        return None
    states: dict[str, Optimizer] = {}
    try:
        for slot, described in rest.items():
            states[slot] = {"state": {}, "param_groups": described["param_groups"]}
            for number, name, value in described["numbers"]:
                states[slot]["state"].setdefault(number, {})[name] = value
        for key, tensor in parts.items():
            slot, text, name = key.split(".", 2)
            states[slot]["state"].setdefault(int(text), {})[name] = tensor
    except (AttributeError, LookupError, TypeError, ValueError):
        raise DataError(f"{where}: describes optimizers in an unknown way") from None
    for slot, state in states.items():
        if slot not in SLOTS:
            raise DataError(f"{where}: describes an optimizer of no network")
        state["state"] = dict(sorted(state["state"].items()))
        check(state, f"{where}: optimizer of {slot}")
    return states
