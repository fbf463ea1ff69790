"""Run folders that sg3 wrote as of commit 31a3443 go on, and end where that commit itself would have ended them.

The archive holds two run folders of 1 kimg as `sg3 train` left them (but for the lock), their dataset, and what the
same commit made of each by 2 kimg. How they were made stands in their training_options.json. Ten steps of 96 images
are left to do: R1 once, path length, ADA and style mixing (StyleGAN2), labels and fixed augmentation (StyleGAN3-R).
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest
import torch

import sg3
from sg3.cli import _run

ARCHIVE = Path(__file__).parent / "fixtures" / "runs-31a3443.tar.xz"
NETWORKS = ("G", "D", "G_ema")
# On other machines sums are taken in another order. With the vector units of other CPUs, and with more threads, weights
# came out within 7.3e-6 of a tensor's largest.
RELATIVE, ABSOLUTE = 1e-5, 1e-7


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize("cfg", ["stylegan2", "stylegan3-r"])
def test_an_old_run_ends_where_it_would_have_ended(
    old: Path, cfg: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SG3_IMPL", "torch")  # whether Numba is installed or not
    (source,) = old.glob(f"*-{cfg}-*1-batch96-gamma0.5")
    run = tmp_path / source.name
    shutil.copytree(source, run)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        code = _run(["train", f"--continue={run}", f"--data={old / 'shapes.zip'}", "--kimg=2"], debug=True)
    finally:
        torch.set_num_threads(threads)
    assert code == 0
    before = sg3.load(run / "network-snapshot-000001.pkl")
    ended = sg3.load(run / "network-snapshot-000002.pkl")
    expected = sg3.load(old / f"{source.name}-continued.pkl")
    same_machine = (old / "machine.txt").read_text().strip() == this_machine()
    for network in NETWORKS:
        start, ours, theirs = (getattr(s, network).state_dict() for s in (before, ended, expected))
        assert ours.keys() == theirs.keys()
        moved = max((start[name] - tensor).abs().max().item() for name, tensor in theirs.items())
        assert moved > 1e-3  # so that a match says something
        for name, tensor in theirs.items():
            error = (ours[name] - tensor).abs().max().item()
            bound = 0.0 if same_machine else RELATIVE * tensor.abs().max().item() + ABSOLUTE
            assert error <= bound, f"{network}.{name}: off by {error:.2e}"
    assert ended.augment_pipe.p.item() == expected.augment_pipe.p.item()


def this_machine() -> str:
    """Of what decides about the last bits of a sum: torch's build, and the CPU that it picks its code for."""
    words: dict[str, str] = {}
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.is_file() else ():
        key, _, value = line.partition(":")
        words.setdefault(key.strip(), value.strip())
    cpu = (words.get(key, "?") for key in ("vendor_id", "cpu family", "model", "stepping"))
    return " ".join([torch.__version__, torch.backends.cpu.get_cpu_capability(), *cpu])
