"""The `sg3` command as a whole: help, versions, exit codes, one line for whatever goes wrong."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import rich_click as click

import sg3
from sg3.cli import COMMANDS, cli, main
from sg3.errors import (
    DataError,
    MissingInputError,
    NumericalError,
    Sg3Error,
    StorageError,
    TrainingStopped,
    UsageError,
)
from sg3.kernels.dispatch import ImplUnavailableError, UnknownImplError
from tests.helpers.commands import children_seconds

SG3 = [sys.executable, "-m", "sg3"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SG3, *words], capture_output=True, text=True, check=False, timeout=60)


Outcome = Callable[..., tuple[int, str]]


@pytest.fixture
def outcome(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Outcome:
    """Run `sg3 try`, whose body raises `error`; its exit code and what it wrote to stderr."""

    def run_in_process(error: BaseException, *options: str) -> tuple[int, str]:
        @click.command("try")
        def command() -> None:
            raise error

        monkeypatch.setitem(COMMANDS, "try", ("sg3_try", "Raise."))
        monkeypatch.setitem(sys.modules, "sg3_try", SimpleNamespace(command=command))
        with pytest.raises(SystemExit) as stop:
            main(["try", *options])
        captured = capsys.readouterr()
        assert captured.out == ""
        return stop.value.code, captured.err

    return run_in_process


def test_help_is_instant_and_lists_every_command() -> None:
    best = float("inf")
    for _ in range(3):
        start = children_seconds()
        done = run("--help")
        best = min(best, children_seconds() - start)
        assert done.returncode == 0
        assert done.stderr == ""
        for name, (_, line) in COMMANDS.items():
            assert name in done.stdout
            assert line in done.stdout
    assert best < 0.3
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("words", [["--help"], ["completion", "--help"], ["doctor", "--help"]])
def test_help_does_not_import_torch(words: list[str]) -> None:
    code = "import atexit, sys; from sg3.cli import main; " \
           "atexit.register(lambda: print('imported:', 'torch' in sys.modules, 'triton' in sys.modules)); " \
           f"main({words})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("imported: False False\n")


def test_no_arguments_show_the_help() -> None:
    done = run()
    assert done.returncode == 2
    assert "completion" in done.stdout
    assert "error:" not in done.stderr


def test_version_names_torch_and_triton() -> None:
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith(f"sg3 {sg3.__version__}, torch 2.")
    assert ", triton " in done.stdout
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (["dcotor"], "sg3"),
        (["zzz"], "sg3"),
        (["--zzz"], "sg3"),
        (["completion", "tcsh"], "sg3 completion"),
        (["completion", "bash", "--zzz"], "sg3 completion"),
    ],
    ids=["typo", "command", "option", "value", "suboption"],
)
def test_usage_errors(words: list[str], place: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    assert words[-1] in captured.err  # the words between are click's and differ from version to version
    assert captured.err.endswith(f" (see: {place} --help)\n")
    assert ("Did you mean 'doctor'?" in captured.err) == (words == ["dcotor"])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("bad --x"), 2),
        (DataError("images/7.png: is broken"), 65),
        (MissingInputError("a.pkl: missing"), 66),
        (NumericalError("loss is NaN"), 70),
        (Sg3Error("something"), 70),
        (StorageError("disk full"), 74),
        (TrainingStopped("stopped"), 75),
        (ImplUnavailableError("bias_act: no triton"), 2),
        (UnknownImplError("SG3_IMPL: got 'x'"), 2),
        (Sg3Error("two\n  lines"), 70),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_errors_of_ours(error: Exception, code: int, outcome: Outcome) -> None:
    prefix = "" if isinstance(error, TrainingStopped) else "error: "  # which somebody has asked for
    assert outcome(error) == (code, f"{prefix}{' '.join(str(error).split())}\n")


def test_an_error_is_a_line_that_can_be_read(outcome: Outcome) -> None:
    """However long the path or the name from a file in it."""
    code, text = outcome(DataError(f"{'x' * 1_000_000}: is broken; mend it"))
    assert code == 65
    assert text.startswith("error: xxx")
    assert text.endswith("x: is broken; mend it\n")
    assert len(text) < 2_100


def test_other_errors(outcome: Outcome) -> None:
    assert outcome(FileNotFoundError(2, "No such file or directory", "a.zip")) == \
        (66, "error: a.zip: no such file or folder\n")
    assert outcome(FileNotFoundError("no weights")) == (66, "error: no weights: no such file or folder\n")
    assert outcome(PermissionError(13, "Permission denied", "/o")) == (74, "error: /o: Permission denied\n")
    assert outcome(OSError(28, "No space left on device")) == \
        (74, "error: input/output: No space left on device\n")
    for what in ("byte", "character in path"):
        assert outcome(ValueError(f"embedded null {what}"))[0] == 2
    code, text = outcome(ZeroDivisionError("division by zero"))
    assert code == 70
    assert text == "error: ZeroDivisionError: division by zero (a bug in sg3; --debug shows where)\n"


def test_interruption(outcome: Outcome) -> None:
    code, text = outcome(KeyboardInterrupt())
    assert code == 130
    assert text.strip() == "interrupted"  # after an empty line, which ends that of the terminal's ^C


def test_debug_shows_the_traceback(outcome: Outcome) -> None:
    code, text = outcome(DataError("broken"), "--debug")
    assert code == 65
    assert text.startswith("Traceback")
    assert text.endswith("error: broken\n")
    assert "--debug" in run("--help").stdout


MISTAKES = {  # -> exit code
    "--version": 0, "train --nosuch": 2, "train --outdir=o": 2, "train --outdir=o --data=none.zip": 66,
    "train --continue=none": 66, "train --continue=latest --outdir=none": 66,
    "generate --network=none.pkl --outdir=o": 2, "generate --network=none.pkl --seeds=0 --outdir=o": 66,
    "video --network=none.pkl --seeds=0 --output=o.mp4": 66, "project --network=none.pkl --target=o.png --outdir=o": 66,
    "style-mix --network=none.pkl --rows=0 --cols=1 --outdir=o": 66, "directions --network=none.pkl --outdir=o": 66,
    "equivariance-video --network=none.pkl --output=o.mp4": 66, "export --network=none.pkl --output=o.onnx": 66,
    "convert none.pkl o.pkl": 66, "metrics --network=none.pkl --metrics=fid50k": 66, "info none.pkl": 66,
    "pull none": 66, "dataset --source=none --dest=o.zip": 66,
}  # fmt: skip


def test_cheap_mistakes_do_not_wait_for_pytorch(tmp_path: Path) -> None:
    """Whose import takes seconds."""
    code = """
import sys, sg3.cli
for words in sys.argv[1:]:
    code = sg3.cli._run(words.split(), False)
    print(f"\\n{code} {'torch' in sys.modules}: {words}")
"""
    alone = {name: value for name, value in os.environ.items() if name not in ("RANK", "SLURM_STEP_ID")}
    done = subprocess.run([sys.executable, "-c", code, *MISTAKES], capture_output=True, text=True, cwd=tmp_path,
                          check=True, env=alone)  # fmt: skip
    told = [line for line in done.stdout.splitlines() if line.endswith(tuple(MISTAKES)) and ": " in line]
    assert told == [f"{code} False: {words}" for words, code in MISTAKES.items()], done.stderr
    assert done.stderr.count("error: ") == len(MISTAKES) - 1
    assert list(tmp_path.iterdir()) == []


def unread(kind: str) -> int:
    """What is written there nobody will read."""
    if kind == "pipe":
        reader, writer = os.pipe()
    else:
        reader, writer = (end.detach() for end in socket.socketpair())
    os.close(reader)
    return writer


@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize("words", [["--help"], ["completion", "bash"], ["train", "--list-presets"]])
def test_a_reader_that_has_gone_is_no_news(words: list[str], kind: str) -> None:
    writer = unread(kind)
    done = subprocess.run([*SG3, *words], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_a_reader_of_messages_that_has_gone() -> None:
    writer = unread("pipe")
    misspelt = {**os.environ, "SG3_CHACHE": "a warning"}
    done = subprocess.run([*SG3, "--version"], stdout=subprocess.PIPE, stderr=writer, env=misspelt, check=False)
    os.close(writer)
    assert (done.returncode, done.stdout) == (128 + signal.SIGPIPE, b"")


def test_another_broken_pipe_is_an_error(outcome: Outcome) -> None:
    assert outcome(BrokenPipeError()) == (74, "error: input/output: Broken pipe\n")


def test_every_command_in_the_overview_can_be_looked_up() -> None:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        assert command.get_short_help_str(100) == COMMANDS[name][1]
    assert cli.get_command(context, "zzz") is None
