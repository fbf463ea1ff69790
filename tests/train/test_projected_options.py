"""Projected GAN's options: what the original's command lines mean, and what contradicts itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sg3 import resources
from sg3.errors import DataError, UsageError
from sg3.train.config import TrainConfig
from sg3.train.recipes import options_of, presets, resolve
from sg3.train.recipes.projected.config import ProjectedConfig
from sg3.train.recipes.projected.options import ProjectedOptions
from sg3.train.recipes.stylegan.config import StyleGANConfig
from tests.helpers.runs import facts
from tests.helpers.tiny_systems import projected_config

LEFT_OUT = {  # of the original's option dictionaries, and why
    "class_name": "files name classes, options do not",
    "pin_memory": "always, for a GPU", "prefetch_factor": "always 2",
    "max_size": "a fact of the data set: its number of images", "path": "the machine's", "run_dir": "the machine's",
    "yflip": "a reflection that hardly any images allow; the data set can hold it",
    "restart_every": "the run's end, not the network's", "allow_tf32": "--tf32",
    "image_snapshot_ticks": "--snap is for images and networks alike",
    "fused_modconv_default": "one form of the modulated convolution",
    "pl_no_weight_grad": "memory, not numbers", "pl_weight": "0 here", "style_mixing_prob": "0 here",
    "G_reg_interval": "compared as the optimizer's speed",
    "D_kwargs.channel_base": "nothing in a projected D reads it", "D_kwargs.channel_max": "nor this",
    "D_kwargs.num_fp16_res": "nor this",
}  # fmt: skip
UNPROJECTED = {
    "G_kwargs.num_fp16_res": "5 there and 4 here: on a GPU one resolution more with 16 bits",
    "D_kwargs.num_fp16_res": "as G's",
}  # fmt: skip
FASTGAN_IGNORES = {"G_kwargs.num_fp16_res": "FastGAN's constructor fails on it"}
OPTIMIZERS = ("lr", "betas", "eps")


PRESETS = {  # the presets that have these scripts' values
    "cli_pg": {"fastgan": "projected-fastgan", "fastgan_lite": "projected-fastgan-lite",
               "stylegan2": "projected-stylegan2"},
    "cli_nv": {"fastgan_lite": "maua-fastgan-lite", "stylegan2": "maua-stylegan2", "stylegan3-t": "maua-stylegan3-t",
               "stylegan3-r": "maua-stylegan3-r"},
    "without --projected": {"stylegan2": "maua-unprojected-stylegan2", "stylegan3-t": "maua-unprojected-stylegan3-t"},
}  # fmt: skip


@pytest.mark.parametrize("group", ["cli_pg", "cli_nv"])
def test_command_lines_of_the_original(golden: Path, group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every value of the recorded option dictionaries is that of our preset with the same words, or listed above.

    The cases without --projected are StyleGAN's.
    """
    monkeypatch.setattr(resources, "usable_cpus", lambda: 8)  # few would load with fewer processes
    cases = json.loads((golden / "gan" / f"{group}.json").read_text())
    refused = [case["args"] for case in cases if "options" not in case]
    assert len(refused) == (group == "cli_nv"), "--mirror=1, which its code takes for a mistake; here both forms work"
    for case in cases:
        if "options" not in case:
            continue
        words = dict(word.removeprefix("--").partition("=")[::2] for word in case["args"])
        unprojected = group == "cli_nv" and "projected" not in words
        preset = presets()[PRESETS["without --projected" if unprojected else group][words.pop("cfg")]]
        size = int(Path(words.pop("data")).stem.removeprefix("d"))
        said: dict[str, Any] = {"mirror": "mirror" in words}  # (the presets mirror, as the papers do)
        for key, value in words.items():
            if key in ("batch", "gpus", "batch-gpu"):
                said[key.replace("-", "_")] = int(value)
            elif key in ("cond", "fp32"):
                said[key] = value == "1"
            else:
                assert key in ("mirror", "projected", "glr", "dlr"), "the last two have no effect on its FastGAN"
        options = type(preset.options)(**said).over(preset.options)
        config = resolve(options, facts(resolution=size, label_dim=10 if said.get("cond") else 0, has_labels=True))
        theirs, ours = flattened(case["options"]), as_the_original_says(config)
        explained = LEFT_OUT | (FASTGAN_IGNORES if config.cfg.startswith("fastgan") else {})
        if unprojected:
            explained = LEFT_OUT | UNPROJECTED
            ours = {key: value for key, value in ours.items() if key not in explained}
        unexplained = {k for k in theirs if k not in ours and not set(explained) & {k, k.split(".")[-1]}}
        assert not unexplained, case["args"]
        for key in theirs.keys() & ours.keys():
            assert ours[key] == theirs[key], (key, case["args"])


def flattened(options: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(options, dict):
        return {prefix: options}
    return {k: v for key, value in options.items() for k, v in flattened(value, f"{prefix}.{key}".strip(".")).items()}


def as_the_original_says(config: TrainConfig) -> dict[str, Any]:
    from sg3.models.augment import SPECS

    G, D = config.generator_kwargs(), config.discriminator_kwargs()
    facts_of_data = {"c_dim", "img_resolution", "img_channels"}  # which the original adds later
    if isinstance(config, ProjectedConfig):
        blur = (config.blur_sigma, config.blur_kimg)
        if config.cfg.startswith("fastgan"):
            facts_of_data |= {"z_dim", "ngf"}  # its defaults
            assert (G["z_dim"], G["ngf"]) == (256, 128)
    else:
        blur = (config.blur_init_sigma, config.blur_fade_kimg)
        assert config.g_reg_interval == 4
        # Left to the constructors of the original, where they have these values, too.
        assert (D.pop("architecture"), D["mapping_kwargs"].pop("num_layers")) == ("resnet", 8)
    loss = {"r1_gamma": config.gamma}
    if blur[0]:
        loss |= dict(zip(("blur_init_sigma", "blur_fade_kimg"), blur, strict=True))
    if isinstance(config, StyleGANConfig):
        loss |= {"style_mixing_prob": config.style_mixing_prob, "pl_weight": config.pl_weight}
    return {
        **flattened({key: value for key, value in G.items() if key not in facts_of_data}, "G_kwargs"),
        **flattened({k: v for k, v in D.items() if k not in facts_of_data | {"backbone", "enlarged"}}, "D_kwargs"),
        **{f"{letter}_opt_kwargs.{key}": value for letter, lr in (("G", config.glr), ("D", config.dlr))
           for key, value in (("lr", lr), ("betas", [0, config.adam_beta2]), ("eps", config.adam_eps))},
        "data_loader_kwargs.num_workers": config.workers,
        **{f"loss_kwargs.{key}": value for key, value in loss.items()},
        "training_set_kwargs.use_labels": config.cond, "training_set_kwargs.xflip": config.mirror,
        "training_set_kwargs.resolution": config.dataset.resolution, "training_set_kwargs.random_seed": config.seed,
        "num_gpus": config.gpus, "batch_size": config.batch, "batch_gpu": config.batch_gpu,
        "ema_kimg": config.ema_kimg, "ada_target": config.target,
        **{f"augment_kwargs.{name}": value for name, value in SPECS[config.augpipe].items()},
        "metrics": ["fid50k_full"], "total_kimg": config.kimg, "kimg_per_tick": config.tick,
        "network_snapshot_ticks": config.snap, "random_seed": config.seed,
    }  # fmt: skip


def test_cfgs() -> None:
    """FastGAN implies the projected discriminator, the switch makes a StyleGAN one of this system's."""
    assert type(options_of({"cfg": "fastgan_lite"})) is ProjectedOptions
    assert type(options_of({"cfg": "fastgan", "projected": True})) is ProjectedOptions
    assert options_of({"cfg": "stylegan3-r", "projected": True}).cfg == "stylegan3-r-projected"
    assert type(options_of({"cfg": "stylegan3-r"})) is not ProjectedOptions
    for name in ("projected-fastgan", "maua-stylegan3-t"):
        assert resolve(presets()[name].options, facts(resolution=256)).batch == 64
    maua = resolve(presets()["maua-stylegan2"].options, facts(resolution=256))
    assert (maua.loss, maua.aug, maua.map_depth, maua.g_reg_interval) == ("softplus", "ada", 8, 4)
    assert resolve(ProjectedOptions(), facts(resolution=256)).aug == "noaug"


@pytest.mark.parametrize(
    ("said", "dataset", "message"),
    [
        ({}, {"resolution": 48}, "FastGAN makes 32, 64, ... 1024 pixels"),
        ({"cfg": "stylegan2-projected"}, {"resolution": 12}, "expected a power of two of at least 16"),
        ({"bf16": True}, {}, "--bf16: fastgan has no layers with 16 bits"),
        ({"cond": True}, {"label_dim": 1001, "has_labels": True}, "has 1001 classes, the embeddings hold 1000"),
        ({"compile": "graphs"}, {}, "--compile=graphs: is for StyleGAN2 and StyleGAN3 without --projected; the means"),
        ({"enlarge": 200}, {}, "--enlarge=200: expected a multiple of 32"),
        ({"projected": False}, {}, "--projected=0: fastgan always has a projected discriminator"),
        ({"p": 0.3}, {}, "--p: belongs to --aug=fixed, not to --aug=noaug"),
    ],
)
def test_contradictions_are_named(said: dict[str, Any], dataset: dict[str, Any], message: str) -> None:
    images = {"channels", "resolution"} & dataset.keys()
    with pytest.raises(DataError if images else UsageError, match=message):
        projected_config(dataset=facts(**{"resolution": 32, **dataset}), **said)
