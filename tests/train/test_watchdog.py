"""What ranks say of each other when they end: one line, of what was wrong first."""

from __future__ import annotations

import os
import threading
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from torch.distributed import HashStore

from sg3.processes import World
from sg3.train import watchdog
from sg3.train.watchdog import Watchdog

FIRST = 2  # the rank that notices first


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # in place of os._exit
@pytest.mark.parametrize(
    ("beats", "reason"),
    [((3, 3, 3), "all ranks hung: no progress for 0.2 s"), ((3, 2, 3), "rank 1 hung: no progress for 0.2 s")],
    ids=["all", "one"],
)
def test_who_notices_first_is_not_taken_for_the_cause(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], beats: tuple[int, ...], reason: str
) -> None:
    """It ends without a word, as rank 0 is there to say it, and before rank 0 has noticed anything itself."""
    pids, alive, codes = count(1000), set(range(1000, 1003)), {}

    def end(code: int) -> None:
        rank = int(threading.current_thread().name)
        codes[rank] = code
        alive.discard(1000 + rank)
        raise SystemExit(code)

    monkeypatch.setattr(watchdog, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(watchdog, "_is_alive", alive.__contains__)
    monkeypatch.setattr(watchdog, "os", SimpleNamespace(getpid=lambda: next(pids), _exit=end, readlink=os.readlink))
    store, left = HashStore(), []
    guards = []
    for rank in range(3):
        world = World(rank, 3, torch.device("cpu"), store)
        guard = Watchdog(world, 0.2 if rank == FIRST else 60, lambda code, said: left.append((code, said)))
        guard._thread.name = str(rank)
        guards.append(guard)
    for guard, number in zip(guards, beats, strict=True):
        for _ in range(number):
            guard.step_done()
    for guard in guards:
        guard._thread.join(30)
    assert codes == {0: 70, 1: 70, 2: 70}
    said = f"{reason} (--timeout); continue from the last state"
    assert left == [(70, said)]
    assert capsys.readouterr().err == f"error: {said}\n"
