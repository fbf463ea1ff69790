"""What a training run is made of: options as typed, presets, and the resolved, validated configuration.

`Options` holds what the user said (None = nothing), `resolve` fills in everything else and reports all
contradictions at once. The result is plain data: it is what `training_options.json` contains. No torch in here, so
that `sg3 train --help` is instant.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import isfinite
from typing import Any

from sg3.errors import UsageError

CFGS = ("stylegan3-t", "stylegan3-r", "stylegan2")
DEFAULT_P = 0.2  # of --aug=fixed


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
    augpipe: str | None = None
    p: float | None = None
    target: float | None = None
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
    d_map_depth: int | None = None
    d_arch: str | None = None
    mbstd_group: int | None = None
    pl_weight: float | None = None
    style_mix: float | None = None
    ema_kimg: float | None = None
    ema_rampup: float | None = None
    desc: str | None = None
    metrics: str | None = None
    detector_dir: str | None = None
    kimg: int | None = None
    minutes: float | None = None
    tick: int | None = None
    snap: int | None = None
    grid: tuple[int, int] | None = None
    seed: int | None = None
    fp32: bool | None = None
    bf16: bool | None = None
    tf32: bool | None = None
    nhwc: bool | None = None
    compile: str | None = None
    nobench: bool | None = None
    workers: int | None = None
    subset: int | None = None
    on_error: str | None = None
    keep_snapshots: int | None = None
    timeout: float | None = None
    profile: int | None = None
    device: str | None = None

    def said(self) -> dict[str, Any]:
        """The options that have a value."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    def over(self, other: Options) -> Options:
        """These options, with the other's where nothing was said."""
        return Options(**{**other.said(), **self.said()})


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """What the configuration needs to know of a dataset; `name` goes into the run folder's name.

    `label_dim` is the width of its labels if the run is conditional, else 0; `has_labels` says whether there are any;
    `content` is a hash of all images and labels.
    """

    path: str
    name: str
    resolution: int
    channels: int
    size: int
    label_dim: int
    has_labels: bool
    content: str


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
    nobench: bool
    on_error: str
    timeout: float
    profile: int

    z_dim: int
    w_dim: int
    map_depth: int
    d_map_depth: int
    d_arch: str
    cbase: int
    cmax: int
    layers: int
    margin: int
    num_fp16_res: int
    conv_clamp: float | None
    bf16: bool
    tf32: bool
    nhwc: bool = False  # (runs that began before these two existed continue)
    compile: str = "off"
    magnitude_ema_beta: float
    mbstd_group: int
    freezed: int

    aug: str
    augpipe: str
    p: float  # of --aug=fixed, and what --aug=ada starts from
    target: float
    ada_kimg: float
    ada_interval: int

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
    metrics: tuple[str, ...]
    detector_dir: str | None
    keep_snapshots: int | None
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
            channels = {"channel_base": self.cbase, "channel_max": self.cmax}
            return {**common, **channels, "fp16_channels_last": self.nhwc}
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
            "img_channels": self.dataset.channels, "architecture": self.d_arch,
            "channel_base": self.cbase, "channel_max": self.cmax, "num_fp16_res": self.num_fp16_res,
            "conv_clamp": self.conv_clamp,
            "block_kwargs": {"freeze_layers": self.freezed, "fp16_channels_last": self.nhwc},
            "mapping_kwargs": {"num_layers": self.d_map_depth},
            "epilogue_kwargs": {"mbstd_group_size": self.mbstd_group},
        }  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> TrainConfig:
        """The inverse of `to_dict`. Raises TypeError for missing or unknown fields."""
        grid = tuple(data["grid"]) if data.get("grid") else None
        dataset = DatasetFacts(**data["dataset"])
        return TrainConfig(**{**data, "dataset": dataset, "grid": grid, "metrics": tuple(data["metrics"])})

    @property
    def is_half(self) -> bool:
        """Whether some layers run in 16 bits on a GPU."""
        return self.num_fp16_res > 0


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
    pl_weight = (2.0 if sg2 else 0.0) if o.pl_weight is None else o.pl_weight
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
        nobench=bool(o.nobench),
        on_error=o.on_error or "fail",
        timeout=o.timeout or 300.0,
        profile=o.profile or 0,
        z_dim=latent,
        w_dim=latent,
        map_depth=o.map_depth or (8 if sg2 else 2),
        d_map_depth=o.d_map_depth or 8,
        d_arch=o.d_arch or "resnet",
        cbase=o.cbase or 32768,
        cmax=o.cmax or 512,
        layers=o.layers or 14,
        margin=10 if o.margin is None else o.margin,
        num_fp16_res=0 if o.fp32 else 4,
        conv_clamp=None if o.fp32 else 256.0,
        bf16=bool(o.bf16),
        tf32=bool(o.tf32),
        nhwc=bool(o.nhwc),
        compile=o.compile or "off",
        magnitude_ema_beta=0.5 ** (batch / 20e3),
        mbstd_group=o.mbstd_group or 4,
        freezed=o.freezed or 0,
        aug=o.aug or "ada",
        augpipe=o.augpipe or "bgc",
        p=(DEFAULT_P if o.p is None else o.p) if o.aug == "fixed" else 0.0,
        target=0.6 if o.target is None else o.target,
        ada_kimg=100.0 if o.resume else 500.0,  # a pre-trained D overfits, and recovers, sooner
        ada_interval=4,
        gamma=default_gamma(dataset.resolution, batch) if o.gamma is None else o.gamma,
        glr=o.glr if o.glr is not None else (0.002 if sg2 else 0.0025),
        dlr=o.dlr if o.dlr is not None else 0.002,
        adam_beta2=0.99,
        adam_eps=1e-8,
        g_reg_interval=4 if pl_weight > 0 else None,
        d_reg_interval=16,
        pl_weight=pl_weight,
        pl_batch_shrink=2,
        pl_decay=0.01,
        style_mixing_prob=(0.9 if sg2 else 0.0) if o.style_mix is None else o.style_mix,
        # R starts with blurred images, which keeps the discriminator from winning on high frequencies (Appendix F);
        # a pre-trained network does not need that.
        blur_init_sigma=10.0 if rotation and not o.resume else 0.0,
        blur_fade_kimg=batch * 200 / 32 if rotation else 0.0,
        ema_kimg=o.ema_kimg if o.ema_kimg is not None else batch * 10 / 32,
        ema_rampup=(None if o.resume else 0.05) if o.ema_rampup is None else o.ema_rampup or None,
        tick=o.tick or 4,
        snap=o.snap or 50,
        grid=o.grid,
        metrics=metric_names(o.metrics or "none"),
        detector_dir=o.detector_dir,
        keep_snapshots=o.keep_snapshots,
        desc=o.desc,
    )
    problems = check(config, o)
    if problems:
        raise UsageError("; ".join(problems))
    return config


def metric_names(text: str) -> tuple[str, ...]:
    """`fid50k_full,eqr50k` -> its names; none for 'none'."""
    return tuple(name for name in text.split(",") if name and name != "none")


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
    problems += check_augmentation(options, c.aug)
    if options.bf16 and options.fp32:
        problems.append("--bf16 and --fp32: choose one")
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


def check_augmentation(options: Options, aug: str) -> list[str]:
    """Options that say nothing with this `aug`."""
    problems = []
    if options.p is not None and aug != "fixed":
        problems.append(f"--p: belongs to --aug=fixed, not to --aug={aug}")
    if options.target is not None and aug != "ada":
        problems.append(f"--target: belongs to --aug=ada, not to --aug={aug}")
    return problems
