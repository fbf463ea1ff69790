"""`sg3 train` as people use it: a run's folder, stopping and continuing, and everything one can get wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sg3.cli
from sg3.invocation import sg3_command
from sg3.train import launch, report
from tests.helpers.commands import children_seconds, start, wait_for_state
from tests.helpers.image_files import write_dataset
from tests.helpers.runs import TINY_ARGS


@pytest.fixture(scope="module")
def finished(discs: Path, tmp_path_factory) -> Path:
    """The folder of a finished run of two kimg."""
    outdir = tmp_path_factory.mktemp("finished")
    code = sg3.cli._run(
        ["train", f"--outdir={outdir}", f"--data={discs}", "--kimg=2", "--mirror", "--batch=64", *TINY_ARGS[1:]], False
    )
    assert code == 0
    (run_dir,) = outdir.iterdir()
    return run_dir


def test_run_folder(finished: Path) -> None:
    assert finished.name == "00000-stylegan3-t-discs-gpus1-batch64-gamma0.0008"
    names = {p.name for p in finished.iterdir() if not p.name.startswith(("events.", "."))}
    assert names == {
        "training_options.json", "log.txt", "stats.jsonl", "exit.json", "reals.png", "fakes_init.png",
        *(f"fakes{k:06d}.png" for k in (0, 1, 2)), *(f"network-snapshot-{k:06d}.pkl" for k in (0, 1, 2)),
        *(f"training-state-{n:010d}.pt{s}" for n in (1088, 2048) for s in ("", ".sha256")),
    }  # fmt: skip


def test_statistics_have_the_originals_names(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "stats.jsonl").read_text().splitlines()]
    assert [line["Progress/tick"]["mean"] for line in lines] == [0, 1, 2]
    assert set(lines[1]) >= {
        "Progress/kimg", "Timing/sec_per_kimg", "Timing/total_sec", "Resources/cpu_mem_gb", "Loss/scores/fake",
        "Loss/scores/real", "Loss/signs/real", "Loss/G/loss", "Loss/D/loss", "Loss/D/reg", "Loss/r1_penalty",
        "timestamp",
    }  # fmt: skip
    assert set(lines[-1]["Loss/G/loss"]) == {"num", "mean", "std"}


def test_grids_show_real_and_generated_images(finished: Path) -> None:
    reals, fakes = (np.asarray(Image.open(finished / n)) for n in ("reals.png", "fakes000002.png"))
    assert reals.shape == fakes.shape == (2 * 16, 3 * 16, 3)
    assert (reals[0] == 255).mean() > 0.9  # the discs lie on white
    with torch.no_grad():
        G = sg3.load(finished).G_ema
        assert G.training is False
    assert fakes.std() > 1


def test_exit_json_and_log(finished: Path) -> None:
    left = json.loads((finished / "exit.json").read_text())
    assert left["exit_code"] == 0
    assert left["kimg"] == 2.048
    log = (finished / "log.txt").read_text()
    stamp = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "
    lines = log.splitlines()
    assert all(re.match(stamp, line) for line in lines)
    assert len(re.findall(stamp + "tick ", log, re.MULTILINE)) == 3
    assert re.fullmatch(stamp + rf"started by process {os.getpid()} on .*, sg3 .*, torch .*: .*", lines[0])
    assert re.fullmatch(stamp + r"ended with exit code 0: finished at 2.05 kimg after .*", lines[-1])
    assert "img/s" in log
    assert "\x1b" not in log


def test_continue_after_the_end_needs_a_larger_kimg(finished: Path, run, tmp_path: Path) -> None:
    result = run("train", f"--continue={finished}")
    assert result.code == 0
    assert "nothing to do: 2.05 kimg in " in result.err
    assert "a larger --kimg or --minutes continues" in result.err
    refused = run("train", f"--continue={finished}", "--cmax=16", "--kimg=3")
    assert refused.code == 2
    assert "--cmax: cannot change in a run that continues" in refused.error_line()
    before = sorted(finished.iterdir())
    elsewhere = run("train", f"--continue={finished}", f"--outdir={tmp_path / 'elsewhere'}", "--kimg=3")
    assert elsewhere.code == 2
    assert "elsewhere: the run goes on where it is" in elsewhere.error_line()
    assert run("train", f"--continue={finished}", f"--outdir={finished.parent}").code == 0
    assert (sorted(finished.iterdir()), list(tmp_path.iterdir())) == (before, [])


def test_continue_from_anywhere_and_after_the_data_moved(discs: Path, run, tmp_path: Path, monkeypatch) -> None:
    data = shutil.copy(discs, tmp_path / "before.zip")
    monkeypatch.chdir(tmp_path)
    run("train", "--outdir=runs", "--data=before.zip", "--minutes=0.0001", *TINY_ARGS)
    (run_dir,) = (tmp_path / "runs").iterdir()
    monkeypatch.chdir("/")
    assert run("train", f"--continue={run_dir}", "--minutes=0.001").code == 0
    Path(data).rename(tmp_path / "after.zip")
    assert run("train", f"--continue={run_dir}", "--minutes=0.002").code == 66
    assert run("train", f"--continue={run_dir}", "--minutes=0.002", f"--data={tmp_path / 'after.zip'}").code == 0


def test_resume_copies_weights_into_a_new_run(finished: Path, discs: Path, run, tmp_path: Path) -> None:
    args = [f"--outdir={tmp_path}", f"--data={discs}", "--kimg=1", "--glr=0", "--dlr=0", *TINY_ARGS, "--batch=40"]
    result = run("train", *args, f"--resume={finished}")
    assert result.code == 0
    assert "tensors copied from" in result.err
    (new,) = tmp_path.iterdir()
    old, fresh = sg3.load(finished).G, sg3.load(new).G
    assert torch.equal(old.mapping.fc0.weight, fresh.mapping.fc0.weight)
    unlike = [*args, "--latent=4", "--cmax=4", f"--resume={finished}"]
    refused = run("train", *unlike)
    assert refused.code == 65
    assert re.search(r"--resume=.*: has \d+% of the numbers of this run.s G; .*--resume-least=0", refused.error_line())
    assert list(tmp_path.iterdir()) == [new]
    other = run("train", *unlike, "--resume-least=0")
    assert other.code == 0
    assert "of another shape" in other.err


def test_dry_run_says_what_would_be_copied_and_downloads_nothing(
    finished: Path, discs: Path, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SG3_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SG3_DETECTORS", raising=False)
    monkeypatch.setattr("sg3.formats.download.fetch", pytest.fail)
    args = [f"--outdir={tmp_path / 'runs'}", f"--data={discs}", "--dry-run", f"--resume={finished}", *TINY_ARGS]
    result = run("train", *args, "--metrics=fid50k_full,pr50k3")
    assert result.code == 0, result.err
    last = result.out.splitlines()[-4:]
    assert last[:2] == ["inception: its weights would be downloaded", "vgg16: its weights would be downloaded"]
    assert re.fullmatch(rf"G: (\d+) of \1 tensors copied from {finished}", last[2])
    assert re.fullmatch(rf"D: (\d+) of \1 tensors copied from {finished}", last[3])
    refused = run("train", *args, "--latent=4", "--cmax=4")
    assert refused.code == 65
    assert "--resume-least=0" in refused.error_line()
    assert list(tmp_path.iterdir()) == []


def test_resume_from_what_has_diverged(finished: Path, discs: Path, run, tmp_path: Path) -> None:
    snapshot = sg3.load(finished)
    snapshot.G.mapping.fc0.weight[0, 0] = float("inf")
    sg3.save(snapshot, tmp_path / "bad.pkl")
    args = [f"--outdir={tmp_path / 'runs'}", f"--data={discs}", *TINY_ARGS, f"--resume={tmp_path / 'bad.pkl'}"]
    for words in ([], ["--dry-run"]):
        result = run("train", *args, *words)
        assert result.code == 65
        assert "bad.pkl: G: mapping.fc0.weight has NaN or infinite numbers" in result.error_line()
    assert not (tmp_path / "runs").exists() or list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_says_how_to_continue_and_continues(discs: Path, tmp_path: Path, number: int) -> None:
    process = start("train", f"--outdir={tmp_path}", f"--data={discs}", "--kimg=5", *TINY_ARGS, "--batch=40")
    run_dir = wait_for_state(tmp_path, process)
    process.send_signal(number)
    began = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 20
    assert process.returncode == 75
    last = err.strip().splitlines()[-1]
    assert last.startswith(signal.Signals(number).name + ": stopped at ")
    assert last.endswith(f"continue with: {sg3_command()} train --continue={run_dir}")
    assert json.loads((run_dir / "exit.json").read_text())["exit_code"] == 75
    reached = json.loads((run_dir / "exit.json").read_text())["kimg"]

    again = start("train", "--continue=latest", f"--outdir={tmp_path}", "--kimg=1", "--snap=9")
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert f"continuing at {reached:.2f} kimg" in err
    assert out.strip() == str(run_dir)


def test_a_signal_to_the_whole_group_stops_as_well(discs: Path, tmp_path: Path) -> None:
    """`timeout`, Slurm and systemd signal the loader's processes, too."""
    args = [arg for arg in TINY_ARGS if not arg.startswith("--workers")]
    process = start("train", f"--outdir={tmp_path}", f"--data={discs}", "--kimg=5", "--workers=2", *args, group=True)
    run_dir = wait_for_state(tmp_path, process)
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert json.loads((run_dir / "exit.json").read_text())["exit_code"] == 75


def test_a_second_trainer_on_a_run_is_refused(discs: Path, run, tmp_path: Path) -> None:
    process = start("train", f"--outdir={tmp_path}", f"--data={discs}", "--kimg=5", *TINY_ARGS)
    run_dir = wait_for_state(tmp_path, process)
    result = run("train", f"--continue={run_dir}")
    assert result.code == 2
    assert "another process is training there" in result.error_line()
    assert not (run_dir / "exit.json").exists()
    process.kill()
    process.communicate()


def test_no_folder_for_a_device_that_is_not_there(discs: Path, run, tmp_path: Path) -> None:
    result = run("train", f"--outdir={tmp_path}", f"--data={discs}", *TINY_ARGS, "--device=cuda:99")
    assert result.code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_continues(discs: Path, tmp_path: Path) -> None:
    process = start("train", f"--outdir={tmp_path}", f"--data={discs}", "--kimg=1", *TINY_ARGS, "--batch=40")
    run_dir = wait_for_state(tmp_path, process)
    process.kill()
    process.communicate()
    again = start("train", f"--continue={run_dir}")
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert json.loads((run_dir / "exit.json").read_text())["kimg"] == 1.0


def test_dry_run_trains_nothing(discs: Path, run, tmp_path: Path) -> None:
    outdir = tmp_path / "runs"
    (tmp_path / "run.toml").write_text("glr = 0.001\nlayers = 9\n")
    words = [f"--config={tmp_path / 'run.toml'}", "--preset=any-256-stylegan3-t"]
    result = run("train", f"--outdir={outdir}", f"--data={discs}", "--dry-run", *words, *TINY_ARGS)
    assert result.code == 0
    assert not outdir.exists()
    table = {line.split()[1]: line.split()[3:] for line in result.out.splitlines() if line.startswith("│ --")}
    assert table["--batch"][0] == "4"
    assert table["--batch"][-3:-1] == ["command", "line"]
    assert table["--layers"][0] == "3", "the command line wins over the file"
    assert table["--glr"][0] == "0.001"
    assert table["--glr"][-2] != "default"
    assert "run.toml" in result.out
    assert table["--gamma"][0] == "2.0"
    assert table["--gamma"][-3:-1] == ["preset", "any-256-stylegan3-t"]
    assert table["--dlr"][-2] == "default"
    typed = {"--metrics": "none", "--grid": "3x2", "--mirror": "0", "--nhwc": "0"}
    assert {flag: table[flag][0] for flag in typed} == typed
    assert table["--minutes"] == ["│", "default", "│"]
    assert "float16" not in result.out, "on a CPU"
    config, _ = json.JSONDecoder().raw_decode(result.out)
    assert config["gamma"] == 2.0
    assert "synthesis.L0_" in result.out
    assert "b16.conv0" in result.out
    assert "memory for training, estimated:" in result.out
    note = "that is for float32; on a GPU this configuration has layers in 16 bits, whose activations take half"
    common = ["train", f"--outdir={outdir}", f"--data={discs}", "--dry-run", *TINY_ARGS]
    said = [note in run(*common, *more).out for more in ([], ["--device=auto"], ["--device=auto", "--fp32"])]
    assert said == [False, True, False]
    assert all("float16" in run(*common, more).out for more in ("--device=auto", "--amp-on-cpu"))


def test_list_presets(run) -> None:
    result = run("train", "--list-presets")
    assert result.code == 0
    assert result.out.startswith("demo: ")
    assert "--cfg=stylegan3-t" in result.out


def test_labels_unused_are_mentioned(labelled_discs: Path, run, tmp_path: Path) -> None:
    args = [f"--outdir={tmp_path}", f"--data={labelled_discs}", "--minutes=0.0001", *TINY_ARGS]
    assert "note: the dataset has labels, which are not used; --cond" in run("train", *args).err
    conditional = run("train", *args, "--cond")
    assert conditional.code == 0
    assert "3 labels" in conditional.err
    assert sg3.load(tmp_path / "00001-stylegan3-t-labelled-gpus1-batch4-gamma0.0128").G.c_dim == 3


def test_labels_that_are_vectors(run, tmp_path: Path) -> None:
    """They train, and what is in the data set and not used is said."""
    with zipfile.ZipFile(write_dataset(tmp_path / "v.zip"), "a") as archive:
        labels = [[f"00000/img{i:08d}.png", [i / 12, 0.5, -1.0]] for i in range(12)]
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
        archive.writestr("notes.txt", "x")
    args = [f"--outdir={tmp_path / 'runs'}", f"--data={tmp_path / 'v.zip'}", "--minutes=0.0001", "--cond", *TINY_ARGS]
    result = run("train", *args)
    assert result.code == 0
    assert "v.zip: 1 not used: no image by its content (notes.txt)" in result.err
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert sg3.load(run_dir).G.c_dim == 3


def test_grayscale(run, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "gray.zip", "w") as archive:
        for i in range(4):
            buffer = BytesIO()
            Image.new("L", (16, 16), i * 60).save(buffer, "PNG")
            archive.writestr(f"{i}.png", buffer.getvalue())
    args = [f"--outdir={tmp_path / 'runs'}", f"--data={tmp_path / 'gray.zip'}", "--minutes=0.0001", *TINY_ARGS]
    assert run("train", *args).code == 0
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert Image.open(run_dir / "reals.png").mode == "L"
    result = run("generate", f"--network={run_dir}", "--seeds=0", f"--outdir={tmp_path / 'out'}")
    assert result.code == 0
    assert Image.open(tmp_path / "out" / "seed0000.png").mode == "L"


def test_time_limit_ends_a_run_as_finished(discs: Path, run, tmp_path: Path) -> None:
    result = run("train", f"--outdir={tmp_path}", f"--data={discs}", "--minutes=0.0001", *TINY_ARGS)
    assert result.code == 0
    assert "finished at 0.00 kimg" in result.err
    assert "nothing to do" in run("train", "--continue=latest", f"--outdir={tmp_path}").err


def test_a_run_ends_to_be_started_again(discs: Path, run, tmp_path: Path) -> None:
    """--restart-every: exit code 3 with the state saved, again and again, until the run is at its end."""
    words = ["train", f"--outdir={tmp_path}", f"--data={discs}", "--kimg=1", "--restart-every=0.001", *TINY_ARGS]
    result = run(*words, "--batch=200")
    assert result.code == 3
    assert result.out == ""
    (run_dir,) = tmp_path.iterdir()
    assert f"--restart-every: stopped at 0.20 kimg, state saved in {run_dir}; continue with: " in result.err
    assert "error" not in result.err
    assert json.loads((run_dir / "exit.json").read_text())["exit_code"] == 3
    codes = [run("train", f"--continue={run_dir}").code for _ in range(2)]
    assert codes == [3, 3]
    assert run("train", f"--continue={run_dir}", "--restart-every=1000").code == 0
    assert run("train", f"--continue={run_dir}").code == 0, "nothing is left to do"


def test_a_run_keeps_its_number_of_threads(discs: Path, run, tmp_path: Path, monkeypatch) -> None:
    """The one that others left when it began, unless another one is asked for."""
    args = [f"--outdir={tmp_path}", f"--data={discs}", "--minutes=0.0001", *TINY_ARGS]
    monkeypatch.setattr(launch, "leave_cpus_to_others", lambda: 1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        result = run("train", *args)
        assert "threads: 1 of 2, as many CPUs can be had (--threads=2 insists)" in result.err.splitlines()
        assert torch.get_num_threads() == 1
        (run_dir,) = tmp_path.iterdir()
        torch.set_num_threads(2)  # as another process begins
        assert run("train", f"--continue={run_dir}").code == 0
        assert torch.get_num_threads() == 1
        monkeypatch.setattr(report.Waiting, "share", lambda self: 0.614)
        result = run("train", f"--continue={run_dir}", "--threads=2", "--minutes=0.03")
        assert "changed: --threads 1 -> 2 (sums are taken in another order" in result.err
        assert result.err.count("warning: others want the CPUs, training waited for one 61% of the time") == 1
        assert torch.get_num_threads() == 2
        assert json.loads((run_dir / "training_options.json").read_text())["config"]["threads"] == 2
    finally:
        torch.set_num_threads(before)


def test_help_is_instant_and_shows_defaults() -> None:
    best = 9.0
    for _ in range(3):
        began = children_seconds()
        command = [sys.executable, "-m", "sg3", "train", "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        best = min(best, children_seconds() - began)
    assert best < 0.3
    assert "[default: 0.0025; stylegan2: 0.002; " in " ".join(done.stdout.replace("│", " ").split())


@pytest.mark.parametrize("cfg", ["stylegan3-r", "stylegan2"])
def test_other_configurations_train(run, tmp_path: Path, cfg: str) -> None:
    data = write_dataset(tmp_path / "d.zip", count=8)
    args = [f"--outdir={tmp_path}", f"--data={data}", f"--cfg={cfg}", "--minutes=0.0001", *TINY_ARGS]
    assert run("train", *args).code == 0
    synthesis = sg3.load(next(tmp_path.glob("00000-*"))).G_ema.synthesis
    if cfg == "stylegan2":
        assert synthesis.block_resolutions == [4, 8, 16]
    else:
        assert getattr(synthesis, synthesis.layer_names[0]).down_filter.ndim == 2
