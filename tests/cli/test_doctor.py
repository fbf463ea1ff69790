"""sg3 doctor: the real report of this machine, and the notes on machines that lack something."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sg3.cli import doctor, doctor_devices, main
from sg3.kernels import dispatch, toolchain

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("SG3_IMPL", "TRITON_INTERPRET", "CC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SG3_CACHE", str(tmp_path / "cache"))
    dispatch._probe.cache_clear()
    yield
    dispatch._probe.cache_clear()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands are noted and not run."""
    noted: list[list[str]] = []

    def note(words: list[str], **_: object) -> tuple[bool, str]:
        noted.append(words)
        return True, ""

    monkeypatch.setattr(doctor_devices, "in_own_process", note)
    return noted


Report = Callable[..., dict[str, Any]]


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str], quick: list[list[str]], tmp_path: Path) -> Report:
    def run(*words: str, code: int = 0) -> dict[str, Any]:
        with pytest.raises(SystemExit) as stop:
            main(["doctor", "--json", "--outdir", str(tmp_path), *words])
        assert stop.value.code == code
        report: dict[str, Any] = json.loads(capsys.readouterr().out)
        return report

    return run


def test_the_report_of_this_machine(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "sg3", "doctor", "--outdir", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=300)
    assert "\x1b" not in done.stdout
    assert list(tmp_path.iterdir()) == []
    for line in (
        r"^  torch +2\.",
        r"^  cpu +\S.* logical cores, \d+ PyTorch threads, .* memory",
        r"^  cpu +\w+ for .*: ",
        r"^  gloo +available",
        r"^  sg3 +/.*/cache, 0 KiB, writable$",
        r"^  outdir +\d+ MB/s write and fsync of 16 MB in ",
    ):
        assert re.search(line, done.stdout, re.MULTILINE), line
    if sys.platform.startswith("linux"):
        assert re.search(r"^  sm_80 .*: works, ", done.stdout, re.MULTILINE), done.stdout
    titles = [line for line in done.stdout.splitlines() if not line.startswith((" ", "note: "))]
    assert [title for title in titles if title != "environment"] == \
        ["versions", "extras", "devices", "implementations", "distributed", "triton", "caches", "disk"]


def test_json_says_what_the_text_says(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SG3_IMPL", "ref")
    facts = report()
    assert facts["sg3_runs"] is True
    assert facts["versions"]["torch"]["version"] == torch.__version__
    assert facts["environment"]["SG3_IMPL"] == {"value": "ref"}
    assert facts["devices"]["cpu"]["threads"] == torch.get_num_threads()
    answer = facts["implementations"]["cpu"]["bias_act"]
    assert answer == {"impl": "ref", "reason": "SG3_IMPL='ref' asks for it"}
    assert facts["disk"]["outdir"]["bytes_per_second"] > 0
    assert all(isinstance(note, str) for note in facts["notes"])


def test_what_runs_where_each_thread_has_work_of_its_own(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two threads each takes whole batches on one, where Numba is the faster one for upfirdn2d."""
    monkeypatch.setattr(dispatch, "numba_status", lambda device: toolchain.Status(device.type == "cpu", "Numba 1.2"))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        answers = report()["implementations"]["cpu"]
        assert torch.get_num_threads() == 2
        lines = [row.text for row in doctor_devices.implementation_rows([]) if row.name == "cpu"]
        torch.set_num_threads(1)
        alone = report()["implementations"]["cpu"]
    finally:
        torch.set_num_threads(threads)
    assert answers["upfirdn2d"] == {"impl": "torch", "reason": "the fastest on several threads",
                                    "on_one_thread": {"impl": "numba", "reason": "Numba 1.2"}}
    assert {op for op, answer in answers.items() if "on_one_thread" in answer} == dispatch.NUMBA_ON_ONE_THREAD
    assert lines[-1] == ("numba for upfirdn2d, conv2d_resample: Numba 1.2, in threads that take whole batches "
                         "(generate, video, metrics) and in processes of one thread (train)")
    assert alone == {op: {"impl": answer.get("on_one_thread", answer)["impl"],
                          "reason": answer.get("on_one_thread", answer)["reason"]} for op, answer in answers.items()}


def test_extras_are_those_of_the_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name in ("test", "bench", "docs", "dev"):
        del declared[name]
    assert set(doctor.EXTRAS) == set(declared)
    for name, package in doctor.EXTRAS.items():
        assert any(re.match(rf"{re.escape(package)}\b", requirement) for requirement in declared[name])


def test_missing_compiler_and_headers(
    report: Report, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quick: list[list[str]]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda name: name if name == "triton" else None)
    monkeypatch.setattr(toolchain, "python_headers", lambda: tmp_path)
    facts = report()
    note = next(note for note in facts["notes"] if "apt-get" in note)
    python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    assert f"apt-get install gcc libc6-dev {python}-dev" in note
    assert facts["triton"]["compiler"]["command"] is None
    assert facts["triton"]["Python.h"]["found"] is False
    assert len(quick) == 1  # ahead-of-time compilation needs neither


def test_without_triton(report: Report, monkeypatch: pytest.MonkeyPatch, quick: list[list[str]]) -> None:
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda name: None)
    for module in (doctor, doctor_devices):
        monkeypatch.setattr(module, "installed", lambda name: None if name == "triton" else "1.0")
    facts = report()
    assert facts["versions"]["triton"]["version"] is None
    assert any("pip install triton" in note for note in facts["notes"])
    assert not quick


def test_on_windows(report: Report, monkeypatch: pytest.MonkeyPatch, quick: list[list[str]]) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda name: None)
    facts = report()
    assert facts["triton"]["cpu"]["reason"].endswith("this is win32")
    assert not facts["triton"]["cpu"]["usable"]
    assert any("pip install triton-windows" in note for note in facts["notes"])
    assert not quick


@pytest.mark.parametrize(("capability", "launched"), [((7, 5), False), ((9, 0), True)], ids=["T4", "H100"])
def test_with_a_gpu(
    capability: tuple[int, int], launched: bool, report: Report, monkeypatch: pytest.MonkeyPatch,
    quick: list[list[str]],
) -> None:
    gpu = SimpleNamespace(name="Some GPU", major=capability[0], minor=capability[1], total_memory=2**34)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gpu)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: gpu.name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(toolchain, "host_status", lambda: toolchain.Status(True, "a compiler"))
    facts = report()
    assert facts["devices"]["cuda:0"]["name"] == "Some GPU"
    assert facts["triton"]["cuda:0"]["usable"] is launched
    assert ("launch cuda:0" in facts["triton"]) is launched
    assert facts["triton"].get("tuning cuda:0") == \
        ({"from": "launches by rule, `sg3 tune` measures"} if launched else None)
    assert any(words[-1] == "cuda:0" for words in quick) is launched


def test_a_gpu_that_this_pytorch_cannot_use(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_devices, "_nvidia_driver", lambda: "580.1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert any("driver 580.1" in note and "install one for CUDA" in note for note in report()["notes"])


def test_a_wrong_environment_variable_is_a_note(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SG3_IMPL", "fast")
    facts = report()
    assert [note for note in facts["notes"] if "SG3_IMPL: got 'fast'" in note]
    assert len(facts["notes"]) == len(set(facts["notes"]))
    assert facts["implementations"]["cpu"]["bias_act"]["impl"] is None


def test_without_torch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit) as stop:
        main(["doctor", "--outdir", str(tmp_path)])
    assert stop.value.code == 66
    captured = capsys.readouterr()
    assert captured.err.startswith("error: torch cannot be imported: ")
    assert captured.err.count("\n") == 1
    assert "versions\n" in captured.out


def test_outdir_that_does_not_exist_yet(report: Report, tmp_path: Path) -> None:
    facts = report("--outdir", str(tmp_path / "a" / "b"))
    assert facts["disk"]["outdir"]["path"] == str(tmp_path)
    assert not (tmp_path / "a").exists()


def test_outdir_that_cannot_be_written(
    report: Report, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", full)
    facts = report()
    assert facts["disk"]["outdir"]["writable"] is False
    assert any(note.startswith(f"{tmp_path} cannot be written (No space left") for note in facts["notes"])


def test_a_command_in_its_own_process() -> None:
    def outcome(code: str, seconds: float = 60) -> tuple[bool, str]:
        return doctor_devices.in_own_process([sys.executable, "-c", code], seconds=seconds)

    assert outcome("print(1)") == (True, "1\n")
    assert outcome("raise ValueError('no')") == (False, "ValueError: no")
    assert outcome("import os; os.abort()") == (False, "killed by signal 6")
    assert outcome("raise SystemExit(3)") == (False, "exit code 3")
    assert outcome("import time; time.sleep(60)", seconds=0.2) == (False, "no answer within 0.2 s")
    assert doctor_devices.in_own_process(["/nowhere/cc"], seconds=1)[0] is False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Triton kernels run on Linux only")
def test_the_trial_kernel_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU through Triton's interpreter: the part of the script that a GPU will run."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    words = [sys.executable, "-P", str(doctor_devices.TRIAL_KERNEL), "cpu"]
    assert doctor_devices.in_own_process(words, seconds=120) == (True, "")


def test_a_command_of_several_words_becomes_one(tmp_path: Path) -> None:
    script = doctor_devices._as_one_word((sys.executable, "-c", "'import sys; print(sys.argv[1:])'", "cc"), tmp_path)
    assert doctor_devices.in_own_process([str(script), "a b.c", "-o"], seconds=60) == (True, "['cc', 'a b.c', '-o']\n")
