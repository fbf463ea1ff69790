"""A drag in the browser that goes one step at a time, forth and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.browsers import shown, state
from tests.helpers.pages import open_all, set_range
from tests.helpers.viewers import Served, served, viewer_of


@pytest.fixture(scope="module")
def server(golden: Path) -> Iterator[Served]:
    with served(viewer_of(golden / "sg3t-64.pkl")) as made:
        yield made


THERE = """(steps) => document.getElementById("drag_text").textContent.startsWith(`${steps} steps`)
                    && !document.getElementById("drag_step").disabled"""


def after(page: Any, button: str, steps: int) -> tuple[str, np.ndarray]:
    """The latent and its picture when a button has brought the drag to so many steps."""
    page.click(f"#{button}")
    page.wait_for_function(THERE, arg=steps)
    return state(page)["latent"], shown(page)


@pytest.mark.slow
def test_one_step_forth_and_back(page: Any) -> None:
    open_all(page)
    assert page.is_disabled("#drag_step")
    box = page.locator("#picture").bounding_box()
    page.click("#drag_points")
    for x in (0.3, 0.7):
        page.mouse.click(box["x"] + x * box["width"], box["y"] + 0.5 * box["height"])
    set_range(page, "drag_lr", -2)
    one, two = after(page, "drag_step", 1), after(page, "drag_step", 2)
    assert one[0] != two[0]
    assert not np.array_equal(one[1], two[1])
    back = after(page, "drag_undo", 1)
    assert back[0] == one[0]
    assert np.array_equal(back[1], one[1])
    again = after(page, "drag_step", 2)
    assert again[0] == two[0]
