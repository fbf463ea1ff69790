"""What other operating systems lack, taken away: training goes on without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import sg3.cache
from sg3 import portable
from sg3.errors import UsageError
from sg3.kernels import tuning
from sg3.run_folder import locked
from tests.helpers.runs import TINY_ARGS

# Before anything is imported: no fcntl, no resource, of the signals those that Windows has, and its own way to lock.
LIKE_WINDOWS = """
import signal, sys, types
for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None
import subprocess, multiprocessing, torch, PIL.Image  # which know what to do without them
for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT", "SIGALRM", "pthread_sigmask"):
    delattr(signal, name)
locked = []
sys.modules["msvcrt"] = types.SimpleNamespace(LK_NBLCK=2, locking=lambda *args: locked.append(args[1:]))
from sg3.cli import _run
code = _run(sys.argv[1:], debug=False)
assert locked == [(2, 1)], locked
sys.exit(code)
"""


def test_training_without_what_windows_lacks(discs: Path, tmp_path: Path) -> None:
    words = ["train", f"--outdir={tmp_path}", f"--data={discs}", "--cfg=stylegan2", "--minutes=0.0001", *TINY_ARGS]
    words = [word for word in words if not word.startswith(("--layers", "--margin"))]
    done = subprocess.run([sys.executable, "-c", LIKE_WINDOWS, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (run_dir,) = tmp_path.iterdir()
    assert (run_dir / "network-snapshot-000000.pkl").is_file()
    assert "cpu_mem_gb" not in (run_dir / "stats.jsonl").read_text()


def test_a_lock_that_another_process_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*_: object) -> None:
        raise OSError(36, "Resource deadlock avoided")

    class Msvcrt:
        LK_NBLCK = 2
        locking = staticmethod(taken)

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", Msvcrt)
    (tmp_path / ".lock").write_text("")
    with pytest.raises(UsageError, match="another process is training there"), locked(tmp_path):
        pass


def test_signals_that_are_not_there_are_left_out() -> None:
    assert [number.name for number in portable.signals("SIGINT", "SIGBREAKFAST", "SIGTERM")] == ["SIGINT", "SIGTERM"]


def test_peak_memory_is_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    peak = portable.peak_memory()
    assert peak is not None
    assert 2**25 < peak < 2**40
    monkeypatch.setattr(sys, "platform", "darwin")
    kib = portable.peak_memory()
    assert kib is not None
    assert kib * 1000 < peak < kib * 1100  # what Linux says in KiB, macOS says in bytes


def test_the_originals_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SG3_CACHE", raising=False)
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path))
    assert sg3.cache.cache_folder("downloads") == tmp_path / "sg3" / "downloads"
    assert tuning.user_file() == tmp_path / "sg3" / "tuning.json"
    monkeypatch.setenv("SG3_CACHE", str(tmp_path / "own"))
    assert sg3.cache.cache_folder("downloads") == tmp_path / "own" / "downloads"
    assert tuning.user_file() == tmp_path / "own" / "tuning.json"
