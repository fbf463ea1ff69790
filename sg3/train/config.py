"""What a training run is made of: options as typed, presets, and the resolved, validated configuration.

`Options` holds what the user said (None = nothing), `resolve` fills in everything else and reports all
contradictions at once. The result is plain data: it is what `training_options.json` contains. No torch in here, so
that `sg3 train --help` is instant.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from math import isfinite
from typing import Any

from sg3.errors import UsageError

CFGS = ("stylegan3-t", "stylegan3-r", "stylegan2")


@dataclass(frozen=True, kw_only=True)
class Options:
    """`sg3 train`'s options; None where nothing was said. Names and meanings follow the original's train.py."""

    cfg: str | None = None
    data: str | None = None
    gpus: int | None = None
    batch: int | None = None
    gamma: float | None = None
    cond: bool | None = None
    mirror: bool | None = None
    aug: str | None = None
    resume: str | None = None
    freezed: int | None = None
    batch_gpu: int | None = None
    cbase: int | None = None
    cmax: int | None = None
    latent: int | None = None
    layers: int | None = None
    margin: int | None = None
    glr: float | None = None
    dlr: float | None = None
    map_depth: int | None = None
    mbstd_group: int | None = None
    ema_kimg: float | None = None
    desc: str | None = None
    metrics: str | None = None
    kimg: int | None = None
    minutes: float | None = None
    tick: int | None = None
    snap: int | None = None
    grid: tuple[int, int] | None = None
    seed: int | None = None
    fp32: bool | None = None
    nobench: bool | None = None
    workers: int | None = None
    subset: int | None = None
    device: str | None = None

    def over(self, preset: Options) -> Options:
        """These options, with the preset's where nothing was said."""
        merged = {k: v if v is not None else getattr(preset, k) for k, v in dataclasses.asdict(self).items()}
        return Options(**merged)


# Ready-made starting points: name -> (one line, options).
PRESETS: dict[str, tuple[str, Options]] = {
    "demo": (
        "StyleGAN3-T on emoji, 32 x 32, ten minutes on two CPU cores",
        Options(
            cfg="stylegan3-t", data="openmoji:mixed", mirror=True, batch=8, gamma=1.0, mbstd_group=8, cbase=1024,
            cmax=32, latent=64, layers=4, margin=4, ema_kimg=0.5, kimg=44, minutes=10.0, tick=1, snap=4, grid=(8, 8),
            workers=0,
        ),
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """What the configuration needs to know of a dataset; `name` goes into the run folder's name.

    `label_dim` is the width of its labels if the run is conditional, else 0; `has_labels` says whether there are any.
    """

    path: str
    name: str
    resolution: int
    channels: int
    size: int
    label_dim: int
    has_labels: bool


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A complete run. Lengths ending in _kimg count thousands of real images shown to the discriminator."""

    cfg: str
    dataset: DatasetFacts
    cond: bool
    mirror: bool
    subset: int | None
    seed: int

    gpus: int
    batch: int
    batch_gpu: int
    kimg: int
    minutes: float | None
    resume: str | None
    device: str
    workers: int
    cudnn_benchmark: bool

    z_dim: int
    w_dim: int
    map_depth: int
    cbase: int
    cmax: int
    layers: int
    margin: int
    num_fp16_res: int
    conv_clamp: float | None
    magnitude_ema_beta: float
    mbstd_group: int
    freezed: int

    gamma: float
    glr: float
    dlr: float
    adam_beta2: float
    adam_eps: float
    g_reg_interval: int | None
    d_reg_interval: int
    pl_weight: float
    pl_batch_shrink: int
    pl_decay: float
    style_mixing_prob: float
    blur_init_sigma: float
    blur_fade_kimg: float
    ema_kimg: float
    ema_rampup: float | None

    tick: int
    snap: int
    grid: tuple[int, int] | None
    desc: str | None

    @property
    def run_name(self) -> str:
        """The run folder's name without its number."""
        name = f"{self.cfg}-{self.dataset.name}-gpus{self.gpus}-batch{self.batch}-gamma{self.gamma:g}"
        return f"{name}-{self.desc}" if self.desc else name

    def generator_kwargs(self) -> dict[str, Any]:
        """Constructor arguments of the generator of `cfg`."""
        common = {
            "z_dim": self.z_dim, "c_dim": self.dataset.label_dim, "w_dim": self.w_dim,
            "img_resolution": self.dataset.resolution, "img_channels": self.dataset.channels,
            "mapping_kwargs": {"num_layers": self.map_depth},
            "num_fp16_res": self.num_fp16_res, "conv_clamp": self.conv_clamp,
        }  # fmt: skip
        if self.cfg == "stylegan2":
            return {**common, "channel_base": self.cbase, "channel_max": self.cmax}
        shape = {"num_layers": self.layers, "margin_size": self.margin, "magnitude_ema_beta": self.magnitude_ema_beta}
        if self.cfg == "stylegan3-t":
            return {**common, **shape, "channel_base": self.cbase, "channel_max": self.cmax}
        # R: 1 x 1 convolutions and circularly symmetric filters, with twice the channels (Section 3.2).
        return {
            **common, **shape, "channel_base": self.cbase * 2, "channel_max": self.cmax * 2,
            "conv_kernel": 1, "use_radial_filters": True,
        }  # fmt: skip

    def discriminator_kwargs(self) -> dict[str, Any]:
        """Constructor arguments of the discriminator."""
        return {
            "c_dim": self.dataset.label_dim, "img_resolution": self.dataset.resolution,
            "img_channels": self.dataset.channels,
            "channel_base": self.cbase, "channel_max": self.cmax, "num_fp16_res": self.num_fp16_res,
            "conv_clamp": self.conv_clamp, "block_kwargs": {"freeze_layers": self.freezed},
            "epilogue_kwargs": {"mbstd_group_size": self.mbstd_group},
        }  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> TrainConfig:
        """The inverse of `to_dict`. Raises TypeError for missing or unknown fields."""
        grid = tuple(data["grid"]) if data.get("grid") else None
        return TrainConfig(**{**data, "dataset": DatasetFacts(**data["dataset"]), "grid": grid})

    def fingerprint(self) -> str:
        """Hash of everything that determines the numbers of a run, and of nothing else (not its length or folder)."""
        free = {"kimg", "minutes", "tick", "snap", "grid", "desc", "workers", "cudnn_benchmark", "device", "resume"}
        fixed = {k: v for k, v in self.to_dict().items() if k not in free}
        fixed["dataset"] = {k: v for k, v in fixed["dataset"].items() if k not in ("path", "name", "has_labels")}
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


def resolve(options: Options, dataset: DatasetFacts) -> TrainConfig:
    """Fill in the defaults of the configuration (spec of the original, by `cfg`) and check that everything fits.

    Raises UsageError that lists every contradiction.
    """
    o = options
    cfg = o.cfg or "stylegan3-t"
    sg2, rotation = cfg == "stylegan2", cfg == "stylegan3-r"
    gpus = o.gpus or 1
    batch = o.batch or 32
    batch_gpu = o.batch_gpu or max(batch // gpus, 1)
    latent = o.latent or 512
    config = TrainConfig(
        cfg=cfg,
        dataset=dataset,
        cond=bool(o.cond),
        mirror=bool(o.mirror),
        subset=o.subset,
        seed=o.seed or 0,
        gpus=gpus,
        batch=batch,
        batch_gpu=batch_gpu,
        kimg=o.kimg or 25000,
        minutes=o.minutes,
        resume=o.resume,
        device=o.device or "auto",
        workers=3 if o.workers is None else o.workers,
        cudnn_benchmark=not o.nobench,
        z_dim=latent,
        w_dim=latent,
        map_depth=o.map_depth or (8 if sg2 else 2),
        cbase=o.cbase or 32768,
        cmax=o.cmax or 512,
        layers=o.layers or 14,
        margin=10 if o.margin is None else o.margin,
        num_fp16_res=0 if o.fp32 else 4,
        conv_clamp=None if o.fp32 else 256.0,
        magnitude_ema_beta=0.5 ** (batch / 20e3),
        mbstd_group=o.mbstd_group or 4,
        freezed=o.freezed or 0,
        gamma=default_gamma(dataset.resolution, batch) if o.gamma is None else o.gamma,
        glr=o.glr if o.glr is not None else (0.002 if sg2 else 0.0025),
        dlr=o.dlr if o.dlr is not None else 0.002,
        adam_beta2=0.99,
        adam_eps=1e-8,
        g_reg_interval=4 if sg2 else None,
        d_reg_interval=16,
        pl_weight=2.0 if sg2 else 0.0,
        pl_batch_shrink=2,
        pl_decay=0.01,
        style_mixing_prob=0.9 if sg2 else 0.0,
        # R starts with blurred images, which keeps the discriminator from winning on high frequencies (Appendix F);
        # a pre-trained network does not need that.
        blur_init_sigma=10.0 if rotation and not o.resume else 0.0,
        blur_fade_kimg=batch * 200 / 32 if rotation else 0.0,
        ema_kimg=o.ema_kimg if o.ema_kimg is not None else batch * 10 / 32,
        ema_rampup=None if o.resume else 0.05,
        tick=o.tick or 4,
        snap=o.snap or 50,
        grid=o.grid,
        desc=o.desc,
    )
    problems = check(config, o)
    if problems:
        raise UsageError("; ".join(problems))
    return config


def default_gamma(resolution: int, batch: int) -> float:
    """R1 weight 0.0002 * resolution^2 / batch: the rule of thumb of StyleGAN2-ADA's automatic configuration."""
    return 0.0002 * resolution**2 / batch


def check(config: TrainConfig, options: Options) -> list[str]:
    """Everything that does not fit together, one short line each with the fix."""
    problems = []
    c = config
    for name in ("gamma", "glr", "dlr", "ema_kimg", "minutes"):
        number = getattr(c, name)
        if number is not None and not isfinite(number):
            problems.append(f"--{name.replace('_', '-')}={number}: expected a finite number")
    if c.desc and set(c.desc) & set("/\\"):
        problems.append(f"--desc={c.desc}: becomes part of a folder's name, which cannot hold slashes")
    if c.gpus > 1:
        problems.append(f"--gpus={c.gpus}: training on several GPUs is not built yet, use --gpus=1")
    if (options.aug or "noaug") != "noaug":
        problems.append(f"--aug={options.aug}: augmentation is not built yet, use --aug=noaug")
    if (options.metrics or "none") != "none":
        problems.append(f"--metrics={options.metrics}: metrics are not built yet, use --metrics=none")
    if c.batch % c.gpus:
        problems.append(f"--batch={c.batch}: must be a multiple of --gpus={c.gpus}")
    elif c.batch % (c.gpus * c.batch_gpu):
        problems.append(f"--batch={c.batch}: must be a multiple of --gpus x --batch-gpu = {c.gpus * c.batch_gpu}")
    group = min(c.mbstd_group, c.batch_gpu)
    if c.batch_gpu < c.mbstd_group:
        problems.append(f"--batch-gpu={c.batch_gpu}: cannot be smaller than --mbstd-group={c.mbstd_group}")
    elif c.batch_gpu % group:
        problems.append(f"--batch-gpu={c.batch_gpu}: must be a multiple of --mbstd-group={c.mbstd_group}")
    if c.cond and c.dataset.label_dim == 0:
        problems.append(f"--cond: {c.dataset.path} has no labels (a dataset.json beside the images)")
    if c.dataset.channels not in (1, 3):
        problems.append(
            f"--data: {c.dataset.path} has {c.dataset.channels} channels, the networks take 1 or 3; "
            "`sg3 dataset --convert=rgb` converts"
        )
    if c.dataset.resolution < 16 or c.dataset.resolution & (c.dataset.resolution - 1):
        problems.append(
            f"--data: {c.dataset.path} has {c.dataset.resolution} x {c.dataset.resolution} images, expected a power of "
            "two of at least 16; `sg3 dataset --resolution=WxH` resizes"
        )
    if c.layers < 3:
        problems.append(f"--layers={c.layers}: a StyleGAN3 generator needs at least 3")
    return problems
