"""What the subcommands share: switches, numbers, and progress that never gets into the results."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable

import click
import pytest
import rich_click

from sg3 import progress
from sg3.cli import COMMANDS, options
from sg3.progress import Progress, track

Parse = Callable[..., dict[str, object]]


@pytest.fixture
def parse() -> Parse:
    @rich_click.command("try", cls=options.SwitchesAnywhere)
    @click.argument("words", nargs=-1)
    @options.switch("--verify", help="...")
    @click.option("--turn", type=options.Finite())
    @click.option("--gain", type=options.FiniteRange(0, 4))
    def command(**values: object) -> dict[str, object]:
        return values

    return lambda *args: command.main(list(args), standalone_mode=False)


@pytest.mark.parametrize(
    ("args", "verify", "words"),
    [
        (["a", "b"], False, ("a", "b")),
        (["--verify", "a", "b"], True, ("a", "b")),
        (["a", "--verify", "b"], True, ("a", "b")),
        (["a", "b", "--verify"], True, ("a", "b")),
        (["--verify=0", "a"], False, ("a",)),
        (["--verify", "no", "a"], False, ("a",)),
        (["--verify", "TRUE", "a"], True, ("a",)),
    ],
)
def test_a_switch_before_arguments(parse: Parse, args: list[str], verify: bool, words: tuple[str, ...]) -> None:
    found = parse(*args)
    assert (found["verify"], found["words"]) == (verify, words)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "many"])
@pytest.mark.parametrize("name", ["--turn", "--gain"])
def test_numbers_are_finite(parse: Parse, name: str, value: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        parse(f"{name}={value}")
    assert f"'{name}'" in caught.value.format_message()
    assert parse("--turn=-1.5", "--gain=4")["turn"] == -1.5


def test_every_command_takes_json_and_its_value_alike() -> None:
    """Wherever there is --json, --json=0 is accepted; and every help has examples."""
    for name, (module, _) in COMMANDS.items():
        __import__(module)
        command = sys.modules[module].command
        assert "Examples:" in command.help, name
        for option in command.params:
            if "--json" in option.opts:
                assert not option.is_flag, name


def test_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    for _ in track(range(4), "images", 4):
        now[0] += 60
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [f"images: {done} of 4, {4 - done}m 00s left" for done in (1, 2, 3)]


def test_the_bar_goes_away_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")

    def work() -> None:
        with Progress() as shown:
            shown.show("images [bold]", 1, 4, "distance 3")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        work()
    assert "images [bold]" in terminal.getvalue()
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")  # the cursor is back


SCRIPT = """
import rich_click as click
from sg3.progress import track
for i in track(range(3), "images", 3):
    click.echo(f"result {i}")
"""


@pytest.mark.parametrize("results_too", [False, True])
def test_results_go_to_stdout_while_there_is_a_bar(results_too: bool) -> None:
    """stderr is a terminal; stdout is a pipe, or the same terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.DEVNULL, stdout=theirs if results_too else subprocess.PIPE,
        stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(theirs)
    out = process.communicate(timeout=60)[0]
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.returncode == 0
    assert b"images" in shown
    if results_too:
        assert all(f"result {i}\r\n".encode() in shown for i in range(3))
    else:
        assert out == b"result 0\nresult 1\nresult 2\n"
        assert b"result" not in shown
