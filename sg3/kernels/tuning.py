"""Which configuration a Triton kernel is launched with: what was measured on this GPU, otherwise what a rule says.

    the user's table   $SG3_CACHE/tuning.json    measured by `sg3 tune`
    bundled tables     sg3/kernels/tuned/*.json  measured for a release
    the rule           a kernel's own file       for every GPU

The first that knows the class of a call decides. A table is for one GPU and one version of Triton; of another it is not
used. Nothing is measured while a program runs: that would take seconds, and runs would differ.

A file with a kernel declares what there is to choose in a `Tunable`, and calls that instead of its launcher:

    TILES = Tunable("filtered_lrelu tiles", _launch, _class_of, _rule, _others, _expected)
    TILES(x, b, y, ...)  # is _launch(configuration, x, b, y, ...)
"""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import torch
import triton

from sg3.kernels.repeats import repeats
from sg3.kernels.triton_launch import architecture

FORMAT = 1
BUNDLED = Path(__file__).parent / "tuned"

Class = TypeVar("Class", bound=tuple[Any, ...])  # a NamedTuple of numbers and words
Configuration = TypeVar("Configuration")  # a frozen dataclass of numbers
P = ParamSpec("P")


@dataclass(frozen=True, eq=False)
class Tunable(Generic[Configuration, Class, P]):
    """A launcher of a kernel, with a choice of configurations that all give the same values.

    name         in tables
    launch       (configuration, *arguments) -> the tensors that it has written; the first argument is a tensor
    class_of     (*arguments) -> what the choice depends on
    rule         (class, architecture as 80, 90 ...) -> the configuration where nothing was measured
    others       (class, architecture) -> what else may be faster; those that cannot run are left out by `sg3 tune`
    parts        (what `launch` returns, *arguments) -> the parts of it that have to be right, views
    expected     (dtype, *arguments) -> for each of these parts its first image, by the plain formula and in this dtype;
                 None for one that it does not say
    """

    name: str
    launch: Callable[Concatenate[Configuration, P], Sequence[torch.Tensor]]
    class_of: Callable[P, Class]
    rule: Callable[[Class, int], Configuration]
    others: Callable[[Class, int], Iterable[Configuration]]
    expected: Callable[Concatenate[torch.dtype, P], Sequence[torch.Tensor | None]]
    parts: Callable[..., Sequence[torch.Tensor]] = lambda written, *arguments: written

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Sequence[torch.Tensor]:
        group = self.class_of(*args, **kwargs)
        if _observers:
            return _observers[-1](self, group, args)
        x: torch.Tensor = args[0]  # type: ignore[assignment]
        return self.launch(chosen(self, group, x.device, architecture(x.device)), *args, **kwargs)

    def candidates(self, group: Class, arch: int) -> list[Configuration]:
        """The rule's choice, then the others, each once."""
        return list(dict.fromkeys([self.rule(group, arch), *self.others(group, arch)]))


Observer = Callable[[Tunable[Any, Any, ...], Any, tuple[Any, ...]], Sequence[torch.Tensor]]
_observers: list[Observer] = []  # the last one counts, in all threads: gradients run in some of autograd's own


@contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """Within it, `observer(tunable, class, arguments)` takes the place of every launch that has a choice."""
    _observers.append(observer)
    try:
        with repeats.paused():  # which would not come by here
            yield
    finally:
        _observers.remove(observer)


@functools.cache
def chosen(
    tunable: Tunable[Configuration, Class, ...], group: Class, device: torch.device, arch: int
) -> Configuration:
    """The configuration for a class of calls on a device. The files are read once per process."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return look_up(tunable, group, arch, gpu)


def look_up(
    tunable: Tunable[Configuration, Class, ...], group: Class, arch: int, gpu: str | None
) -> Configuration:
    """The same for a GPU by name, None for one that no table is for."""
    for table in [] if gpu is None else tables(gpu):
        measured = table.classes.get(tunable.name, {}).get(class_name(group))
        if measured is None:
            continue
        for candidate in tunable.candidates(group, arch):
            if as_plain(candidate) == measured["choice"]:
                return candidate
        warn_once(f"{table.origin}: {tunable.name} {class_name(group)} has a configuration that this version does not "
                  "know: not used; run `sg3 tune` again")  # fmt: skip
    return tunable.rule(group, arch)


def class_name(group: tuple[Any, ...]) -> str:
    """As it is written in tables."""
    parts: dict[str, Any] = group._asdict()  # type: ignore[attr-defined]  # of NamedTuple
    return " ".join(f"{name}={value}" for name, value in parts.items())


def as_plain(configuration: Any) -> dict[str, Any]:
    """A configuration as it is written in tables."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(configuration)))
    return plain


# ---- tables ----


class DamagedTableError(ValueError):
    """A file of tables is not what `sg3 tune` writes."""


@dataclass(frozen=True)
class Table:
    """What was measured on one kind of GPU with one version of Triton.

    `classes`: tunable's name -> class's name -> {"choice": configuration, "microseconds": its median, "tried": [...]}
    """

    origin: Path
    gpu: str
    triton: str
    classes: dict[str, dict[str, dict[str, Any]]]

    def content(self) -> dict[str, Any]:
        """As it is written in a file."""
        return {"gpu": self.gpu, "triton": self.triton, "classes": self.classes}


def user_file() -> Path | None:
    """Where `sg3 tune` writes; None without a home folder."""
    if chosen_folder := os.environ.get("SG3_CACHE"):
        return Path(chosen_folder) / "tuning.json"
    if originals := os.environ.get("DNNLIB_CACHE_DIR"):  # where sg3.cache keeps everything else then
        return Path(originals) / "sg3" / "tuning.json"
    try:
        return Path.home() / ".cache" / "sg3" / "tuning.json"
    except RuntimeError:
        return None


def read(path: Path) -> list[Table]:
    """The tables of a file. Raises DamagedTableError, and OSError if it cannot be read."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise DamagedTableError(f"{path}: is no JSON ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("tables"), list):
        raise DamagedTableError(f"{path}: has no list of tables")
    if content.get("format") != FORMAT:
        raise DamagedTableError(f"{path}: has format {content.get('format')!r}, this version reads {FORMAT}")
    return [_table(path, plain) for plain in content["tables"]]


def _table(path: Path, plain: Any) -> Table:
    if not isinstance(plain, dict) or not all(isinstance(plain.get(name), str) for name in ("gpu", "triton")):
        raise DamagedTableError(f"{path}: a table does not say its GPU and Triton version")
    classes = plain.get("classes")
    groups = list(classes.values()) if isinstance(classes, dict) else [None]
    entries = [entry for group in groups for entry in (group.values() if isinstance(group, dict) else [None])]
    if not all(isinstance(entry, dict) and isinstance(entry.get("choice"), dict) for entry in entries):
        raise DamagedTableError(f"{path}: a class of its table for {plain['gpu']} has no choice")
    return Table(path, plain["gpu"], plain["triton"], plain["classes"])


@functools.cache
def tables(gpu: str) -> tuple[Table, ...]:
    """Those for this GPU and the installed Triton, the user's first. What is left out is said once, with the reason."""
    files = [path for path in (user_file(),) if path is not None] + sorted(BUNDLED.glob("*.json"))
    found = []
    for path in files:
        try:
            of_file = read(path)
        except FileNotFoundError:
            continue
        except (DamagedTableError, OSError) as error:
            reason = str(error) if isinstance(error, DamagedTableError) else f"{path}: {error.strerror}"
            warn_once(f"{reason}: not used; `sg3 tune` writes a new one")
            continue
        fitting = [table for table in of_file if (table.gpu, table.triton) == (gpu, triton.__version__)]
        if of_file and not fitting and path.parent != BUNDLED:
            others = ", ".join(f"{table.gpu} with Triton {table.triton}" for table in of_file)
            warn_once(f"{path}: measured on {others}; this is {gpu} with Triton {triton.__version__}: not used; "
                      "`sg3 tune` measures here")  # fmt: skip
        found += fitting
    return tuple(found)


def describe(gpu: str) -> str:
    """In a few words, by what configurations are chosen on this GPU."""
    found = tables(gpu)
    if not found:
        return "launches by rule, `sg3 tune` measures"
    names = {(tunable, group) for table in found for tunable, groups in table.classes.items() for group in groups}
    return f"{len(names)} kinds of launches as measured, {', '.join(str(table.origin) for table in found)}"


@functools.cache
def warn_once(line: str) -> None:
    """One line for the log."""
    logging.getLogger("sg3").warning(f"sg3: {line}")
