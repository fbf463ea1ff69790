"""generate and metrics in several processes that torchrun or srun has started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.commands import free_port
from tests.helpers.for_tools import pixels, saved, tiny2
from tests.helpers.pixel_detectors import pixel_detectors

TORCHRUN = {"RANK": "{}", "WORLD_SIZE": "2", "LOCAL_RANK": "{}"}
SRUN = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "{}", "SLURM_LOCALID": "{}"}


def in_two_processes(words: list[str], how: dict[str, str], entry: str = "-m sg3") -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of each."""
    there = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    processes = []
    for rank in range(2):
        env = {**os.environ, **there, **{name: value.format(rank) for name, value in how.items()}}
        command = [sys.executable, *entry.split(), *words]
        processes.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    ends = [process.communicate(timeout=120) for process in processes]
    return [(process.returncode, *end) for process, end in zip(processes, ends, strict=True)]


@pytest.mark.parametrize(
    "how", [TORCHRUN, pytest.param(SRUN, marks=pytest.mark.slow)], ids=["torchrun", "srun"]
)
def test_generate_shares_the_images_out(how: dict[str, str], run, tmp_path: Path) -> None:
    network = f"--network={saved(tiny2(), tmp_path / 'net.pkl')}"
    latents = tmp_path / "w.npz"
    np.savez(latents, w=torch.randn(2, 8).numpy())
    what = [network, "--seeds=0-4"] if how is TORCHRUN else [network, f"--latents={latents}", f"--latents={latents}"]
    names = [f"seed{i:04d}.png" for i in range(5)] if how is TORCHRUN else [f"latent{i:04d}.png" for i in range(4)]
    ends = in_two_processes(["generate", *what, "--grid=3x2", "--batch=1", f"--outdir={tmp_path / 'two'}"], how)
    assert [code for code, _, _ in ends] == [0, 0], ends
    written = [[Path(line).name for line in out.split()] for _, out, _ in ends]
    assert written == [[*names[::2], "grid.png"], names[1::2]]
    assert run("generate", *what, "--grid=3x2", "--batch=1", f"--outdir={tmp_path / 'one'}").code == 0
    for name in [*names, "grid.png"]:
        assert np.array_equal(pixels(tmp_path / "one" / name), pixels(tmp_path / "two" / name))


@pytest.mark.slow
def test_an_error_is_said_once(tmp_path: Path) -> None:
    words = ["generate", "--network=missing.pkl", "--seeds=0", f"--outdir={tmp_path}"]
    ends = in_two_processes(words, TORCHRUN)
    assert [code for code, _, _ in ends] == [66, 66]
    assert [err.count("error: ") for _, _, err in ends] == [1, 0]


@pytest.mark.slow
def test_an_error_in_one_process_ends_all(tmp_path: Path) -> None:
    """The second cannot write its images: a folder stands where one of them goes."""
    (tmp_path / "out" / "seed0001.png").mkdir(parents=True)
    words = ["generate", f"--network={saved(tiny2(), tmp_path / 'net.pkl')}", "--seeds=0-2",
             f"--outdir={tmp_path / 'out'}"]  # fmt: skip
    ends = in_two_processes(words, TORCHRUN)
    assert [code for code, _, _ in ends] == [74, 74], ends
    said = "".join(err for _, _, err in ends)
    assert said.count("error: ") == 1
    assert "seed0001.png" in said


WITH_PIXELS = """
import sys
from sg3.cli import _run
from sg3.metrics import driver
from tests.helpers.pixel_detectors import pixel_detectors
driver.open_detector = lambda name, device, folder=None: pixel_detectors()[name]
sys.exit(_run(sys.argv[1:], debug=False))
"""


@pytest.mark.slow
def test_metrics_use_all_processes(discs: Path, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sg3.metrics import driver

    network = saved(tiny2(), tmp_path / "net.pkl")
    (tmp_path / "metrics.py").write_text(WITH_PIXELS)
    words = ["metrics", f"--network={network}", f"--data={discs}", "--metrics=fid20_full", "--batch=4", "--workers=0",
             "--device=cpu", "--json", "--cache=0"]  # fmt: skip
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    ends = in_two_processes(words, TORCHRUN, str(tmp_path / "metrics.py"))
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert ends[1][1] == ""
    (line,) = ends[0][1].splitlines()
    assert json.loads(line)["num_gpus"] == 2
    monkeypatch.setattr(driver, "open_detector", lambda name, device, folder=None: pixel_detectors()[name])
    alone = json.loads(run(*words).out)
    assert alone["num_gpus"] == 1
    assert json.loads(line)["results"]["fid20_full"] == pytest.approx(alone["results"]["fid20_full"], rel=1e-6)
