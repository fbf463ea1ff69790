"""Stopping: signals are noted, repeated ones understood, and waiting is interrupted."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore

from sg3.errors import StorageError
from sg3.processes import World
from sg3.run_folder import state_path
from sg3.train import state as state_module
from sg3.train import stop as stop_module
from sg3.train.state import StateWriter, is_intact, load_state, require_space
from sg3.train.stop import StopSignals, WaitInterruptedError

ALONE = World(0, 1, torch.device("cpu"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_is_noted_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignals(ALONE) as stop:
        assert stop.reason(3) is None
        assert not stop.is_asked
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # the launcher's copy of the same Ctrl-C
        assert stop.reason(3) == number.name
        assert stop.is_asked
    assert signal.getsignal(number) is before


def test_the_limit_of_processor_time_is_told_every_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks once, and the end of the run is not disturbed by what follows."""
    monkeypatch.setattr(stop_module, "SAME_WISH_SECONDS", -1.0)
    before = signal.getsignal(signal.SIGXCPU)
    try:
        with StopSignals(ALONE) as stop:
            os.kill(os.getpid(), signal.SIGXCPU)
            os.kill(os.getpid(), signal.SIGXCPU)
            assert stop.reason(3) == "SIGXCPU"
        os.kill(os.getpid(), signal.SIGXCPU)
    finally:
        signal.signal(signal.SIGXCPU, before)


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals(ALONE) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.is_asked
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_something_else_can_ask_but_the_first_wish_counts() -> None:
    with StopSignals(ALONE) as stop:
        stop.ask("stderr: Broken pipe")
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason(3) == "stderr: Broken pipe"


def test_a_second_wish_acts_as_usual(monkeypatch) -> None:
    monkeypatch.setattr(stop_module, "SAME_WISH_SECONDS", -1.0)
    with StopSignals(ALONE):
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_waiting_for_data_is_interrupted() -> None:

    def wait_for_data() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    with StopSignals(ALONE) as stop:
        with pytest.raises(WaitInterruptedError), stop.waiting():
            wait_for_data()
        with pytest.raises(WaitInterruptedError), stop.waiting():
            pass  # the signal had come just before
        assert stop.reason(0) == "SIGTERM"


def test_ranks_stop_after_the_same_step() -> None:
    """The wish of one rank becomes everyone's when rank 0 has heard of it, whichever rank is ahead."""
    store = HashStore()
    told: list[list[bool]] = []  # by rank 0

    class Main(World):
        def as_main(self, *answers: bool) -> list[bool]:
            told.append(list(answers))
            return told[-1]

    class Other(World):
        def as_main(self, *answers: bool) -> list[bool]:
            return told.pop(0)

    main = StopSignals(Main(0, 2, torch.device("cpu"), store))
    with StopSignals(Other(1, 2, torch.device("cpu"), store)) as other:
        assert main.reason(6) is None  # ahead
        os.kill(os.getpid(), signal.SIGTERM)
        with other.waiting():  # alone it cannot leave
            pass
        assert not main.is_asked
        assert other.reason(6) is None, "rank 0 goes on, so this one does"
        assert main.is_asked
        assert (main.reason(7), other.reason(7)) == ("SIGTERM", "SIGTERM")


# ---- states in the background ---------------------------------------------------------------------------------------


def content(nimg: int, size: int = 64) -> dict:
    return {"nimg": nimg, "weights": torch.full([size], float(nimg)), "pair": (torch.ones(2), 3), "list": [1.5]}


def test_a_state_is_that_of_the_call(tmp_path: Path) -> None:
    writer = StateWriter(tmp_path)
    state = content(10)
    writer.save(state)
    state["weights"].fill_(-1)  # training goes on
    writer.save(content(20))
    writer.finish()
    assert is_intact(state_path(tmp_path, 10))
    loaded = load_state(tmp_path, pytest.fail)
    assert loaded["nimg"] == 20
    assert loaded["pair"][1] == 3
    state_path(tmp_path, 20).unlink()
    assert torch.equal(load_state(tmp_path, pytest.fail)["weights"], torch.full([64], 10.0))


def test_a_failure_in_the_background_comes_up(tmp_path: Path, monkeypatch) -> None:
    writer = StateWriter(tmp_path)
    writer.save(content(10))
    writer.finish()

    def full(*_args) -> None:
        raise StorageError(f"{tmp_path}: cannot be written: No space left on device")

    monkeypatch.setattr(state_module, "save_state", full)
    writer.save(content(20))
    with pytest.raises(StorageError, match="No space left"):
        writer.finish()
    writer.finish()  # said once
    assert load_state(tmp_path, pytest.fail)["nimg"] == 10


def test_space_is_checked_before_the_run(tmp_path: Path, monkeypatch) -> None:
    require_space(tmp_path, 1000)
    with pytest.raises(StorageError, match=r"GiB free on this disk, training states need .*; make room"):
        require_space(tmp_path, 10**18)


@pytest.mark.slow
def test_training_waits_a_moment_for_500_megabytes(tmp_path: Path) -> None:
    """The pause is the copy to memory; the second one goes to memory that is there."""
    state = {"nimg": 1, "weights": [torch.rand(25_000_000) for _ in range(5)]}
    writer = StateWriter(tmp_path)
    pauses = []
    for nimg in (1, 2, 3):
        began = time.perf_counter()
        writer.save({**state, "nimg": nimg})
        pauses.append(time.perf_counter() - began)
        writer.finish()
    assert min(pauses[1:]) < 0.3, pauses
