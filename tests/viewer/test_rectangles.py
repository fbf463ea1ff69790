"""The page with a network for images that are not square, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sg3
from sg3.models import stylegan3
from sg3.viewer.pictures import Painter
from sg3.viewer.state import State
from tests.helpers.browsers import settled, shown, state
from tests.helpers.pages import drag, open_all, set_range
from tests.helpers.viewers import Served, served, viewer_of


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("wide") / "wide.safetensors"
    G = stylegan3.Generator(8, 0, 8, 64, 3, channel_base=256, channel_max=8, num_layers=6, img_size=(48, 64))
    sg3.save(sg3.Snapshot(G_ema=G.eval().requires_grad_(False)), path)
    return path


@pytest.fixture(scope="module")
def server(path: Path) -> Iterator[Served]:
    with served(viewer_of(path)) as made:
        yield made


def test_the_picture_and_what_lies_over_it_have_its_shape(page: Any, path: Path) -> None:
    assert np.array_equal(shown(page), Painter(sg3.load(path).G_ema).picture(State.read({})))
    for name in ("picture", "handles", "points"):
        box = page.evaluate(
            f"() => {{ const b = document.getElementById('{name}'); b.removeAttribute('hidden'); "
            "const r = b.getBoundingClientRect(); return [r.width, r.height]; }"
        )
        assert abs(box[0] * 48 - box[1] * 64) < 64, name


@pytest.mark.slow
def test_handles_turn_and_scale_what_is_not_square(page: Any) -> None:
    """The arm is as long on screen in all directions, and its tip follows the pointer."""
    open_all(page)
    page.check("#show_handles")
    places = []
    for angle in (0, 90):
        set_range(page, "rotate", angle)
        settled(page)
        (x, y), (cx, cy) = middle_of(page, "#tip"), middle_of(page, "#centre")
        places.append((x - cx, y - cy))
    shorter = page.locator("#picture").bounding_box()["height"]
    assert np.allclose(places, [(0.3 * shorter, 0), (0, -0.3 * shorter)], atol=1)
    drag(page, "#tip", 0.3 * shorter, -0.3 * shorter)  # to 0.3 right of the centre and 0.6 above it
    settled(page)
    turned, scale = (float(state(page)[name]) for name in ("rotate", "scale"))
    assert abs(turned - np.degrees(np.arctan2(2, 1))) < 1
    assert abs(scale - 5**0.5) < 0.05
    drag(page, "#centre", 0, 0.25 * shorter)
    settled(page)
    assert abs(float(state(page)["translate"].split(",")[1]) - 0.25) < 0.01


def middle_of(page: Any, selector: str) -> tuple[float, float]:
    box = page.locator(selector).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
