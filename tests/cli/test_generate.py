"""`sg3 generate` and `sg3 info`: the original's images for the original's seeds, and clear refusals."""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sg3
from sg3.formats import Snapshot
from sg3.models import stylegan2, stylegan3
from tests.helpers.runs import TINY_ARGS


def tiny(family, **kwargs):
    torch.manual_seed(1)
    shape = {"num_layers": 4} if family is stylegan3 else {}
    return family.Generator(8, kwargs.pop("c_dim", 0), 8, 16, 3, channel_base=128, channel_max=8, **shape)


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("networks")
    nets = {"sg3": tiny(stylegan3), "sg2": tiny(stylegan2), "cond": tiny(stylegan2, c_dim=3)}
    for name, G in nets.items():
        sg3.save(Snapshot(G_ema=G), folder / f"{name}.pkl")
    return {name: folder / f"{name}.pkl" for name in nets}


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_pictures_and_metadata(networks, run, tmp_path: Path) -> None:
    args = ["generate", f"--network={networks['sg3']}", "--seeds=3,5-7", "--trunc=0.7", f"--outdir={tmp_path}"]
    result = run(*args, "--grid=2x2")
    assert result.code == 0
    assert [Path(line).name for line in result.out.split()] == [f"seed{s:04d}.png" for s in (3, 5, 6, 7)] + ["grid.png"]
    assert json.loads(Image.open(tmp_path / "seed0005.png").text["sg3"])["seed"] == 5
    assert json.loads(Image.open(tmp_path / "seed0005.png").text["sg3"])["trunc"] == 0.7
    grid = pixels(tmp_path / "grid.png")
    assert np.array_equal(grid[16:, :16], pixels(tmp_path / "seed0006.png"))


def test_same_images_as_the_original_for_a_seed(networks, run, tmp_path: Path) -> None:
    """The documented recipe: RandomState(seed).randn, truncation to uint8 of 127.5 x + 128."""
    run("generate", f"--network={networks['sg2']}", "--seeds=0-5", f"--outdir={tmp_path}", "--batch=3")
    G = sg3.load(networks["sg2"]).G_ema
    for seed in range(6):
        z = torch.from_numpy(np.random.RandomState(seed).randn(1, 8))
        with torch.no_grad():
            img = G(z, None, noise_mode="const")
        expected = (img[0].permute(1, 2, 0) * 127.5 + 128).clamp(0, 255).to(torch.uint8).numpy()
        difference = np.abs(pixels(tmp_path / f"seed{seed:04d}.png").astype(int) - expected)
        assert difference.max() <= 1  # batching changes the last bits, which truncation may show
        assert (difference > 0).mean() < 0.01


def test_a_run_that_has_gone_on_since_its_snapshot_says_so(networks, run, tmp_path: Path) -> None:
    """A stopped run leaves a state and no new network. No word where these belong together."""
    folder = tmp_path / "00000-run"
    folder.mkdir()
    shutil.copy(networks["sg2"], folder / "network-snapshot-000012.pkl")
    args = ["generate", f"--network={folder}", "--seeds=3", f"--outdir={tmp_path / 'out'}"]
    gone_on = "the run went on to 13.50 kimg; this network, its newest, is of 12 kimg"
    for images, said in ((12032, []), (13500, [gone_on])):
        (folder / f"training-state-{images:010d}.pt").touch()
        result = run(*args)
        assert result.code == 0, result.err
        assert [line for line in result.err.splitlines() if "kimg" in line] == [f"note: {note}" for note in said]


def test_translate_moves_the_picture(networks, run, tmp_path: Path) -> None:
    """--translate=0.25,0 moves what is seen to the right by a quarter of the width; --rotate turns it."""
    common = [f"--network={networks['sg3']}", "--seeds=1"]
    run("generate", *common, f"--outdir={tmp_path / 'a'}")
    run("generate", *common, f"--outdir={tmp_path / 'b'}", "--translate=0.25,0")
    a, b = (pixels(tmp_path / d / "seed0001.png").astype(float) for d in "ab")
    right = np.abs(b[:, 4:] - a[:, :-4]).mean()
    left = np.abs(b[:, :-4] - a[:, 4:]).mean()
    assert right < 1.0
    assert right < left / 3
    run("generate", *common, f"--outdir={tmp_path / 'c'}", "--rotate=90")
    assert not np.array_equal(pixels(tmp_path / "c" / "seed0001.png"), a)


def test_classes(networks, run, tmp_path: Path) -> None:
    def go(*more: str):
        return run("generate", f"--network={networks['cond']}", "--seeds=0", f"--outdir={tmp_path}", *more)

    missing = go()
    assert (missing.code, "--class: needed" in missing.error_line()) == (2, True)
    beyond = go("--class=3")
    assert "--class=3: out of range, this network has classes 0 to 2" in beyond.error_line()
    pictures = []
    for c in (0, 1):
        assert go(f"--class={c}").code == 0
        pictures.append(pixels(tmp_path / "seed0000.png"))
    assert not np.array_equal(*pictures)
    ignored = run("generate", f"--network={networks['sg2']}", "--seeds=0", "--class=1", f"--outdir={tmp_path}")
    assert ignored.code == 0
    assert "has no effect" in ignored.err


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--network=missing.pkl", "--seeds=0"], 66, "missing.pkl"),
        (["--network=SG2", "--seeds=0", "--rotate=5"], 2, "cannot move its image, only StyleGAN3 can"),
        (["--network=SG2", "--seeds=a-b"], 2, "'a-b' is neither a number nor a range"),
        (["--network=SG2", "--seeds=5-2"], 2, "runs backwards"),
        (["--network=SG2", "--seeds=0-9", "--grid=3x3"], 2, "--grid=3x3: expected room for 10 images"),
        (["--network=SG2", "--seeds=0", "--grid=99999x99999"], 2, "at most 100000"),
        (["--network=SG2", "--seeds=4294967296"], 2, "4294967296 is out of range, numbers go from 0 to 4294967295"),
        (["--network=SG2", "--seeds=0-99999999999"], 2, "99999999999 is out of range, numbers go from 0 to 4294967295"),
        (["--network=SG2", "--seeds=-1"], 2, "-1 is out of range, numbers go from 0 to 4294967295"),
        (["--network=SG2", "--seeds=3--1"], 2, "-1 is out of range"),
        (["--network=SG2", "--seeds=0-99999999"], 2, "more than a million"),
        (["--network=SG2", "--seeds=0", "--trunc=nan"], 2, "--trunc': 'nan' is not a finite number"),
        (["--network=SG2", "--seeds=0", "--trunc=1e300"], 2, "--trunc': '1e300' is not a finite number of 32 bits"),
        (["--network=SG2", "--seeds=0", "--translate=1e300,0"], 2, "'1e300,0' is not two finite numbers"),
        (["--network=SG2", "--seeds=0", "--translate=1"], 2, "is not two numbers"),
        (["--network=PNG", "--seeds=0"], 65, "picture.png: looks like a PNG image"),
        (["--network=SG2", "--seeds=0", "--device=meta"], 2, "--device=meta: nothing runs there; expected auto, cpu"),
        (["--network=SG2", "--seeds=0", "--device=gpu"], 2, "--device=gpu: expected auto, cpu, cuda or cuda:N"),
    ],
)
def test_wrong_inputs(networks, run, tmp_path: Path, args: list[str], code: int, words: str) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "picture.png")
    args = [a.replace("SG2", str(networks["sg2"])).replace("PNG", str(tmp_path / "picture.png")) for a in args]
    result = run("generate", *args, f"--outdir={tmp_path / 'out'}")
    assert result.code == code, result.err
    assert words in result.error_line()


def test_info_of_networks_and_datasets(networks, run, labelled_discs: Path, tmp_path: Path) -> None:
    facts = json.loads(run("info", networks["sg3"], "--json").out)
    assert facts["G_ema"]["family"] == "StyleGAN3"
    assert facts["G_ema"]["configuration"] == "T"
    assert facts["G_ema"]["image"] == "16 x 16 x 3"
    assert facts["G_ema"]["parameters"] == sum(p.numel() for p in sg3.load(networks["sg3"]).G_ema.parameters())
    data = json.loads(run("info", labelled_discs, "--json").out)
    assert (data["images"], data["labels"]["images_per_class"]) == (12, [4, 4, 4])
    plain = run("info", labelled_discs)
    assert "images_per_class  4, 4, 4" in plain.out
    missing = run("info", tmp_path / "nothing")
    assert missing.code == 66
    assert "nothing: there is no such file or folder" in missing.error_line()


def test_info_of_a_run(run, discs: Path, tmp_path: Path) -> None:
    run("train", f"--outdir={tmp_path}", f"--data={discs}", "--minutes=0.0001", *TINY_ARGS)
    (run_dir,) = tmp_path.iterdir()
    facts = json.loads(run("info", run_dir, "--json").out)
    assert facts["kind"] == "run"
    assert facts["exit"]["exit_code"] == 0
    assert facts["snapshots"] == ["network-snapshot-000000.pkl"]
    assert facts["continue"] == f"sg3 train --continue={run_dir}"


def test_info_of_a_folder_of_runs(run, tmp_path: Path) -> None:
    for name, kimg, code in (("00000-a", 4.0, 0), ("00001-b", None, 75)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "training_options.json").write_text('{"config": {"cfg": "stylegan3-t"}}')
        (folder / "exit.json").write_text(json.dumps({"exit_code": code}))
        if kimg is not None:
            tick = {"Progress/kimg": {"num": 1, "mean": kimg, "std": 0.0}}
            (folder / "stats.jsonl").write_text(json.dumps(tick) + "\n")
            (folder / "network-snapshot-000004.pkl").touch()
    (tmp_path / "notes").mkdir()
    facts = json.loads(run("info", "--json", tmp_path).out)
    assert facts == {"kind": "runs", "path": str(tmp_path), "00000-a": "4 kimg, 1 snapshots, ended with exit code 0",
                     "00001-b": "nothing shown yet, 0 snapshots, ended with exit code 75"}  # fmt: skip
    (tmp_path / "00001-b" / "training_options.json").write_text("{")
    broken = run("info", tmp_path)
    assert broken.code == 0
    assert "00001-b  unreadable: " in broken.out


def test_grid_with_captions(networks, run, tmp_path: Path) -> None:
    args = ["generate", f"--network={networks['sg2']}", "--seeds=3-5", f"--outdir={tmp_path}", "--grid=2x2"]
    captioned = run(*args, "--captions")
    assert captioned.code == 0
    assert "note: --grid=2x2: 3 images for 4 places, the rest stays black" in captioned.err
    grid = pixels(tmp_path / "grid.png")
    assert grid.shape == (2 * (96 + 14), 2 * 96, 3)  # pictures of 16 pixels, six times as large
    assert np.array_equal(grid[14:110:6, 96::6], pixels(tmp_path / "seed0004.png"))
    assert run(*args, "--scale=2").code == 0
    assert pixels(tmp_path / "grid.png").shape == (64, 64, 3)


def test_info_of_a_run_that_was_stopped(run, tmp_path: Path) -> None:
    """Between two ticks: the state is newer than the last line of the statistics."""
    (tmp_path / "training_options.json").write_text('{"config": {"cfg": "stylegan3-t"}}')
    tick = {"Progress/kimg": {"num": 1, "mean": 4.0, "std": 0.0}}
    (tmp_path / "stats.jsonl").write_text(json.dumps(tick) + "\n")
    for name, kimg, label in (("0000003000", 4.0, "kimg at the last tick"), ("0000004976", 4.976, "kimg")):
        (tmp_path / f"training-state-{name}.pt").touch()
        assert json.loads(run("info", "--json", tmp_path).out)["kimg"] == kimg
        told = dict(line.split("  ", 1) for line in run("info", tmp_path).out.splitlines())
        assert {key: value.strip() for key, value in told.items() if key.startswith("kimg")} == {label: str(kimg)}


def test_info_of_a_run_that_was_killed(run, tmp_path: Path) -> None:
    """A line cut off at the end of stats.jsonl, no exit.json; then a damaged file, named in one line."""
    (tmp_path / "training_options.json").write_text('{"config": {"cfg": "stylegan3-t"}}')
    tick = {"Progress/kimg": {"num": 1, "mean": 4.0, "std": 0.0}}
    (tmp_path / "stats.jsonl").write_text(json.dumps(tick) + "\n" + json.dumps(tick)[:20])
    facts = json.loads(run("info", "--json", tmp_path).out)
    assert (facts["kimg"], facts["snapshots"]) == (4.0, [])
    ended = {"exit_code": 75, "kimg": 4.976, "started": 1e9, "ended": 1e9 + 90}
    (tmp_path / "exit.json").write_text(json.dumps(ended))
    assert json.loads(run("info", "--json", tmp_path).out)["exit"] == ended
    told = dict(line.split("  ", 1) for line in run("info", tmp_path).out.splitlines())
    assert told["kimg at the last tick"].strip() == "4.0"
    began, end = (datetime.fromisoformat(told[f"exit.{name}"].strip()) for name in ("started", "ended"))
    assert (began.timestamp(), end.timestamp()) == (1e9, 1e9 + 90)
    assert "continue" not in facts  # there is no state to continue from
    (tmp_path / "training_options.json").write_text('{"config": ')
    broken = run("info", tmp_path)
    assert broken.code == 65
    assert "training_options.json: is not a JSON object" in broken.error_line()
