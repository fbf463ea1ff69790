"""The resolved, validated configuration of a run, as far as all systems share it.

It is plain data: what `training_options.json` and training states contain. A recipe adds its own fields, defaults and
checks in a subclass, which `sg3.train.recipes` finds by `cfg`. No torch in here, so that `sg3 train --help` is instant.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar, Self, get_args, get_type_hints

from sg3 import limits
from sg3.canvas import Size, is_plain, is_possible, nearest_possible, spelled
from sg3.errors import UsageError
from sg3.named_paths import nothing_at
from sg3.resources import loaders
from sg3.terminal import printable
from sg3.train.options import Options, check_kind, kind_of
from sg3.train.sinks import sink_problems

BUILTIN = "openmoji"  # --data that is drawn rather than read, with what of it after a colon


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """What the configuration needs to know of a dataset; `name` goes into the run folder's name.

    `label_dim` is the width of its labels if the run is conditional, else 0; `has_labels` says whether there are any;
    `content` is a hash of all images and of the labels in use.
    """

    path: str
    name: str
    resolution: int
    channels: int
    size: int
    label_dim: int
    has_labels: bool
    content: str
    height: int | None = None  # of images that are not square, whose longer side is `resolution`
    width: int | None = None
    visible_height: int | None = None  # of squares between black bars (--transform=center-crop-wide)

    @property
    def image_size(self) -> Size:
        """Height and width of the images."""
        return self.height or self.resolution, self.width or self.resolution

    @property
    def visible(self) -> Size | None:
        """Height and width of what lies between black bars."""
        return None if self.visible_height is None else (self.visible_height, self.resolution)

    @property
    def is_square(self) -> bool:
        """Whether the images are."""
        return self.height is None

    @property
    def is_plain(self) -> bool:
        """Whether they are squares of a power of two, which every system and format has a place for."""
        return is_plain(self.image_size)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(ABC):
    """A complete run. Lengths ending in _kimg count thousands of real images shown to the discriminator."""

    # Fields that may differ between a run and the state that it continues from, beside the options that may change.
    FREE: ClassVar[frozenset[str]] = frozenset({"resume", "desc", "ada_kimg", "chosen"})

    cfg: str
    dataset: DatasetFacts
    cond: bool
    mirror: bool
    subset: int | None
    holdout: float | None = None  # `subset` is what it comes to
    seed: int

    gpus: int
    batch: int
    batch_gpu: int
    kimg: int
    minutes: float | None
    resume: str | None
    resume_least: float = 0.5  # (a run that began before there was this says nothing, as with those below)
    device: str
    threads: int | None = None
    workers: int
    nobench: bool
    on_error: str
    timeout: float
    restart_every: float | None = None
    profile: int

    z_dim: int
    bf16: bool
    tf32: bool
    nhwc: bool = False  # (runs that began before these two existed continue)
    compile: str = "off"

    aug: str
    augpipe: str
    p: float  # of --aug=fixed, and what --aug=ada starts from
    target: float
    ada_kimg: float
    ada_interval: int

    glr: float
    dlr: float

    tick: int
    snap: int
    grid: tuple[int, int] | None
    metrics: tuple[str, ...]
    detector_dir: str | None
    log_to: str = "auto"
    keep_snapshots: int | None
    posthoc_ema: bool = False
    desc: str | None
    chosen: tuple[str, ...] = ()  # options that sg3 set for the CPUs of the machine, on which the run begins

    @classmethod
    @abstractmethod
    def resolve(cls, options: Options, dataset: DatasetFacts) -> Self:
        """The configuration that these options mean on that dataset, whether or not it makes sense."""

    @classmethod
    def from_options(cls, values: Any, dataset: DatasetFacts, **own: Any) -> Self:
        """For `resolve`: fields named like an option have its value (`Options.with_defaults`), `own` are the others."""
        v = values
        same = {field.name: getattr(v, field.name) for field in dataclasses.fields(cls) if hasattr(v, field.name)}
        common = {
            "dataset": dataset,
            "batch_gpu": v.batch_gpu or max(v.batch // v.gpus, 1),
            "profile": v.profile or 0,
            "workers": loaders() if v.workers is None else v.workers,
            "p": v.p if v.aug == "fixed" else 0.0,
            "ada_kimg": 100.0 if v.resume else 500.0,  # a pre-trained D overfits, and recovers, sooner
            "ada_interval": 4,
            "metrics": metric_names(v.metrics),
        }
        return cls(**{**same, **common, **own})

    def problems(self, said: Options) -> list[str]:
        """Everything that does not fit together, one short line each with the fix; `said` is what the user said."""
        problems = []
        if self.desc and set(self.desc) & set("/\\"):
            problems.append(f"--desc={self.desc}: becomes part of a folder's name, which cannot hold slashes")
        if self.desc and not self.desc.isprintable():
            problems.append(f"--desc={self.desc!r}: becomes part of a folder's name; use visible characters")
        if said.p is not None and self.aug != "fixed":
            problems.append(f"--p: belongs to --aug=fixed, not to --aug={self.aug}")
        if said.target is not None and self.aug != "ada":
            problems.append(f"--target: belongs to --aug=ada, not to --aug={self.aug}")
        problems += sink_problems(self.log_to)
        if said.bf16 and not self.is_half:
            problems.append("--bf16 and --fp32: choose one")
        if self.batch % self.gpus:
            problems.append(f"--batch={self.batch}: must be a multiple of --gpus={self.gpus}")
        elif self.batch % (self.gpus * self.batch_gpu):
            at_a_time = self.gpus * self.batch_gpu
            problems.append(f"--batch={self.batch}: must be a multiple of --gpus x --batch-gpu = {at_a_time}")
        if self.cond and self.dataset.label_dim == 0:
            problems.append(f"--cond: {self.dataset.path} has no labels (a dataset.json beside the images)")
        return problems

    def notes(self, said: Options) -> list[str]:
        """What of the options that were said has no effect or another one than it seems, one short line each."""
        images = self.dataset.size // (2 if self.mirror else 1)
        if said.subset is not None and said.holdout is None and said.subset > images:
            return [f"--subset={said.subset}: the data set has {images} images, all are used"]
        return []

    def data_problems(self) -> list[str]:
        """Why this system cannot be trained on these images, one short line each with the fix."""
        return []

    @property
    @abstractmethod
    def is_half(self) -> bool:
        """Whether some layers run in 16 bits on a GPU."""

    @property
    def is_half_on_cpu(self) -> bool:
        """Whether they do so on a CPU, too."""
        return False

    @property
    def follows_input_transform(self) -> bool:
        """Whether G's images can be moved and turned by a transform of its input (StyleGAN3)."""
        return False

    @property
    def highlights(self) -> dict[str, str]:
        """Numbers that make the run what it is: part of its folder's name and of its first lines."""
        return {}

    @property
    def run_name(self) -> str:
        """The run folder's name without its number."""
        numbers = {"gpus": self.gpus, "batch": self.batch, **self.highlights}
        words = [self.cfg, self.dataset.name, *(f"{name}{value}" for name, value in numbers.items())]
        return "-".join([*words, self.desc] if self.desc else words)

    def value_of(self, option: str) -> Any:
        """What an option is in this run, by the option's name."""
        if option == "data":
            return self.dataset.path
        return not self.is_half if option == "fp32" else getattr(self, option)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises TypeError for missing or unknown fields, ValueError for wrong values."""
        dataset = DatasetFacts(**_checked(DatasetFacts, data["dataset"]))
        metrics = tuple(check_kind(str, name) for name in data["metrics"])
        chosen = tuple(check_kind(str, name) for name in data.get("chosen", ()))
        plain = {name: value for name, value in data.items() if name not in ("dataset", "metrics", "chosen")}
        return cls(**_checked(cls, plain), dataset=dataset, metrics=metrics, chosen=chosen)


def _checked(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of fields of `cls`, as what the fields are declared to hold. Raises ValueError."""
    hints = get_type_hints(cls)
    checked = {}
    for name, value in values.items():
        may_be_none = value is None and name in hints and NoneType in get_args(hints[name])
        try:
            known = name in hints and not may_be_none
            checked[name] = check_kind(kind_of(hints[name]), value) if known else value
        except ValueError as error:
            raise ValueError(f"{name} = {printable(repr(value))}: {error}") from None
    return checked


def image_problems(data: DatasetFacts, least: int, rectangles: bool = False) -> list[str]:
    """What keeps networks of a power of two of `least` pixels and more from these images; or of `rectangles` and other
    squares, too."""
    size, largest = data.image_size, limits.RESOLUTION
    fits = (data.is_plain and data.resolution >= least) or (rectangles and is_possible(size))
    if fits and data.resolution <= largest:
        return []
    has = f"--data: {data.path} has {spelled(size)} images, expected"
    near = nearest_possible(size)
    if data.is_square:
        expected = f"a power of two of at least {least} and at most {largest}"
        others = f" or squares like {spelled(near)}" if rectangles and not is_plain(near) else ""
        if not rectangles and is_possible(size):
            others = "; --cfg=stylegan2 and stylegan3 take this size, too"
    else:
        expected = "squares of a power of two"
        others = "; --cfg=stylegan2 and stylegan3 take rectangles"
        if rectangles:
            others = f" or rectangles like {spelled(near)}"
    return [f"{has} {expected}{others}; `sg3 dataset --resolution=WxH` resizes"]


def metric_names(text: str) -> tuple[str, ...]:
    """`fid50k_full,eqr50k` -> its names; none for 'none'."""
    return tuple(name for name in text.split(",") if name and name != "none")


def check_data(data: str | None) -> str:
    """The --data of a run, unless there is none. Raises UsageError, MissingInputError."""
    if data is None:
        raise UsageError("--data: needed, a folder or zip of images (or --preset=demo for a ready-made start)")
    if data.partition(":")[0] != BUILTIN and not Path(data).exists():
        raise nothing_at(data)
    return data
