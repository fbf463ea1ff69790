"""Directions that are kept: named sliders, each for its layers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sg3
from sg3.formats import averaged_generator
from sg3.viewer.pictures import Painter
from sg3.viewer.state import State
from tests.helpers.browsers import settled, shown, state
from tests.helpers.pages import open_all, set_range
from tests.helpers.viewers import Served, served, viewer_of

MOVES = "sg3t-64.pkl"


@pytest.fixture(scope="module")
def server(golden: Path) -> Iterator[Served]:
    with served(viewer_of(golden / MOVES)) as made:
        yield made


def in_layers(page: Any, layers: str) -> None:
    page.fill("#direction_layers", layers)
    page.keyboard.press("Enter")


@pytest.mark.slow
def test_a_direction_is_kept_by_name_and_goes_another_way_in_other_layers(page: Any, golden: Path) -> None:
    open_all(page)
    assert page.is_disabled("#directions_keep")
    in_layers(page, "0-2")
    set_range(page, "direction_0", 3)
    page.click("#directions_keep")
    assert page.inner_text("#directions_kept .name") == "SeFa 0 in 0-2"
    page.click("#directions_kept .name")
    page.keyboard.type("smile")
    page.keyboard.press("Enter")
    assert page.inner_text("#directions_kept .name") == "smile"
    in_layers(page, "3-5")
    assert page.input_value("#direction_0") == "0"
    set_range(page, "direction_0", -2)
    settled(page)
    assert state(page) == {"directions": "sefa.0:3:0-2,sefa.0:-2:3-5"}
    set_range(page, "kept_0", 5)
    settled(page)
    assert set(state(page)["directions"].split(",")) == {"sefa.0:5:0-2", "sefa.0:-2:3-5"}
    G = averaged_generator(sg3.load(golden / MOVES), MOVES)
    assert np.array_equal(shown(page), Painter(G).picture(State.read(state(page))))
    page.reload()
    settled(page)
    open_all(page)
    assert page.inner_text("#directions_kept .name") == "smile"
    assert page.input_value("#kept_0") == "5"
    assert (page.input_value("#direction_layers"), page.input_value("#direction_0")) == ("3-5", "-2")
    page.click("[aria-label='Remove smile']")
    settled(page)
    assert state(page) == {"directions": "sefa.0:-2:3-5"}
    assert page.locator("#directions_kept .row").count() == 0
