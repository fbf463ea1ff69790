"""The networks' thread: whose turn it is, what is given up, and that nothing ends it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from sg3.viewer import engine as engines
from sg3.viewer.engine import Busy, Engine, Stale

SOON = 10.0


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    yield made
    made.close()


class Gate:
    """Work that waits to be let through."""

    def __init__(self) -> None:
        self.began, self.open = threading.Event(), threading.Event()
        self.was_stale: bool | None = None

    def __call__(self, is_stale) -> str:
        self.began.set()
        assert self.open.wait(SOON)
        self.was_stale = is_stale()
        if self.was_stale:
            raise Stale
        return "done"


def test_work_is_done_on_one_other_thread(engine: Engine) -> None:
    threads = [engine.submit(n, lambda _: threading.current_thread()).result(SOON) for n in range(3)]
    assert len(set(threads)) == 1
    assert threads[0] is not threading.current_thread()


def test_what_fails_fails_alone(engine: Engine) -> None:
    def fail(_: object) -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        engine.submit("a", fail).result(SOON)
    assert engine.submit("a", lambda _: 5).result(SOON) == 5


def test_a_running_frame_is_told_that_it_is_outdated(engine: Engine) -> None:
    gate = Gate()
    future = engine.submit("a", gate)
    assert gate.began.wait(SOON)
    engine.outdate("b")  # somebody else's
    engine.outdate("a")
    gate.open.set()
    with pytest.raises(Stale):
        future.result(SOON)


def test_clients_take_turns_and_one_that_is_gone_gets_none(engine: Engine) -> None:
    gate, order = Gate(), []
    first = engine.submit("a", gate)
    assert gate.began.wait(SOON)
    waiting = {name: engine.submit(name, lambda _, name=name: order.append(name)) for name in "bcd"}
    engine.forget("c")
    gate.open.set()
    assert first.result(SOON) == "done"
    for name in "bd":
        waiting[name].result(SOON)
    assert order == ["b", "d"]
    with pytest.raises(Stale):
        waiting["c"].result(SOON)


def test_a_place_has_one_piece_of_work_and_the_queue_an_end(engine: Engine, monkeypatch) -> None:
    monkeypatch.setattr(engines, "MOST_WAITING", 2)
    gate = Gate()
    engine.submit("a", gate)
    assert gate.began.wait(SOON)
    engine.submit("b", lambda _: None)
    with pytest.raises(Busy):
        engine.submit("b", lambda _: None)
    engine.submit("c", lambda _: None)
    with pytest.raises(Busy, match="too many pictures wait"):
        engine.submit("d", lambda _: None)
    gate.open.set()


def test_long_work_goes_on_between_frames(engine: Engine) -> None:
    steps, done = [], threading.Event()

    def work() -> Iterator[None]:
        for n in range(3):
            steps.append(n)
            yield
        done.set()

    engine.start("long", work())
    assert engine.submit("a", lambda _: "frame").result(SOON) == "frame"
    assert done.wait(SOON)
    assert steps == [0, 1, 2]

    ticks, stopping = threading.Event(), threading.Event()

    def endless() -> Iterator[None]:
        while not stopping.is_set():
            ticks.set()
            yield

    engine.start("endless", endless())
    assert ticks.wait(SOON)
    assert engine.submit("a", lambda _: "frame").result(SOON) == "frame"
    stopping.set()
    engine.submit("a", lambda _: ticks.clear()).result(SOON)
    engine.submit("a", lambda _: None).result(SOON)
    assert not ticks.is_set()


def test_work_that_waits_for_another_thread_holds_up_nobody(engine: Engine) -> None:
    seen: list[object] = []
    fetched: Future[int] = Future()
    done = threading.Event()

    def work() -> Iterator[Future[int] | None]:
        seen.append("begins")
        yield fetched
        seen.append(fetched.result())
        yield None
        done.set()

    def others() -> Iterator[None]:
        for _ in range(3):
            seen.append("other")
            yield

    engine.start("waits", work())
    engine.start("others", others())
    while seen.count("other") < 3:
        assert engine.submit("a", lambda _: "frame").result(SOON) == "frame"
    turns = sum(1 for _ in range(50) if engine.submit("a", lambda _: "frame").result(SOON))
    assert (turns, seen) == (50, ["begins", "other", "other", "other"])
    fetched.set_result(5)
    assert done.wait(SOON)
    assert seen[-1] == 5


def test_what_waits_at_the_end_is_told() -> None:
    engine, gate = Engine(), Gate()
    running = engine.submit("a", gate)
    assert gate.began.wait(SOON)
    waiting = engine.submit("b", lambda _: None)
    closing = threading.Thread(target=engine.close)
    closing.start()
    gate.open.set()
    closing.join(SOON)
    for future in (running, waiting):
        with pytest.raises(Stale):
            future.result(SOON)
    with pytest.raises(Busy):
        engine.submit("c", lambda _: None)
