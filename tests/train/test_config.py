"""Options become a configuration: the original's defaults per cfg, presets, and every contradiction named."""

from __future__ import annotations

import json

import pytest

from sg3.errors import DataError, UsageError
from sg3.models import stylegan2, stylegan3
from sg3.models.discriminator import DiscriminatorBlock
from sg3.train.recipes import presets, read_config, resolve
from sg3.train.recipes.stylegan.config import StyleGANConfig, default_gamma
from sg3.train.recipes.stylegan.options import StyleGANOptions as Options
from tests.helpers.runs import facts, tiny_config

FFHQ = facts(name="ffhq-1024", resolution=1024, size=70000)


@pytest.mark.parametrize(
    ("cfg", "expected"),
    [
        ("stylegan3-t", {"glr": 0.0025, "map_depth": 2, "g_reg_interval": None, "pl_weight": 0}),
        ("stylegan3-r", {"glr": 0.0025, "map_depth": 2, "blur_init_sigma": 10, "blur_fade_kimg": 200}),
        ("stylegan2", {"glr": 0.002, "map_depth": 8, "g_reg_interval": 4, "pl_weight": 2, "style_mixing_prob": 0.9}),
    ],
)
def test_defaults_of_the_original(cfg: str, expected: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sg3.resources.usable_cpus", lambda: 8)
    config = resolve(Options(cfg=cfg, batch=32, gamma=8.2), FFHQ)
    common = {
        "dlr": 0.002, "batch_gpu": 32, "cbase": 32768, "cmax": 512, "z_dim": 512, "w_dim": 512, "ema_kimg": 10,
        "ema_rampup": 0.05, "d_reg_interval": 16, "conv_clamp": 256, "num_fp16_res": 4, "kimg": 25000, "tick": 4,
        "snap": 50, "mbstd_group": 4, "workers": 3, "seed": 0, "gamma": 8.2, "aug": "ada", "augpipe": "bgc",
        "target": 0.6, "ada_kimg": 500, "ada_interval": 4, "p": 0, "d_map_depth": 8,
    }  # fmt: skip
    got = {key: getattr(config, key) for key in {**common, **expected}}
    assert got == {**common, **expected}
    assert config.magnitude_ema_beta == pytest.approx(0.998892, abs=1e-6)


def test_there_are_no_more_loaders_than_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sg3.resources.usable_cpus", lambda: 1)
    assert resolve(Options(), FFHQ).workers == 1
    assert resolve(Options(workers=7), FFHQ).workers == 7


def test_published_parameter_counts() -> None:
    """Constructor arguments of each cfg give the published sizes (R doubles the channels of G alone)."""
    for cfg, count in (("stylegan3-t", 22_313_167), ("stylegan3-r", 15_093_151)):
        G = stylegan3.Generator(**resolve(Options(cfg=cfg), FFHQ).generator_kwargs())
        assert sum(p.numel() for p in G.parameters()) == count
    D = stylegan2.Discriminator(**resolve(Options(cfg="stylegan3-r"), facts(resolution=64)).discriminator_kwargs())
    assert D.b8.conv0.weight.shape[0] == 512


def test_layer_noise_is_left_out_on_demand() -> None:
    facts_64 = facts(resolution=64)
    with_noise = resolve(Options(cfg="stylegan2"), facts_64).generator_kwargs()
    assert "use_noise" not in with_noise  # files of such runs stay as they were
    without = resolve(Options(cfg="stylegan2", cmax=8, latent=8, layer_noise=False), facts_64)
    names = dict(stylegan2.Generator(**without.generator_kwargs()).state_dict())
    assert not [name for name in names if "noise" in name]
    assert [name for name in stylegan2.Generator(**with_noise).state_dict() if name.endswith("noise_strength")]
    with pytest.raises(UsageError, match=r"--layer-noise=0.*stylegan2"):
        resolve(Options(cfg="stylegan3-t", layer_noise=False), FFHQ)


def test_transfer_and_fp32_change_what_they_should() -> None:
    r = resolve(Options(cfg="stylegan3-r", resume="net.pkl"), FFHQ)
    assert (r.blur_init_sigma, r.ema_rampup, r.ada_kimg) == (0, None, 100)
    full = resolve(Options(cfg="stylegan3-t", fp32=True, nobench=True), FFHQ)
    assert (full.num_fp16_res, full.conv_clamp, full.nobench) == (0, None, True)


def test_gamma_default() -> None:
    assert default_gamma(1024, 32) == pytest.approx(6.5536)
    assert resolve(Options(batch=32), FFHQ).gamma == pytest.approx(6.5536)
    assert resolve(Options(gamma=0.0), FFHQ).gamma == 0


@pytest.mark.parametrize(
    ("said", "dataset", "message"),
    [
        ({"batch": 30, "gpus": 1, "batch_gpu": 4}, {}, "--batch=30: must be a multiple of --gpus x --batch-gpu = 4"),
        ({"batch_gpu": 2}, {}, "--batch-gpu=2: cannot be smaller than --mbstd-group=4"),
        ({"batch": 36, "batch_gpu": 6}, {}, "--batch-gpu=6: must be a multiple of --mbstd-group=4"),
        ({"gpus": 3, "batch_gpu": 2}, {}, "--batch-gpu=2: cannot be smaller than --mbstd-group=4"),
        ({"gpus": 3}, {}, "--batch=8: must be a multiple of --gpus=3"),
        ({"p": 0.5}, {}, "--p: belongs to --aug=fixed, not to --aug=ada"),
        ({"target": 0.5, "aug": "noaug"}, {}, "--target: belongs to --aug=ada, not to --aug=noaug"),
        ({"fp32": True, "bf16": True}, {}, "--bf16 and --fp32: choose one"),
        ({"cond": True}, {}, "--cond: x.zip has no labels"),
        ({"layers": 2}, {}, "--layers=2"),
        ({"gamma": float("nan")}, {}, "--gamma=nan: expected a finite number"),
        ({"desc": "a\x1b[2Jb"}, {}, r"--desc='a\x1b[2Jb': becomes part of a folder's name; use visible"),
        ({"desc": "a/b"}, {}, "--desc=a/b: becomes part of a folder's name"),
    ],
)
def test_contradictions_are_named(said: dict, dataset: dict, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(Options(**{"batch": 8, **said}), facts(**dataset))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_has_no_effect_is_said() -> None:
    def notes(**said) -> list[str]:
        options = Options(**{"batch": 8, **said})
        return resolve(options, facts(size=80 if said.get("mirror") else 40)).notes(options)

    assert notes(subset=40) == notes(subset=9, mirror=True) == notes(layers=8, margin=5) == notes(freezed=7) == []
    for mirror in (False, True):  # which counts every image twice
        assert notes(subset=41, mirror=mirror) == ["--subset=41: the data set has 40 images, all are used"]
    assert notes(cfg="stylegan2", layers=8, margin=5) == [
        "--layers=8: is StyleGAN3's, without effect with --cfg=stylegan2",
        "--margin=5: is StyleGAN3's, without effect with --cfg=stylegan2",
    ]
    assert notes(cfg="stylegan2") == []
    (note,) = notes(freezed=8)
    assert note == "--freezed=8: D has 7 layers before those at its lowest resolution, all of these are frozen"


@pytest.mark.parametrize("d_arch", ["resnet", "skip", "orig"])
@pytest.mark.parametrize("size", [{}, {"resolution": 64, "height": 48, "width": 64}], ids=["square", "rectangle"])
def test_layers_that_can_be_frozen_are_counted(d_arch: str, size: dict) -> None:
    config = resolve(Options(batch=8, d_arch=d_arch, cbase=64, cmax=4), facts(**size))
    D = stylegan2.Discriminator(**config.discriminator_kwargs())
    blocks = [module for module in D.modules() if isinstance(module, DiscriminatorBlock)]
    assert config.freezable == sum(block.num_layers for block in blocks) > 3


def test_what_follows_from_a_contradiction_is_none() -> None:
    with pytest.raises(UsageError) as caught:
        resolve(Options(batch=7, gpus=2), facts())  # the batch of each GPU, 3, is less than the group
    assert str(caught.value) == "--batch=7: must be a multiple of --gpus=2"


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"resolution": 50}, "x.zip has 50 x 50 images, expected a power of two of at least 16 and at most 8192 or "
                             "squares like 48 x 48; `sg3 dataset"),
    ],
)
def test_images_that_cannot_be_trained_on_are_named(dataset: dict, message: str) -> None:
    with pytest.raises(DataError) as caught:
        resolve(Options(batch=8), facts(**dataset))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError) as caught:  # the rest can be wrong, too
        resolve(Options(batch=8, p=0.5), facts(**dataset))
    assert message in str(caught.value)
    assert "--p: belongs to --aug=fixed" in str(caught.value)


def test_all_contradictions_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        resolve(Options(batch=30, batch_gpu=4, aug="fixed", target=0.5, cond=True), facts())
    assert str(caught.value).count(";") >= 2


def test_json_round_trip() -> None:
    config = tiny_config(desc="note")
    assert read_config(json.loads(json.dumps(config.to_dict()))) == config
    assert config.run_name == "stylegan3-t-x-gpus1-batch4-gamma0.0128-note"


def test_runs_older_than_an_option_continue() -> None:
    data = tiny_config().to_dict()
    older = {name: value for name, value in data.items() if name not in ("nhwc", "compile")}
    assert read_config(older) == tiny_config()


def test_own_words_win_over_a_preset() -> None:
    options = Options(cfg="stylegan3-r", gamma=0.0, mirror=False).over(presets()["demo"].options)
    said = (options.cfg, options.gamma, options.mirror, options.data)
    assert said == ("stylegan3-r", 0.0, False, "openmoji:faces:white:32")


def test_the_fields_of_a_run_are_those_that_older_versions_wrote() -> None:
    """training_options.json and training states hold these; a new one needs a default."""
    written = tiny_config().to_dict()
    names = ("holdout", "threads", "resume_least", "posthoc_ema", "restart_every", "layer_noise", "clamp_images",
             "log_to", "d_num_fp16_res", "amp_on_cpu", "g_scaler", "d_scaler", "loss_scale", "chosen")  # fmt: skip
    newer = {name: written.pop(name) for name in names}
    assert StyleGANConfig.from_dict(written).to_dict() == {**written, **newer}
    assert set(written) == {
        "cfg", "dataset", "cond", "mirror", "subset", "seed", "gpus", "batch", "batch_gpu", "kimg", "minutes",
        "resume", "device", "workers", "nobench", "on_error", "timeout", "profile", "z_dim", "w_dim", "map_depth",
        "d_map_depth", "d_arch", "cbase", "cmax", "layers", "margin", "num_fp16_res", "conv_clamp", "bf16", "tf32",
        "nhwc", "compile", "magnitude_ema_beta", "mbstd_group", "freezed", "aug", "augpipe", "p", "target",
        "ada_kimg", "ada_interval", "gamma", "glr", "dlr", "adam_beta2", "adam_eps", "g_reg_interval",
        "d_reg_interval", "pl_weight", "pl_batch_shrink", "pl_decay", "style_mixing_prob", "blur_init_sigma",
        "blur_fade_kimg", "ema_kimg", "ema_rampup", "tick", "snap", "grid", "metrics", "detector_dir",
        "keep_snapshots", "desc",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("gamma", float("inf"), "gamma = inf: expected a finite number"),
        ("batch", 4.5, "batch = 4.5: expected a whole number"),
        ("mirror", None, "mirror = None: expected true or false"),
        ("grid", [1], r"grid = \[1\]: expected columns x rows"),
        ("cfg", "stylegan4", "'stylegan4'"),
        ("metrics", [1], "expected text"),
    ],
)
def test_a_damaged_configuration_is_not_read(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_config({**tiny_config().to_dict(), field: value})
    with pytest.raises(ValueError, match="size = '1': expected a whole number"):
        read_config({**tiny_config().to_dict(), "dataset": {**facts_of_tiny(), "size": "1"}})


def facts_of_tiny() -> dict:
    return tiny_config().to_dict()["dataset"]
