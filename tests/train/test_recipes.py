"""A system that is not there: a package with a recipe brings its options, help, presets, configuration and errors, and
nothing else has to know of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sg3.errors import UsageError
from sg3.train import recipes
from sg3.train.changes import apply_changes
from sg3.train.option_file import origins, read_options
from sg3.train.option_table import options_page
from sg3.train.recipes import known_options, options_of, presets, read_config, recipe_of, resolve
from sg3.train.recipes.recipe import Recipe
from tests.helpers.runs import facts

RECIPE = '''
from dataclasses import dataclass
from sg3.train.config import TrainConfig
from sg3.train.options import NETWORKS, OPTIMISATION, OTHER_RECIPE, Options, again, option
from sg3.train.recipes.recipe import Preset, Recipe

@dataclass(frozen=True, kw_only=True)
class TinyOptions(Options):
    cfg: str | None = again(Options, "cfg", default="tinygan", choices=("tinygan", "tinygan-wide", "stylegan2-tiny"))
    batch: int | None = again(Options, "batch", default=64)
    aug: str | None = again(Options, "aug", default="schedule", choices=("noaug", "schedule"))
    glr: float | None = again(Options, "glr", default=0.0002)
    dlr: float | None = again(Options, "dlr", default=0.0002)
    width: int | None = option(
        "Channels of every layer.", NETWORKS, default=16, by_cfg={"tinygan-wide": 99}, at_least=2
    )
    tiny: bool | None = option("With a tiny D.", NETWORKS, default=False)
    warmup: float | None = option("Slow start.", OPTIMISATION, default=1.0, at_least=0, changes=OTHER_RECIPE)

@dataclass(frozen=True, kw_only=True)
class TinyConfig(TrainConfig):
    width: int
    warmup: float

    @classmethod
    def resolve(cls, options, dataset):
        return cls.from_options(options.with_defaults(), dataset, z_dim=8)

    def problems(self, said):
        odd = [f"--width={self.width}: must be even"] if self.width % 2 else []
        return super().problems(said) + odd

    @property
    def is_half(self):
        return False

def build(*_):
    raise NotImplementedError

RECIPE = Recipe(
    name="tiny", options=TinyOptions, config=TinyConfig, build_networks=build, build_system=build, switch="tiny",
    presets={"tiny-32": Preset("any data of 32 x 32", TinyOptions(cfg="tinygan", width=4))},
)
'''


def write_recipe(folder: Path, name: str = "tinygan", text: str = RECIPE) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text("")
    (folder / name / "recipe.py").write_text(text)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose packages are recipes as well."""
    monkeypatch.setattr(recipes, "__path__", [*recipes.__path__, str(tmp_path)])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith(recipes.__name__):
            del sys.modules[name]


def found(*names: str) -> tuple[Recipe, ...]:
    """The systems of these names, of all that there are."""
    return tuple(recipe for recipe in recipes.discover() if recipe.name in names)


@pytest.fixture
def tinygan(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recipe(place)
    monkeypatch.setattr(recipes, "RECIPES", found("stylegan", "tiny"))


@pytest.mark.usefixtures("tinygan")
def test_its_options_and_defaults() -> None:
    said = options_of({"cfg": "tinygan", "kimg": 3})
    config = resolve(said, facts())
    assert (config.batch, config.width, config.kimg, config.aug) == (64, 16, 3, "schedule")
    assert resolve(options_of({"cfg": "tinygan-wide", "width": 8}), facts()).width == 8
    known = known_options()
    assert known["batch"].shown_default == "32; tiny: 64"
    assert known["glr"].shown_default == "0.0025; stylegan2: 0.002; tiny: 0.0002"
    assert known["aug"].choices == ("noaug", "ada", "fixed", "schedule")
    assert known["cfg"].choices[:3] == ("stylegan3-t", "stylegan3-r", "stylegan2"), "the default system comes first"
    assert known["cfg"].choices[3:] == ("tinygan", "tinygan-wide", "stylegan2-tiny")
    assert "`--width` | whole number, at least 2 | 16; tinygan-wide: 99 | Channels" in options_page()
    assert "of every layer. (only tinygan, tinygan-wide, stylegan2-tiny)" in options_page()
    assert recipe_of("tinygan-wide").name == "tiny"
    assert presets()["tiny-32"].options == options_of({"cfg": "tinygan", "width": 4})
    assert len(presets()) == 51


@pytest.mark.usefixtures("tinygan")
def test_its_switch_makes_another_system_its_own() -> None:
    options, where = origins([("command line", {"tiny": True, "width": 2}), ("f.toml", {"cfg": "stylegan2"})])
    assert (options.cfg, where["cfg"]) == ("stylegan2-tiny", "f.toml")
    assert resolve(options, facts()).run_name == "stylegan2-tiny-x-gpus1-batch64"
    with pytest.raises(UsageError, match=r"--tiny: belongs to tinygan, .*, not to --cfg=stylegan3-r"):
        options_of({"tiny": True, "cfg": "stylegan3-r"})
    assert options_of({"tiny": False, "cfg": "tinygan"}).cfg == "tinygan"


@pytest.mark.usefixtures("tinygan")
def test_its_configuration_comes_back_from_json() -> None:
    config = resolve(options_of({"cfg": "tinygan", "grid": "2x3"}), facts())
    assert read_config(json.loads(json.dumps(config.to_dict()))) == config
    assert config.run_name == "tinygan-x-gpus1-batch64"


@pytest.mark.usefixtures("tinygan")
def test_its_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--width=5: must be even"):
        resolve(options_of({"cfg": "tinygan", "width": 5}), facts())
    with pytest.raises(UsageError) as caught:
        options_of({"cfg": "tinygan", "pl_weight": 1.0})
    assert str(caught.value) == (
        "--pl-weight: belongs to stylegan3-t, stylegan3-r, stylegan2, not to --cfg=tinygan"
    )
    with pytest.raises(UsageError, match=r"--width: belongs to tinygan, .*, not to --cfg=stylegan3-t$"):
        options_of({"width": 4})
    with pytest.raises(UsageError, match="--aug=ada: expected one of noaug, schedule"):
        options_of({"cfg": "tinygan", "aug": "ada"})

    (tmp_path / "run.toml").write_text('gamma = 2\npreset = "tiny-32"\n')
    said, named = read_options(tmp_path / "run.toml")
    layers = [("command line", {}), ("run.toml", said), ("preset", presets()[str(named)].options.said())]
    with pytest.raises(UsageError, match=r"--gamma: belongs to .*, not to --cfg=tinygan \(from run.toml\)$"):
        origins(layers)
    options, where = origins([("command line", {"batch": 8}), *layers[2:]])
    assert (options.batch, options.cfg) == (8, "tinygan")
    assert (where["batch"], where["width"], where["warmup"]) == ("command line", "preset", "default")


@pytest.mark.usefixtures("tinygan")
def test_its_runs_continue_with_its_own_options() -> None:
    config = resolve(options_of({"cfg": "tinygan"}), facts())
    changed, lines = apply_changes(config, options_of({"warmup": 2}, config.cfg))
    assert (changed.warmup, lines) == (2, ["changed: --warmup 1.0 -> 2.0 (from here on another training recipe)"])
    with pytest.raises(UsageError, match="--width: cannot change in a run that continues"):
        apply_changes(config, options_of({"width": 4}, config.cfg))
    with pytest.raises(UsageError, match="--gamma: belongs to stylegan3-t"):
        options_of({"gamma": 4}, config.cfg)


@pytest.mark.parametrize(
    ("text", "other"),
    [("at_least=2", "at_least=3"), ("width", "cmax"), ("NETWORKS,", "OPTIMISATION,"), ("width: int", "width: float")],
)
def test_one_name_means_one_thing(place: Path, monkeypatch: pytest.MonkeyPatch, text: str, other: str) -> None:
    """Two systems may have other defaults and choices for a name, and nothing else."""
    for name, default, declared in (("agan", "16", RECIPE), ("bgan", "32", RECIPE), ("cgan", "16", None)):
        body = (declared or RECIPE.replace(text, other)).replace('name="tiny"', f'name="{name}"')
        write_recipe(place, name, body.replace("default=16", f"default={default}"))
    stylegan, a, b, c = found("stylegan", "agan", "bgan", "cgan")
    monkeypatch.setattr(recipes, "RECIPES", (stylegan, a, b))
    assert known_options()["width"].shown_default == "16; tinygan-wide: 99; bgan: 32; tinygan-wide: 99"
    monkeypatch.setattr(recipes, "RECIPES", (stylegan, a, c))
    with pytest.raises(TypeError, match=r"cgan: declares .* in another way than"):
        known_options()


def test_the_command_line_has_it(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    program = """
import sys
import sg3.train.recipes as recipes
recipes.__path__.append(sys.argv[1])
recipes.RECIPES = tuple(recipe for recipe in recipes.discover() if recipe.name in ("stylegan", "tiny"))
import sg3.cli
for words in (["--help"], ["--list-presets"], ["--cfg=tinygan", "--style-mix=0.5", "--outdir=x"], ["--width=1"]):
    print(sg3.cli._run(["train", *words], debug=False), flush=True)
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    words = " ".join(done.stdout.replace("│", " ").split())
    assert "--width INTEGER [at least 2] Channels of every layer. [default: 16; tinygan-wide: 99]" in words
    assert "[default: 32; tiny: 64]" in words
    assert "tiny-32: any data of 32 x 32 --cfg=tinygan --width=4" in words
    refused, too_small = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "--style-mix: belongs to stylegan3-t, stylegan3-r, stylegan2, not to --cfg=tinygan" in refused
    assert "1: expected at least 2" in too_small


def test_no_two_systems_claim_a_cfg_or_a_preset() -> None:
    first = recipes.RECIPES[0]
    recipes.check_owners(recipes.RECIPES)
    other = replace(first, name="other", presets={})
    with pytest.raises(TypeError, match=rf"--cfg={first.cfgs[0]}: claimed by {first.name} and by other"):
        recipes.check_owners([first, other])
    rival = replace(recipes.RECIPES[1], presets={"demo": first.presets["demo"]})
    with pytest.raises(TypeError, match=f"--preset=demo: claimed by {first.name} and by {rival.name}"):
        recipes.check_owners([first, rival])
