"""`sg3 train`'s options. Each is declared once, here or, where not every system has it, in the options of a recipe.

A declaration holds an option's type (by its annotation), default, bounds, choices, help and whether it may change in a
run that continues. The command line, option files, presets, Python and docs/options.md are made of it, and every value
passes `check_value`, wherever it comes from. No torch in here, so that `sg3 train --help` is instant.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from types import NoneType, UnionType
from typing import Any, ClassVar, Self, get_args, get_type_hints

from sg3 import limits
from sg3.errors import UsageError
from sg3.terminal import printable

# Panels of the help, in this order.
RUN = "Run"
IMPORTANT = "Most important"
AUGMENTATION = "Augmentation"
NETWORKS = "Networks"
OPTIMISATION = "Optimisation"
OUTPUT = "Output"
MACHINE = "Machine"
PANELS = (RUN, IMPORTANT, AUGMENTATION, NETWORKS, OPTIMISATION, OUTPUT, MACHINE)

# What a change in a continued run does to the numbers.
NO_EFFECT = ""
OTHER_ROUNDING = "layers with 16 bits are rounded otherwise"
OTHER_RECIPE = "from here on another training recipe"

LOSS_SCALES = tuple(2**exponent for exponent in range(25))  # powers of two, whose multiplication rounds nothing

GRID = tuple[int, int]  # the kind of --grid: columns, rows
WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", GRID: "columns x rows, like 8x4"}
TRUE, FALSE = ("1", "true", "t", "yes", "y", "on"), ("0", "false", "f", "no", "n", "off")


@dataclass(frozen=True)
class Option:
    """One option. `default` may differ `by_cfg`; where the default is computed, `rule` says how, for the reader.

    `changes`: what changing it in a continued run does to the numbers, None if it cannot change.
    """

    help: str
    panel: str
    name: str = ""
    kind: Any = str  # bool, int, float, str or GRID
    default: Any = None
    by_cfg: Mapping[str, Any] = field(default_factory=dict)
    rule: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    changes: str | None = None
    is_name: bool = False  # of a path or the like, which is not empty

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def bounds(self) -> str:
        """'at least 1', '0 to 1' or nothing."""
        least, most = (str(bound) if isinstance(bound, int) else f"{bound:g}" for bound in
                       (self.at_least or 0, self.at_most or 0))  # fmt: skip
        if self.at_least is None:
            return "" if self.at_most is None else f"at most {most}"
        return f"at least {least}" if self.at_most is None else f"{least} to {most}"

    @property
    def shown_default(self) -> str:
        """'32', '2; stylegan2: 8', 'batch / gpus' or nothing."""
        general = show(self.default) if self.rule is None else self.rule
        return "; ".join(filter(None, [general, *(f"{cfg}: {show(value)}" for cfg, value in self.by_cfg.items())]))


def show(value: Any) -> str:
    """A default as one would type it, numbers short; nothing for one that need not be typed (None, False)."""
    if value is False:
        return ""
    return f"{value:g}" if isinstance(value, float) else typed(value)


def typed(value: Any) -> str:
    """A value as one would type it; nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, tuple):
        is_grid = bool(value) and isinstance(value[0], int)
        return "x".join(map(str, value)) if is_grid else ",".join(map(str, value)) or "none"
    return str(value)


def option(
    help: str,
    panel: str,
    *,
    default: Any = None,
    by_cfg: Mapping[str, Any] | None = None,
    rule: str | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    choices: tuple[str, ...] = (),
    metavar: str | None = None,
    changes: str | None = None,
    is_name: bool = False,
) -> Any:
    """A field of `Options`: see `Option`. Name and kind come from the field."""
    declared = Option(
        help, panel, default=default, by_cfg=by_cfg or {}, rule=rule, at_least=at_least, at_most=at_most,
        choices=choices, metavar=metavar, changes=changes, is_name=is_name,
    )  # fmt: skip
    return field(default=None, metadata={"option": declared})


def again(parent: type[Options], name: str, **different: Any) -> Any:
    """An option of `parent` with another `default`, `by_cfg`, `rule` or `choices`: as this system has it."""
    return field(default=None, metadata={"option": dataclasses.replace(parent.declared()[name], **different)})


def check_kind(kind: Any, value: Any) -> Any:
    """`value` as a bool, int, str, GRID or finite float. Raises ValueError that says what was expected."""
    if kind == GRID:
        if isinstance(value, str) and (match := re.fullmatch(r"(\d{1,9})x(\d{1,9})", value)):
            value = (int(match[1]), int(match[2]))
        if isinstance(value, (list, tuple)) and len(value) == 2 and all(type(n) is int and n > 0 for n in value):
            if value[0] * value[1] > limits.GRID:
                raise ValueError(f"expected at most {limits.GRID} images")
            return tuple(value)
        raise ValueError(f"expected {WORDS[GRID]}")
    if kind is str and isinstance(value, os.PathLike):
        value = os.fspath(value)
    if kind is float and type(value) is int and abs(value) < 2**1000:
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"expected {WORDS[kind]}")
    if kind is float and not isfinite(value):
        raise ValueError("expected a finite number")
    if kind is float and abs(value) > limits.FLOAT:
        raise ValueError(f"expected at most {limits.FLOAT:g}")
    if kind is int and not -(2**63) <= value < 2**63:
        raise ValueError("expected a whole number of at most 64 bits")
    if kind is str:
        _check_text(value)
    return value


def _check_text(value: str) -> None:
    """Texts become paths and parts of them. Raises ValueError for what no path can be."""
    try:
        if "\0" in value or len(os.fsencode(value)) > limits.SETTING_TEXT:
            raise ValueError("expected text without zero bytes, and not as long")
    except UnicodeEncodeError:
        raise ValueError("expected text, not parts of characters") from None


def check_value(option: Option, value: Any) -> Any:
    """`value` as the option's kind. Raises ValueError that says what was expected."""
    if option.kind is type(value) is float and isfinite(value):
        _check_bounds(option, value)  # which says more than that so large a number is never taken
    value = check_kind(option.kind, value)
    if option.choices and value not in option.choices:
        raise ValueError(f"expected one of {', '.join(option.choices)}")
    if option.is_name and not value:
        raise ValueError("names nothing")
    _check_bounds(option, value)
    return value


def _check_bounds(option: Option, value: Any) -> None:
    too_small = option.at_least is not None and value < option.at_least
    if too_small or (option.at_most is not None and value > option.at_most):
        raise ValueError(f"expected {option.bounds}")


def read_value(option: Option, text: str) -> Any:
    """The value that a word of the command line stands for. Raises ValueError that says what was expected."""
    value: Any = text
    try:
        if option.kind is bool:
            word = text.strip().lower()
            value = True if word in TRUE else False if word in FALSE else text
        elif option.kind in (int, float):
            value = option.kind(text)
    except ValueError:
        raise ValueError(f"expected {WORDS[option.kind]}") from None
    return check_value(option, value)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user said, None where nothing was said: the options that every system has. Names and meanings follow
    the original's train.py. Raises UsageError for values that an option cannot have.

    A system's own options, and other defaults, are those of a subclass: `sg3.train.recipes`.
    """

    _declared: ClassVar[dict[str, Option]]

    data: str | None = option(
        "Images: a folder, a zip, or openmoji[:SUBSET][:alpha|:white][:SIZE], rendered here.", RUN, metavar="PATH",
        is_name=True, changes=NO_EFFECT,  # the same images at another place
    )  # fmt: skip
    cfg: str | None = option("Network and training recipe.", RUN)

    batch: int | None = option("Images per step.", IMPORTANT, default=32, at_least=1, at_most=limits.BATCH)
    gpus: int | None = option(
        "Number of GPUs, or of processes on a CPU.", IMPORTANT, default=1, at_least=1,
        rule="1; on a CPU up to 4, as threads and batch allow",
        changes="sums are taken in another order, which changes their rounding",
    )  # fmt: skip
    kimg: int | None = option(
        "Length in thousands of images.", IMPORTANT, default=25000, at_least=1, metavar="KIMG", changes=NO_EFFECT
    )
    minutes: float | None = option(
        "End after this much training time, should that come first.", IMPORTANT, at_least=0.0001, metavar="MIN",
        changes=NO_EFFECT,
    )  # fmt: skip
    mirror: bool | None = option("Also show each image mirrored.", IMPORTANT, default=False)
    cond: bool | None = option("Condition on the dataset's labels.", IMPORTANT, default=False)
    resume: str | None = option(
        "Start from another network's weights (not the way to continue a run).", IMPORTANT, metavar="PKL",
        is_name=True,
    )  # fmt: skip
    resume_least: float | None = option(
        "Refuse --resume if it has less than this share of G.", IMPORTANT, default=0.5, at_least=0, at_most=1,
        metavar="SHARE",
    )  # fmt: skip

    aug: str | None = option(
        "Augment what D sees: by its overfitting, with fixed --p, or not.", AUGMENTATION, default="ada",
        choices=("noaug", "ada", "fixed"), changes=OTHER_RECIPE,
    )  # fmt: skip
    augpipe: str | None = option(
        "What to augment by.", AUGMENTATION, default="bgc", changes=OTHER_RECIPE,
        choices=("blit", "geom", "color", "filter", "noise", "cutout", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc"),
    )  # fmt: skip
    target: float | None = option(
        "--aug=ada: share of D's right guesses on real images, from 0 to 1.", AUGMENTATION, default=0.6, at_least=0,
        at_most=1, changes=OTHER_RECIPE,
    )  # fmt: skip
    p: float | None = option(
        "Probability of --aug=fixed.", AUGMENTATION, default=0.2, at_least=0, at_most=1, changes=OTHER_RECIPE
    )

    batch_gpu: int | None = option(
        "Images at a time, accumulated to a batch.", OPTIMISATION, rule="batch / gpus", at_least=1,
        at_most=limits.BATCH, changes="other samples share a minibatch statistic and layer noise",
    )  # fmt: skip
    glr: float | None = option("Learning rate of G.", OPTIMISATION, at_least=0, changes=OTHER_RECIPE)
    dlr: float | None = option("Learning rate of D.", OPTIMISATION, at_least=0, changes=OTHER_RECIPE)
    seed: int | None = option("Everything random derives from it.", OPTIMISATION, default=0, at_least=0)
    subset: int | None = option("Use only this many images.", OPTIMISATION, at_least=1, metavar="N")
    holdout: float | None = option(
        "Leave this share of the images out of training, for metrics that ask what it has memorised.", OPTIMISATION,
        at_least=0.001, at_most=0.9, metavar="FRACTION",
    )  # fmt: skip

    tick: int | None = option(
        "Report progress this often.", OUTPUT, default=4, at_least=1, metavar="KIMG", changes=NO_EFFECT
    )
    snap: int | None = option(
        "Save images, networks and state this often.", OUTPUT, default=50, at_least=1, metavar="TICKS",
        changes=NO_EFFECT,
    )  # fmt: skip
    grid: tuple[int, int] | None = option(
        "Images per grid.", OUTPUT, rule="as many as fit 7680 x 4320", metavar="WxH", changes=NO_EFFECT
    )
    metrics: str | None = option(
        "Quality metrics for each snapshot, such as fid50k_full; see sg3 metrics.", OUTPUT, default="none",
        metavar="LIST", changes=NO_EFFECT,
    )  # fmt: skip
    detector_dir: str | None = option(
        "Folder of the metrics' feature networks.", OUTPUT, metavar="DIR", is_name=True, changes=NO_EFFECT
    )
    log_to: str | None = option(
        "Also send statistics, metrics and grids to tensorboard, wandb or trackio.", OUTPUT, default="auto",
        metavar="LIST", changes=NO_EFFECT,
    )  # fmt: skip
    keep_snapshots: int | None = option(
        "Keep the newest N networks and the best.", OUTPUT, rule="all", at_least=1, metavar="N", changes=NO_EFFECT
    )
    posthoc_ema: bool | None = option(
        "Keep what `sg3 ema` makes averages of any length from: two more of G, in a file with each snapshot.", OUTPUT,
        default=False,
    )  # fmt: skip
    desc: str | None = option("Added to the run folder's name.", OUTPUT, metavar="TEXT")

    device: str | None = option("auto, cpu, cuda or cuda:N.", MACHINE, default="auto", changes=NO_EFFECT)
    threads: int | None = option(
        "Threads of PyTorch on a CPU, in each process.", MACHINE, rule="as many as CPUs can be had", at_least=1,
        at_most=limits.THREADS,
        changes="sums are taken in another order, which changes their rounding",
    )  # fmt: skip
    workers: int | None = option(
        "Processes that load images.", MACHINE, rule="3, or as many as there are CPUs", at_least=0,
        at_most=limits.LOADERS, changes=NO_EFFECT,
    )  # fmt: skip
    on_error: str | None = option(
        "An image that cannot be read ends the run, or is named and passed over.", MACHINE, default="fail",
        choices=("fail", "skip"), changes=NO_EFFECT,
    )  # fmt: skip
    fp32: bool | None = option("No half precision.", MACHINE, default=False)
    bf16: bool | None = option(
        "bfloat16 where float16 would be used.", MACHINE, default=False, changes=OTHER_ROUNDING
    )
    tf32: bool | None = option(
        "Allow TensorFloat-32 in float32 layers.", MACHINE, default=False, changes="products are rounded otherwise"
    )
    nhwc: bool | None = option(
        "Channels last in layers with 16 bits, on a CPU in all, but for StyleGAN3's G.", MACHINE, default=False,
        changes="layers are rounded otherwise",
    )
    compile: str | None = option(
        "torch.compile for the main phases; graphs: and CUDA graphs.", MACHINE, default="off",
        choices=("off", "on", "graphs"),
        changes="results are rounded otherwise, and StyleGAN2's layer noise is drawn otherwise",
    )  # fmt: skip
    nobench: bool | None = option(
        "Do not let cuDNN time its algorithms.", MACHINE, default=False, changes=NO_EFFECT
    )
    timeout: float | None = option(
        "Several processes: give up when one hangs for so long.", MACHINE, default=300.0, at_least=1, metavar="SEC",
        changes=NO_EFFECT,
    )  # fmt: skip
    restart_every: float | None = option(
        "Save the state and end after so long, with exit code 3, for a script to continue.", MACHINE, at_least=0.001,
        metavar="SEC", changes=NO_EFFECT,
    )  # fmt: skip
    profile: int | None = option(
        "Write a trace of so many steps.", MACHINE, at_least=1, metavar="STEPS", changes=NO_EFFECT
    )

    def __post_init__(self) -> None:
        problems = []
        for name, value in self.said().items():
            declared = self.declared()[name]
            try:
                object.__setattr__(self, name, check_value(declared, value))
            except ValueError as error:
                problems.append(f"{declared.flag}={printable(value)}: {error}")
        if problems:
            raise UsageError("; ".join(problems))

    @classmethod
    def declared(cls) -> dict[str, Option]:
        """The options of this class by name: panel by panel, as the help has them."""
        if "_declared" not in cls.__dict__:  # a subclass has its own
            hints = get_type_hints(cls)
            found = [
                dataclasses.replace(f.metadata["option"], name=f.name, kind=kind_of(hints[f.name]))
                for f in dataclasses.fields(cls)
            ]
            cls._declared = {o.name: o for o in sorted(found, key=lambda o: PANELS.index(o.panel))}
        return cls._declared

    def said(self) -> dict[str, Any]:
        """The options that have a value."""
        values = {name: getattr(self, name) for name in self.declared()}
        return {name: value for name, value in values.items() if value is not None}

    def as_flags(self) -> list[str]:
        """The same as words of the command line."""
        words = {n: "x".join(map(str, v)) if isinstance(v, tuple) else v for n, v in self.said().items()}
        return [f"{self.declared()[name].flag}={word}" for name, word in words.items()]

    def over(self, other: Self) -> Self:
        """These options, with the other's where nothing was said."""
        return type(self)(**{**other.said(), **self.said()})

    def images_together(self) -> int:
        """Of how many images of a step something is computed that is not the sum of what single images give: one
        process has a multiple of them."""
        images: int = self.with_defaults().batch  # unless a system knows better
        return images

    def with_defaults(self) -> Any:
        """These options with all defaults that no rule computes. Any, for the annotations still say None."""
        cfg = self.cfg or self.declared()["cfg"].default
        defaults = {name: o.by_cfg.get(cfg, o.default) for name, o in self.declared().items()}
        return type(self)(**{**defaults, **self.said()})


def kind_of(hint: Any) -> Any:
    """`int | None` -> int, `int` -> int."""
    (kind,) = [part for part in get_args(hint) if part is not NoneType] if isinstance(hint, UnionType) else [hint]
    return kind
