"""Each option is declared once: every way to say it passes the same check, and the help and the docs come from it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from sg3.errors import DataError, UsageError
from sg3.train.option_file import read_options
from sg3.train.option_table import options_page
from sg3.train.options import OTHER_RECIPE, check_value
from sg3.train.recipes import RECIPES, known_options, options_of, presets
from sg3.train.recipes.stylegan.options import StyleGANOptions

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("batch", 0, "expected 1 to 100000"),
        ("batch", 2.5, "expected a whole number"),
        ("seed", -1, "expected at least 0"),
        ("layers", 2, "expected 3 to 64"),
        ("gamma", float("nan"), "expected a finite number"),
        ("gamma", 1e300, "expected at most 3.4e+38"),
        ("glr", float("inf"), "expected a finite number"),
        ("p", 1.5, "expected 0 to 1"),
        ("mirror", "perhaps", "expected true or false"),
        ("aug", "some", "expected one of noaug, ada, fixed"),
        ("cfg", "stylegan4", "expected one of stylegan3-t, stylegan3-r, stylegan2"),
        ("grid", "8", "expected columns x rows, like 8x4"),
        ("grid", "8x0", "expected columns x rows, like 8x4"),
    ],
)
def test_a_value_is_refused_alike_wherever_it_comes_from(
    run, tmp_path: Path, name: str, value: object, expected: str
) -> None:
    (tmp_path / "said.json").write_text(json.dumps({name: value}))
    with pytest.raises(DataError) as in_file:
        read_options(tmp_path / "said.json")
    with pytest.raises(UsageError) as in_python:
        StyleGANOptions(**{name: value})
    on_command_line = run("train", f"--{name}={value}", f"--outdir={tmp_path}")
    assert on_command_line.code == 2
    for line in (str(in_file.value), str(in_python.value), on_command_line.error_line()):
        assert f"{value}" in line
        assert f": {expected}" in line


def test_python_values_become_what_is_declared() -> None:
    options = StyleGANOptions(gamma=2, grid=[8, 4], data=Path("a.zip"), mirror=False)
    assert options.said() == {"data": "a.zip", "mirror": False, "gamma": 2.0, "grid": (8, 4)}
    assert type(options.gamma) is float
    with pytest.raises(UsageError, match="--batch=0: expected 1 to 100000; --p=2: expected 0 to 1"):
        StyleGANOptions(batch=0, p=2)


def test_options_are_those_of_the_system_that_cfg_names() -> None:
    assert options_of({"cfg": "stylegan2", "gamma": 1.0}) == StyleGANOptions(cfg="stylegan2", gamma=1.0)
    assert options_of({"batch": 4}) == StyleGANOptions(batch=4)
    with pytest.raises(UsageError, match="'bacth' is no option of sg3 train; did you mean 'batch'"):
        options_of({"bacth": 4})
    with pytest.raises(UsageError, match="--cfg=stylegan4: expected one of stylegan3-t, stylegan3-r, stylegan2"):
        options_of({"cfg": "stylegan4"})


def test_defaults_are_values_that_the_option_may_have() -> None:
    for recipe in RECIPES:
        for option in recipe.options.declared().values():
            for value in (option.default, *option.by_cfg.values()):
                assert value is None or check_value(option, value) == value, option.name
            assert set(option.by_cfg) <= set(recipe.cfgs), option.name
    assert StyleGANOptions().with_defaults().map_depth == 2
    assert StyleGANOptions(cfg="stylegan2").with_defaults().map_depth == 8
    assert StyleGANOptions(cfg="stylegan2", map_depth=3).with_defaults().map_depth == 3


def test_what_may_change_on_continuing() -> None:
    """As before there were declarations, but for what other systems have brought along."""
    changes = {name: option.changes for name, option in known_options().items()}
    assert {name for name, effect in changes.items() if effect == ""} == {
        "kimg", "minutes", "tick", "snap", "grid", "workers", "nobench", "device", "metrics", "detector_dir",
        "keep_snapshots", "on_error", "timeout", "profile", "data", "restart_every", "log_to",
    }  # fmt: skip
    assert {name for name, effect in changes.items() if effect == OTHER_RECIPE} == {
        "gamma", "glr", "dlr", "ema_kimg", "aug", "augpipe", "p", "target", "final_p", "schedule_kimg", "penalty",
        "blur_sigma", "blur_kimg",
    }  # fmt: skip
    others = {name for name, effect in changes.items() if effect} - {
        name for name, effect in changes.items() if effect == OTHER_RECIPE
    }
    assert others == {
        "gpus", "batch_gpu", "threads", "tf32", "nhwc", "compile", "bf16", "amp_on_cpu", "g_scaler", "d_scaler",
        "loss_scale",
    }  # fmt: skip


def test_what_may_change_is_part_of_the_configuration() -> None:
    """`apply_changes` puts it there."""
    for recipe in RECIPES:
        fields = {field.name for field in dataclasses.fields(recipe.config)}
        changeable = {name for name, option in recipe.options.declared().items() if option.changes is not None}
        assert changeable - fields == {"data"}, recipe.name


def test_presets_are_options_of_their_own_system() -> None:
    for recipe in RECIPES:
        for name, preset in recipe.presets.items():
            assert type(preset.options) is recipe.options, name
    assert len(presets()) == sum(len(recipe.presets) for recipe in RECIPES), "a name that two systems have"
    assert f" {len(presets())} presets " in " ".join((ROOT / "docs" / "train.md").read_text().split())


def test_the_page_of_options_is_up_to_date() -> None:
    assert (ROOT / "docs" / "options.md").read_text() == options_page(), "python -m sg3.train.option_table"
    assert "(docs/options.md)" in (ROOT / "README.md").read_text()
    assert "(options.md)" in (ROOT / "docs" / "train.md").read_text()
