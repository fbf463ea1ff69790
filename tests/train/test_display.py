"""What a person sees: a live line that never stands still and says what goes on, and an honest remaining time."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

import sg3.cli
import sg3.train.display
from sg3.train.display import Display, Progress
from sg3.train.outlook import Outlook
from tests.helpers.runs import TINY_ARGS, tiny_config

CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")


class Terminal(io.StringIO):
    """Notes when something else than before appears in its last line."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[float, str]] = []  # (when, text)

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for line in CONTROL.sub("", text).splitlines():
            if line.strip() and (not self.lines or self.lines[-1][1] != line.strip()):
                self.lines.append((time.monotonic(), line.strip()))
        return len(text)

    def longest_pause(self, began: float) -> float:
        times = [began, *(when for when, _ in self.lines if when > began), time.monotonic()]
        return max(after - before for before, after in pairwise(times))

    def says(self, pattern: str) -> bool:
        return any(re.search(pattern, line) for _, line in self.lines)


def show_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """From the test itself: pytest puts its own stderr in place after the fixtures."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    return terminal


def test_the_live_line_says_what_goes_on_and_never_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a long step as well as beside training; the remaining time is in hours, which do not change."""
    terminal = show_on_a_terminal(monkeypatch)
    with Display(None) as display:
        began = time.monotonic()
        with display.doing("starting"):
            time.sleep(1.3)
        display.progress(Progress("1.00 / 25 kimg", 0.04, 12.3, 20000.0, {"G": 0.5, "D": 1.25}))
        with display.doing("measuring"):
            time.sleep(0.6)
            display.specify("measuring generated images, 3 of 16")
            time.sleep(0.6)
        display.message("a message")
        time.sleep(3.3)  # a step
        assert terminal.longest_pause(began) < 2
    assert terminal.says(r"^starting, 1s$")
    assert terminal.says(r"^1.00 / 25 kimg .*measuring generated images, 3 of 16, 1s  5h 33m left$")
    assert terminal.says(r"^a message$")
    assert terminal.says(r"^1.00 / 25 kimg .* 12.3 img/s  5h 33m left  G 0.500  D 1.250$")
    assert terminal.says(r"12.3 img/s  this step 3s  5h 33m left")


def look_at_each_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the live line drawn whenever it has something else to say, a second after that by a clock of its own, and
    never by its thread: what it shows does not depend on the machine's speed."""
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(sg3.train.display, "time", clock)
    monkeypatch.setattr(sg3.train.display, "REFRESH_SECONDS", 1e6)

    def look(display: Display) -> None:
        clock.now += 1
        if display._live is not None:
            display._live.refresh()

    def then_look(change: Callable[..., None]) -> Callable[..., None]:
        def changed(display: Display, *args: object) -> None:
            change(display, *args)
            look(display)

        return changed

    for name in ("specify", "progress", "step_done"):
        monkeypatch.setattr(Display, name, then_look(getattr(Display, name)))
    doing = Display.doing

    @contextmanager
    def doing_and_looking(display: Display, what: str) -> Iterator[None]:
        with doing(display, what):
            look(display)
            yield

    monkeypatch.setattr(Display, "doing", doing_and_looking)


def test_a_run_says_what_it_does(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its start to its end."""
    terminal = show_on_a_terminal(monkeypatch)
    look_at_each_change(monkeypatch)
    args = [*TINY_ARGS[1:], "--batch=250", "--batch-gpu=50", "--mbstd-group=1", "--kimg=1", "--aug=noaug",
            "--metrics=eqt64_int"]  # fmt: skip
    assert sg3.cli._run(["train", f"--outdir={tmp_path}", f"--data={discs}", *args], False) == 0
    for words in ("starting", "first step, compiling", "saving images and networks", r"measuring [a-z ]+, \d of \d",
                  r"0\.\d+ / 1 kimg .*  G -?\d\.\d+  D -?\d\.\d+"):  # fmt: skip
        assert terminal.says(words), words


def test_a_terminal_that_was_closed_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = show_on_a_terminal(monkeypatch)

    def write(_text: str) -> int:
        raise OSError(5, "Input/output error")

    with Display(tmp_path / "log.txt") as display:
        monkeypatch.setattr(terminal, "write", write)
        display.message("one")
        display.message("two")
        assert display.lost == "stderr: Input/output error"
    assert [line[20:] for line in (tmp_path / "log.txt").read_text().splitlines()] == ["one", "two"]


# ---- the remaining time ---------------------------------------------------------------------------------------------


def outlook(minutes: float | None = None) -> tuple[Outlook, SimpleNamespace]:
    """Of a run of 100 kimg with a tick every 4 and a snapshot every 5 ticks, at 10 images per second, and its trainer:
    one kimg into tick 3."""
    config = tiny_config(kimg=100, tick=4, snap=5, minutes=minutes)
    trainer = SimpleNamespace(config=config, nimg=0, seconds=0.0, tick=3, tick_start_nimg=12000)
    o = Outlook(trainer)
    for nimg in (12900, 13000):
        trainer.nimg, trainer.seconds = nimg, nimg / 10
        o.step_done()
    return o, trainer


def test_the_remaining_time_includes_what_ends_of_ticks_take() -> None:
    o, _ = outlook()
    assert o.speed() == pytest.approx(10)
    assert o.remaining() == pytest.approx(8700)
    o.tick_took(2.0, with_snapshot=False)
    o.tick_took(100.0, with_snapshot=True)
    # Ticks 3 ... 24 end until then; 5, 10, 15 and 20 have a snapshot, and so has the last one, 24.
    assert o.remaining() == pytest.approx(8700 + 17 * 2 + 5 * 100)
    assert o.remaining(snapshot_is_due=True) == pytest.approx(8700 + 17 * 2 + 6 * 100)


def test_time_can_end_a_run_before_its_images_do() -> None:
    """--minutes counts training; measuring comes on top."""
    o, trainer = outlook(minutes=30)
    assert o.remaining() == pytest.approx(500)
    o.tick_took(100.0, with_snapshot=True)
    # 5000 more images: ticks 3 and 4, and the latter is the last one.
    assert o.remaining() == pytest.approx(500 + 100)
    assert o.share() == pytest.approx(1300 / 1800)
    assert o.in_words() == "13.00 kimg, 21m 40s / 30m 00s"
    trainer.nimg = 90_000
    assert o.share() == 0.9
    assert o.in_words() == "90.00 / 100 kimg"


def test_without_a_speed_there_is_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = show_on_a_terminal(monkeypatch)
    config = tiny_config(kimg=100)
    o = Outlook(SimpleNamespace(config=config, nimg=0, seconds=0.0, tick=0, tick_start_nimg=0))
    assert o.remaining() == float("inf")
    with Display(None) as display:
        display.progress(Progress(o.in_words(), o.share(), o.speed(), o.remaining(), {}))
        time.sleep(0.4)
    assert terminal.says(r"^0.00 / 100 kimg [^/]*$")
