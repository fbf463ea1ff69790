"""The page beside frames that take seconds, as those of full-width networks do on a CPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sg3
from sg3.formats import averaged_generator
from sg3.viewer import stepwise
from sg3.viewer.pictures import Painter
from sg3.viewer.state import State
from tests.helpers.browsers import opened, settled, shown, state
from tests.helpers.pages import open_all
from tests.helpers.viewers import FULL, Served, served, viewer_of

MOVES = "sg3t-64.pkl"
LAYER = 0.3  # seconds of each layer of a network as slow as a full-width one


@pytest.fixture(scope="module")
def server(golden: Path) -> Iterator[Served]:
    with served(viewer_of(golden / MOVES)) as made:
        yield made


WATCH = """() => {
  const old = document.getElementById("old");
  window.marked = null;
  const look = () => { if (!old.hidden) window.marked ??= performance.now(); };
  new MutationObserver(look).observe(old, { attributes: true });
}"""
CONTROLS = """async () => {
  const times = [];
  for (const [id, value] of [["trunc", 0.5], ["rotate", 20], ["scale", 1.5], ["translate_x", 0.1], ["speed", 2],
                             ["cutoff", 3], ["limit", 30], ["gain_db", 3], ["trunc", 0.7], ["rotate", 30]]) {
    const field = document.getElementById(id), began = performance.now();
    field.value = value;
    for (const type of ["input", "change"]) field.dispatchEvent(new Event(type));
    await new Promise((painted) => requestAnimationFrame(() => setTimeout(painted)));
    times.push({ id, ms: performance.now() - began, says: field.parentElement.querySelector("output").textContent });
  }
  return times;
}"""


@pytest.mark.slow
def test_controls_answer_at_once_while_a_slow_frame_is_made(browser: Any, golden: Path, monkeypatch) -> None:
    """And what is shown meanwhile is marked as old, and a frame that is out of date is dropped after its layer."""
    plain, began = stepwise._stylegan3_steps, []

    def slowly(network: Any) -> list[stepwise.Step]:
        def run(step: stepwise.Step, *arguments: Any) -> Any:
            began.append(time.perf_counter())
            time.sleep(LAYER)
            return step.run(*arguments)

        return [replace(step, run=partial(run, step)) for step in plain(network)]

    monkeypatch.setattr(stepwise, "_stylegan3_steps", slowly)
    with served(viewer_of(golden / MOVES)) as slow, opened(browser, slow.url(f"/#token={FULL}")) as page:
        settled(page)
        open_all(page)
        page.wait_for_timeout(500)
        page.evaluate("() => { for (const id of ['layers', 'transform']) document.getElementById(id).open = false; }")
        slow.viewer.engine.submit("rest", lambda _: None).result(60)
        page.evaluate(WATCH)
        changed = page.evaluate("() => { const field = document.getElementById('seed'); field.value = 5; "
                                "field.dispatchEvent(new Event('change')); return performance.now(); }")  # fmt: skip
        page.wait_for_function("() => window.marked")
        assert page.evaluate("() => window.marked") - changed < 1000  # marked after 150 ms; the rest is the machine's
        times = page.evaluate(CONTROLS)
        assert sorted(time["ms"] for time in times)[len(times) // 2] < 50, times
        assert [time["says"] for time in times[:2]] == ["0.5", "20"]
        assert page.is_visible("#old")
        assert page.get_attribute("#picture", "aria-busy") == "true"
        page.wait_for_timeout(2000 * LAYER)
        asked = time.perf_counter()
        page.evaluate("() => { const field = document.getElementById('seed'); field.value = 6; "
                      "field.dispatchEvent(new Event('change')); }")  # fmt: skip
        sent = time.perf_counter()
        free = slow.viewer.engine.submit("next", lambda _: time.perf_counter()).result(60)
        assert free - asked < 2 * LAYER
        assert [when for when in began if sent + 0.1 < when < free] == []
        settled(page)
        assert page.is_hidden("#old")
        words = {**state(page)}
        monkeypatch.undo()
        G = averaged_generator(sg3.load(golden / MOVES), MOVES)
        assert np.array_equal(shown(page), Painter(G).picture(State.read(words)))
