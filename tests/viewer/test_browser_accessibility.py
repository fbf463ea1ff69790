"""The page without eyes or without a mouse: its accessibility tree, and where the Tab key leads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.browsers import opened, settled
from tests.helpers.for_tools import saved, tiny2
from tests.helpers.pages import open_all
from tests.helpers.run_folders import run_folder
from tests.helpers.viewers import FULL, Served, served, viewer_of

MOVES, RUN = "sg3t-64.pkl", "00000-stylegan2-discs"
CONTROLS = {"application", "button", "checkbox", "combobox", "link", "slider", "spinbutton", "textbox"}
NAMED = {*CONTROLS, "DisclosureTriangle", "form", "group", "image", "region", "table", "toolbar"}


@pytest.fixture(scope="module")
def server(golden: Path, tmp_path_factory) -> Iterator[Served]:
    folder = run_folder(tmp_path_factory.mktemp("runs") / RUN)
    saved(tiny2(c_dim=3), folder / "network-snapshot-000000.pkl")
    with served(viewer_of(golden / MOVES, folder)) as made:
        yield made


@pytest.fixture
def page(page: Any, request: pytest.FixtureRequest) -> Any:
    """With all its parts unfolded, points to drag, a grid, a keyframe and a preset: everything that can be there."""
    network = getattr(request, "param", MOVES)
    if network != MOVES:
        page.select_option("#network", network)
        page.wait_for_selector("#run", state="visible")
        settled(page)
    open_all(page)
    if page.is_visible("#transform"):
        page.check("#show_handles")
    for button in ("grid_seeds", "key_add"):
        page.click(f"#{button}")
    page.fill("#preset_name", "mine")
    page.click("#preset_save")
    page.wait_for_selector("#layer_table tbody button")
    return page


class Tree:
    """What assistive software is told, node by node."""

    def __init__(self, page: Any) -> None:
        found = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
        self._all = {node["nodeId"]: node for node in found}
        self.nodes = [node for node in found if not node["ignored"]]

    def group(self, node: dict[str, Any]) -> str:
        """The names of the groups that a node is in."""
        names, above = [], self._all.get(node.get("parentId", ""))
        while above is not None:
            if role(above) in ("group", "form", "toolbar", "region", "row"):
                names.append(name(above))
            above = self._all.get(above.get("parentId", ""))
        return " in ".join(names)


def role(node: dict[str, Any]) -> str:
    return str(node.get("role", {}).get("value"))


def name(node: dict[str, Any]) -> str:
    return str(node.get("name", {}).get("value") or "").strip()


@pytest.mark.parametrize("page", [MOVES, RUN], indirect=True)
def test_everything_has_a_name_of_its_own(page: Any) -> None:
    tree = Tree(page)
    assert [role(node) for node in tree.nodes if role(node) in NAMED and not name(node)] == []
    controls = Counter((role(node), name(node), tree.group(node)) for node in tree.nodes if role(node) in CONTROLS)
    assert [control for control, times in controls.items() if times > 1] == []
    assert len(controls) > 80
    roles = Counter(map(role, tree.nodes))
    assert [roles[kind] for kind in ("banner", "main", "form", "heading")] == [1, 1, 1, 1]
    assert roles["status"] == 1  # what changes all the time, beside sliders, is no news
    assert {"SeFa 0", "SeFa 7"} <= {name(node) for node in tree.nodes if role(node) == "slider"}
    page.select_option("#direction_set", "pca")
    assert "PCA 0" in {name(node) for node in Tree(page).nodes if role(node) == "slider"}


TABBABLE = """() => {
  const all = "a[href], button, input, select, textarea, summary, [tabindex='0']";
  window.tabbable = [...document.querySelectorAll(all)].filter((e) => !e.disabled && e.checkVisibility());
  document.getElementById("skip").focus();  // the first one
  return window.tabbable.length;
}"""
FOCUSED = """() => {
  const e = document.activeElement, box = (e.type === "file" ? e.parentElement : e).getBoundingClientRect();
  const x = box.x + box.width / 2, y = box.y + Math.min(box.height / 2, 20), on = document.elementFromPoint(x, y);
  const seen = e.id === "skip" || (on && (e.contains(on) || on.contains(e) || on.control === e));
  return [window.tabbable.indexOf(e), Boolean(seen), e.id || e.outerHTML.slice(0, 80)];
}"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_tab_leads_to_everything_in_order_and_nothing_is_hidden_then(browser: Any, server: Served, width: int) -> None:
    with opened(browser, server.url(f"/#token={FULL}"), viewport={"width": width, "height": 844}) as page:
        settled(page)
        open_all(page)
        page.check("#show_handles")
        page.click("#key_add")
        page.wait_for_selector("#layer_table tbody button")
        settled(page)
        count = page.evaluate(TABBABLE)
        assert count > 80
        places, hidden = [], []
        for _ in range(count - 1):
            page.keyboard.press("Tab")
            place, is_seen, what = page.evaluate(FOCUSED)
            places.append(place)
            if not is_seen:
                hidden.append(what)
        assert places == list(range(1, count))
        assert hidden == []


OUTLINE = """() => {
  const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
  return [outlineStyle, parseFloat(outlineWidth)];
}"""


@pytest.mark.slow
def test_what_has_the_focus_can_be_seen_to_have_it(page: Any) -> None:
    page.focus("#skip")
    for _ in range(12):
        page.keyboard.press("Tab")
        style, pixels = page.evaluate(OUTLINE)
        assert style != "none"
        assert pixels >= 1
