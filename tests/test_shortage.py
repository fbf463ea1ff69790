"""What the machine has too little of gets a line and a code of its own, whoever says so and in whatever words."""

from __future__ import annotations

import errno
import multiprocessing
import multiprocessing.synchronize
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sg3
import sg3.cli
from sg3.atomic import write_atomic
from sg3.errors import StorageError
from sg3.shortage import is_out_of_memory, shortage, shortage_behind
from tests.helpers import tiny_networks

ERRORS = {
    "out of memory": [
        MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory"), RuntimeError("std::bad_alloc"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
    "too few file handles": [
        OSError(errno.EMFILE, "Too many open files"), OSError(errno.ENFILE, "Too many open files in system"),
        RuntimeError("received 0 items of ancdata"),
        RuntimeError("Too many open files. Communication with the workers is no longer possible."),
    ],
    "shared memory": [
        OSError(errno.ENOSPC, "No space left on device", "/dev/shm/a"),
        RuntimeError("unable to write to file </torch_1_2_3>: No space left on device (28)"),
        RuntimeError("unable to open shared memory object </torch_1> in read-write mode: Too many open files (24)"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's "
                     "workers are out of shared memory."),
    ],
    "no further process or thread": [
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), RuntimeError("can't start new thread"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("what", ERRORS)
def test_errors_of_the_machine(what: str) -> None:
    for error in ERRORS[what]:
        known = shortage(error)
        assert known is not None, error
        assert known.exit_code == 71
        assert what in str(known)


@pytest.mark.parametrize(("number", "code"), [(errno.EMFILE, 71), (errno.ENOMEM, 71), (errno.ENOSPC, 74)])
def test_a_file_that_is_not_written_for_it(number: int, code: int, tmp_path: Path) -> None:
    """The line names the file and what helps, and the code is that of the shortage."""
    def fail(_: object) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(StorageError) as failed:
        write_atomic(tmp_path / "a", fail)
    known = shortage_behind(failed.value)
    assert (74 if known is None else known.exit_code) == code
    if known is not None:
        assert str(known).startswith(f"{failed.value}; ")
        assert re.search("raise the limit|fewer images", str(known))


def test_what_is_out_of_memory() -> None:
    for what, errors in ERRORS.items():
        assert all(is_out_of_memory(error) == (what == "out of memory") for error in errors)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


@pytest.mark.parametrize("error", [
    OSError(errno.ENOSPC, "No space left on device", "/data/a.pkl"), ConnectionRefusedError(), ValueError("shm"),
    RuntimeError("shape mismatch"), BrokenPipeError(), KeyError("memory"),
])  # fmt: skip
def test_other_errors(error: Exception) -> None:
    assert shortage(error) is None


def limited(words: list[object], limits: dict[int, int]) -> subprocess.CompletedProcess[str]:
    def before() -> None:
        for kind, most in limits.items():
            resource.setrlimit(kind, (most, most))

    command = [sys.executable, "-m", "sg3", *map(str, words)]
    return subprocess.run(command, preexec_fn=before, capture_output=True, text=True, env={**os.environ}, timeout=300)


@pytest.mark.slow
def test_a_command_without_memory(tmp_path: Path) -> None:
    """Not enough for the pictures: 16 of 2048 x 2048 and many channels."""
    G = sg3.models.stylegan3.Generator(8, 0, 8, 2048, 3, channel_base=2**17, channel_max=64, num_layers=6)
    sg3.save(sg3.Snapshot(G_ema=G), tmp_path / "a.pkl")
    words = ["generate", f"--network={tmp_path / 'a.pkl'}", "--seeds=0-15", "--batch=16", "--device=cpu",
             f"--outdir={tmp_path}"]  # fmt: skip
    result = limited(words, {resource.RLIMIT_AS: 6 * 2**30})
    assert result.returncode == 71, result.stderr
    assert "error: out of memory; fewer images at a time" in result.stderr


def test_a_command_without_handles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
                                   ) -> None:  # fmt: skip
    def fail(*_: object, **__: object) -> object:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "a.png")

    sg3.save(sg3.Snapshot(G_ema=tiny_networks.generator3()), tmp_path / "a.pkl")
    monkeypatch.setattr("sg3.sampling.seed_latents", fail)
    monkeypatch.setattr(torch, "from_numpy", fail)
    code = sg3.cli._run(["generate", f"--network={tmp_path / 'a.pkl'}", "--seeds=0", f"--outdir={tmp_path}"], False)
    assert code == 71
    assert "error: too few file handles; raise the limit" in capsys.readouterr().err


@pytest.mark.parametrize(("closed", "code"), [
    (">&-", 74), pytest.param("2>&-", 0, marks=pytest.mark.slow), (">&- 2>&-", 74),
    pytest.param("<&-", 0, marks=pytest.mark.slow),
])  # fmt: skip
def test_closed_streams(closed: str, code: int, tmp_path: Path) -> None:
    sg3.save(sg3.Snapshot(G_ema=tiny_networks.generator3()), tmp_path / "a.pkl")
    command = f"{sys.executable} -m sg3 info {tmp_path / 'a.pkl'} {closed}"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=300)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert "bug in sg3" not in result.stderr
    if closed == ">&-":
        assert result.stderr == "error: standard output: is closed\n"


def test_interrupted_while_it_is_imported(tmp_path: Path) -> None:
    """Where nothing has begun there is nothing to say: Ctrl-C ends the process as any that does not listen."""
    (tmp_path / "rich_click.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    result = subprocess.run([sys.executable, "-m", "sg3", "--version"], capture_output=True, text=True, timeout=300,
                            env={**os.environ, "PYTHONPATH": path})  # fmt: skip
    assert (result.returncode, result.stderr) == (-signal.SIGINT, "")


def test_nobody_reads_any_more(tmp_path: Path) -> None:
    """As `| head` does when it has seen enough: no word, and the code of any program in such a pipe."""
    sg3.save(sg3.Snapshot(G_ema=tiny_networks.generator3()), tmp_path / "a.pkl")
    command = f"{sys.executable} -m sg3 info {tmp_path / 'a.pkl'} | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stderr) == (141, "")


def test_a_full_device_as_stdout(tmp_path: Path) -> None:
    sg3.save(sg3.Snapshot(G_ema=tiny_networks.generator3()), tmp_path / "a.pkl")
    command = f"{sys.executable} -m sg3 info {tmp_path / 'a.pkl'} > /dev/full"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=300)
    assert result.returncode == 74
    assert result.stderr == "error: input/output: No space left on device\n"


def test_a_semaphore_that_finds_no_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error names no file."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("multiprocessing.synchronize._multiprocessing.SemLock", full)
    with pytest.raises(OSError, match="No space left") as caught:
        multiprocessing.get_context("fork").Lock()
    known = shortage(caught.value)
    assert known is not None
    assert "shared memory (/dev/shm) is full" in str(known)
