"""How the page looks: pictures of it in both themes, wide and on a telephone, two of which the documents show.

    SG3_SCREENSHOTS=docs SG3_SCREENSHOT_RUN=runs/00000-... pytest -m slow tests/viewer/test_browser_pictures.py

takes them of a run and keeps those two; otherwise they are of a small network, and only what can be measured is looked
at: that nothing is cut off or lies over something else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.helpers.browsers import opened, settled
from tests.helpers.for_tools import saved, tiny2
from tests.helpers.pages import open_all
from tests.helpers.run_folders import run_folder
from tests.helpers.viewers import FULL, Served, served, viewer_of

NAMES = {("light", 1280): "viewer.png", ("dark", 390): "viewer-phone.png"}  # in the documents
OPEN = {1280: ["run", "grid"], 390: ["", "mixing"]}
LARGEST = 300_000  # bytes of a picture in the documents


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    if given := os.environ.get("SG3_SCREENSHOT_RUN"):
        return Path(given)
    folder = run_folder(tmp_path_factory.mktemp("runs") / "00000-stylegan2-discs")
    for kimg in (0, 4):
        saved(tiny2(), folder / f"network-snapshot-{kimg:06d}.pkl")
    return folder


@pytest.fixture(scope="module")
def server(run_dir: Path) -> Iterator[Served]:
    with served(viewer_of(run_dir)) as made:
        yield made


# What sticks out of the window, is cut off in its own box, or lies over another control.
BROKEN = """() => {
  const controls = [...document.querySelectorAll("button, input, select, summary, label, output, canvas, pre, td, th")]
    .filter((e) => e.checkVisibility() && !e.closest("header .network > span") && e.type !== "file");
  const name = (e) => e.id || e.textContent.trim().slice(0, 40) || e.tagName, found = [];
  const boxes = new Map(controls.map((e) => [e, e.getBoundingClientRect()]));
  for (const [e, box] of boxes) {
    if (box.right > innerWidth + 1 || box.left < -1) found.push(`${name(e)} sticks out`);
    if (["BUTTON", "SUMMARY", "LABEL", "OUTPUT", "TD"].includes(e.tagName) && e.scrollWidth > e.clientWidth + 1
        && getComputedStyle(e).textOverflow !== "ellipsis") found.push(`${name(e)} is cut off`);
  }
  const isField = (e) => ["BUTTON", "INPUT", "SELECT"].includes(e.tagName) && !e.closest(".scroll, figure");
  const fields = controls.filter(isField), common = (a0, a1, b0, b1) => Math.min(a1, b1) - Math.max(a0, b0);
  fields.forEach((a, n) => fields.slice(n + 1).forEach((b) => {
    const p = boxes.get(a), q = boxes.get(b);
    if (common(p.left, p.right, q.left, q.right) > 1 && common(p.top, p.bottom, q.top, q.bottom) > 1) {
      found.push(`${name(a)} and ${name(b)} overlap`);
    }
  }));
  return found;
}"""
READY = "() => [...document.querySelectorAll('#thumbs img')].filter((image) => image.naturalWidth).length === 9"


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_how_it_looks(browser: Any, server: Served, tmp_path: Path, theme: str, width: int) -> None:
    small = {"has_touch": True, "is_mobile": True} if width < 800 else {}
    window = {"viewport": {"width": width, "height": 844 if small else 860}, "color_scheme": theme, **small}
    seed = os.environ.get("SG3_SCREENSHOT_SEED", "0")
    with opened(browser, server.url(f"/#token={FULL}&seed={seed}"), **window) as page:
        settled(page)
        assert page.get_attribute("html", "data-theme") == theme
        page.evaluate("(names) => document.querySelectorAll('details').forEach((part) => { "
                      "part.open = names.includes(part.id); })", OPEN[width])  # fmt: skip
        if "grid" in OPEN[width]:
            page.click("#grid_seeds")
            page.wait_for_function(READY)
            page.check("#thumbs input >> nth=1")
        page.eval_on_selector(f"#{OPEN[width][0]}" if OPEN[width][0] else "body", "(first) => first.scrollIntoView()")
        page.mouse.move(1, 1)
        settled(page)
        picture = Path(os.environ.get("SG3_SCREENSHOTS", tmp_path)) / NAMES.get((theme, width), f"{theme}-{width}.png")
        if "SG3_SCREENSHOTS" in os.environ and (theme, width) not in NAMES:
            picture = tmp_path / picture.name
        page.screenshot(path=picture)
        with Image.open(picture) as image:
            image.convert("RGB").save(picture, optimize=True)
        assert picture.stat().st_size < LARGEST
        open_all(page)
        page.wait_for_selector("#layer_table tbody button")
        settled(page)
        page.evaluate("() => { document.getElementById('panel').scrollTop = 0; scrollTo(0, 0); }")
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        assert page.evaluate(BROKEN) == []
