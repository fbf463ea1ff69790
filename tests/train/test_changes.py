"""What may change in a run that continues; options from files and where each comes from."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from sg3.data.dataset import ImageFolderDataset
from sg3.errors import DataError, MissingInputError, UsageError
from sg3.train.changes import apply_changes, require_same_run
from sg3.train.dataset import open_dataset
from sg3.train.launch import read_run
from sg3.train.option_file import origins, read_options
from sg3.train.recipes import presets, read_config, resolve
from sg3.train.recipes.stylegan.config import default_gamma
from sg3.train.recipes.stylegan.options import StyleGANOptions as Options
from sg3.train.state import load_state
from tests.helpers.image_files import encoded, pixels, write_zip
from tests.helpers.runs import TINY_ARGS, facts, tiny_config
from tests.helpers.trainers import new_trainer


def test_changes_are_listed_with_their_effect() -> None:
    config = tiny_config(gamma=2.0, batch=8, batch_gpu=4)
    changed, lines = apply_changes(config, Options(gamma=3.0, gpus=2, kimg=1, tick=5))
    assert (changed.gamma, changed.gpus, changed.tick) == (3.0, 2, 5)
    assert lines == [
        "changed: --gpus 1 -> 2 (sums are taken in another order, which changes their rounding)",
        "changed: --gamma 2.0 -> 3.0 (from here on another training recipe)",
        "changed: --tick 1 -> 5",
    ]
    assert apply_changes(config, Options()) == (config, [])


def test_a_dataset_that_has_moved_has_its_new_name(tmp_path: Path) -> None:
    moved = apply_changes(tiny_config(), Options(data=str(tmp_path / "q1.zip")))[0].dataset
    assert (moved.path, moved.name) == (str(tmp_path / "q1.zip"), "q1")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"cmax": 16, "seed": 1}, "--seed, --cmax: cannot change in a run that continues"),
        ({"gpus": 4}, "--gpus=4: the run's steps of 8 images are made of micro-batches of 4, which cannot be shared"),
        ({"batch_gpu": 3}, "--batch-gpu=3: must be a multiple of --mbstd-group=2"),
        ({"batch_gpu": 1}, "--batch-gpu=1: cannot be smaller than --mbstd-group=2"),  # as at the start of a run
        ({"gpus": 2, "batch_gpu": 8}, "--batch=8: must be a multiple of --gpus x --batch-gpu = 16"),
    ],
)
def test_what_would_be_another_run_is_refused(said: dict, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        apply_changes(tiny_config(batch=8, batch_gpu=4), Options(**said))
    assert message in str(caught.value).replace("--cmax, --seed", "--seed, --cmax")


def test_a_refusal_names_what_is_refused_alone() -> None:
    with pytest.raises(UsageError) as caught:
        apply_changes(tiny_config(), Options(cmax=16, kimg=9))
    assert re.findall("--[a-z-]+", str(caught.value)) == ["--cmax"]
    assert str(caught.value).endswith("start a new one (docs/options.md says what can change)")


def test_values_are_checked_as_at_the_start() -> None:
    for said, message in (
        ({"gamma": float("inf")}, "--gamma=inf: expected a finite number"),
        ({"glr": -1.0}, "--glr=-1.0: expected at least 0"),
        ({"p": 3.0, "aug": "fixed"}, "--p=3.0: expected 0 to 1"),
        ({"workers": -1}, "--workers=-1: expected 0 to 256"),
    ):
        with pytest.raises(UsageError, match=message):
            apply_changes(tiny_config(), Options(**said))
    with pytest.raises(UsageError, match="--bf16 and --fp32: choose one"):
        apply_changes(tiny_config(fp32=True), Options(bf16=True))


def test_a_run_that_was_allowed_more_goes_on() -> None:
    """31a3443 took --batch-gpu=1 with groups of 2 on continuing: that is no reason to refuse another change now."""
    config = replace(tiny_config(batch=8, batch_gpu=4), batch_gpu=1)
    assert apply_changes(config, Options(kimg=9))[0] == replace(config, kimg=9)
    with pytest.raises(UsageError, match="--batch-gpu=8: must be a multiple of --mbstd-group=3"):
        apply_changes(replace(config, mbstd_group=3), Options(batch_gpu=8))


def test_a_state_of_another_run_is_refused_with_the_difference() -> None:
    config = tiny_config(dataset=facts(content="abc"))
    same = tiny_config(dataset=facts(content="abc", path="elsewhere.zip", name="y"), kimg=9, gamma=7.0, desc="z")
    require_same_run(same.to_dict(), config, "run")
    other = tiny_config(dataset=facts(content="xyz", size=13), cmax=16, mirror=True).to_dict()
    with pytest.raises(DataError) as caught:
        require_same_run(other, config, "run")
    assert str(caught.value) == (
        "run: was saved by another run than this one would be: mirror True there, False here; cmax 16 there, 8 here; "
        "dataset size 13 there, 12 here; dataset content xyz there, abc here"
    )


def test_other_images_are_refused(tmp_path: Path) -> None:
    """Runs of earlier versions keep a hash of every file, dataset.json among them."""
    data = write_zip(tmp_path / "a.zip", {"a.png": encoded(pixels(1, 16)), "dataset.json": b'{"labels": null}'})
    dataset = ImageFolderDataset(data)
    for known in (dataset.training_hash(), dataset.content_hash()):
        assert len(open_dataset(tiny_config(data, facts(path=str(data), size=1, content=known)))) == 1
    with pytest.raises(DataError, match=r"a\.zip: has changed since the run began, other images"):
        open_dataset(tiny_config(data, facts(path=str(data), size=1, content="of other images")))
    there = tiny_config(data, facts(path=str(data), size=1, resolution=32, channels=1))
    with pytest.raises(DataError, match="1 images of 3 channels, 16x16 instead of 1 images of 1 channels, 32x32"):
        open_dataset(there)


def test_options_from_toml_and_json(tmp_path: Path) -> None:
    toml = tmp_path / "a.toml"
    toml.write_text('cfg = "stylegan2"\nbatch-gpu = 4\ngamma = 2\nmirror = true\ngrid = "8x4"\npreset = "demo"\n')
    options, preset = read_options(toml)
    assert options == {"cfg": "stylegan2", "batch_gpu": 4, "gamma": 2.0, "mirror": True, "grid": (8, 4)}
    assert preset == "demo"
    record = tmp_path / "training_options.json"  # as a run leaves it
    record.write_text(json.dumps({"options": {"cfg": "stylegan3-r", "grid": [2, 2]}, "config": {"cfg": "x"}}))
    assert read_options(record) == ({"cfg": "stylegan3-r", "grid": (2, 2)}, None)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "batch = ", r"a.toml: cannot be read as .toml"),
        ("a.json", "{", "a.json: cannot be read as .json"),
        ("a.py", "batch = 3", "a.py: cannot be read as JSON: "),
        ("a.py", "batch = 3", "; options are read from .toml and .json files"),
        ("a.yaml", "batch: 3", "; options are read from .toml and .json files"),
        ("a.json", "[]", "expected a table of options, got a list"),
        ("a.toml", "bacth = 3", "'bacth' is no option of sg3 train; did you mean 'batch'?"),
        ("a.toml", "batch = 3.5", "batch = 3.5: expected a whole number"),
        ("a.toml", "batch = true", "batch = True: expected a whole number"),
        ("a.toml", "cfg = 'stylegan4'", "cfg = 'stylegan4': expected one of stylegan3-t, stylegan3-r, stylegan2"),
        ("a.toml", "batch = 0", "batch = 0: expected 1 to 100000"),
        ("a.toml", "gamma = nan", "gamma = nan: expected a finite number"),
        ("a.toml", "pl-weight = inf", "pl_weight = inf: expected a finite number"),
        ("a.toml", "p = 2", "p = 2: expected 0 to 1"),
        ("a.toml", "grid = '8'", "grid = '8': expected columns x rows, like 8x4"),
        ("a.toml", "preset = 'x'", "preset = 'x': unknown"),
    ],
)
def test_wrong_option_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        read_options(tmp_path / name)
    assert message in str(caught.value)
    with pytest.raises(MissingInputError, match="no such file"):
        read_options(tmp_path / "none.toml")


def test_the_command_line_wins_over_file_and_preset() -> None:
    words, file, preset = {"batch": 4}, {"batch": 8, "gamma": 1.0}, {"kimg": 3}
    options, where = origins([("command line", words), ("f.toml", file), ("preset p", preset)])
    assert options == Options(batch=4, gamma=1.0, kimg=3)
    named = [where[name] for name in ("batch", "gamma", "kimg", "cfg")]
    assert named == ["command line", "f.toml", "preset p", "default"]


def test_every_preset_makes_a_configuration() -> None:
    """With the data it is named after; the demos' values are covered where they are run."""
    published = {name: preset for name, preset in presets().items() if not name.startswith("demo")}
    assert len(published) >= 40
    for name, preset in published.items():
        size = next((int(word) for word in reversed(name.split("-")) if word in ("128", "256", "512", "1024")), None)
        size = size or {"ada-paper256": 256, "ada-paper512": 512, "ada-paper1024": 1024, "ada-cifar": 32}.get(name, 512)
        labels = {"label_dim": 10, "has_labels": True} if preset.options.cond else {}
        config = resolve(preset.options, facts(resolution=size, **labels))
        unsaid = default_gamma(size, config.batch) if name.startswith("maua-unprojected") else 0
        assert config.gamma == (preset.options.gamma or unsaid), name
        assert read_config(json.loads(json.dumps(config.to_dict()))) == config, name
    paper = resolve(presets()["metfaces-1024-stylegan3-r"].options, facts(resolution=1024))
    assert (paper.gamma, paper.kimg, paper.snap, paper.mirror, paper.aug) == (3.3, 5000, 10, True, "ada")
    assert paper.resume == "stylegan3-r-ffhq-1024x1024"
    cifar = resolve(presets()["ada-cifar"].options, facts(resolution=32))
    assert (cifar.pl_weight, cifar.g_reg_interval, cifar.style_mixing_prob, cifar.d_arch) == (0, None, 0, "orig")


def test_presets_that_fine_tune_name_published_networks() -> None:
    from sg3.published import published_url

    sources = {preset.options.resume for preset in presets().values()} - {None}
    assert len(sources) >= 6
    assert [name for name in sources if published_url(name) is None] == []


def test_augmentation_changes_take_effect_or_are_refused(discs: Path) -> None:
    """--aug=fixed brings its p along, also into a trainer that takes up a state; --p and --target say nothing alone."""
    changed, _ = apply_changes(tiny_config(aug="noaug"), Options(aug="fixed"))
    assert changed.p == 0.2
    for said, message in ((Options(p=0.5), "--p: belongs to --aug=fixed"), (Options(target=0.5), "--target: belongs")):
        with pytest.raises(UsageError, match=message):
            apply_changes(tiny_config(aug="noaug"), said)

    config = tiny_config(discs, aug="fixed", p=0.1)
    state = new_trainer(config).state_dict()
    changed, _ = apply_changes(config, Options(p=0.7, gamma=0.0))
    again = new_trainer(changed)
    again.load_state_dict(state)  # of a run with R1, which this one has no more
    assert again.augmentation.p == 0.7
    assert [phase.name for phase in again.phases] == ["Gboth", "Dmain"]


def test_changes_outlive_the_life_that_made_them(discs: Path, run, tmp_path: Path) -> None:
    """A requeued `--continue=latest` must not fall back to the options that the run was started with."""
    words = [f"--data={discs}", "--minutes=0.0001", "--aug=noaug", *TINY_ARGS]
    assert run("train", f"--outdir={tmp_path}", *words).code == 0
    (run_dir,) = tmp_path.iterdir()
    assert run("train", f"--continue={run_dir}", "--gamma=3", "--minutes=0.02").code == 0
    assert read_run(run_dir)[0].gamma == 3
    assert "gamma" not in read_run(run_dir)[1]["options"]
    assert load_state(run_dir, pytest.fail)["config"]["gamma"] == 3
