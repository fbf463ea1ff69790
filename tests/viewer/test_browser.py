"""The page in a real browser: it is clicked, dragged, typed into, reloaded; pictures are compared byte by byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sg3
from sg3.formats import averaged_generator
from sg3.viewer.pictures import Painter
from sg3.viewer.state import State
from tests.helpers.browsers import opened, settled, shown, state
from tests.helpers.for_tools import saved, tiny3
from tests.helpers.pages import drag, open_all, set_range
from tests.helpers.viewers import FULL, LOOK, Served, pixels_of, served, viewer_of

MOVES, CLASSES = "sg3t-64.pkl", "sg2-32-cond.pkl"


@pytest.fixture(scope="module")
def server(golden: Path, tmp_path_factory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("more")
    (folder / "broken.pkl").write_bytes(b"\x80\x04" + b"garbage" * 10)
    with served(viewer_of(golden / MOVES, golden / CLASSES, folders=(folder,))) as made:
        yield made


def expected(golden: Path, name: str, words: dict[str, str]) -> np.ndarray:
    G = averaged_generator(sg3.load(golden / name), name)
    return Painter(G).picture(State.read({k: v for k, v in words.items() if k != "network"}))


def test_a_picture_is_that_of_generate_and_its_address_brings_it_back(
    page: Any, golden: Path, run, tmp_path: Path
) -> None:
    assert run("generate", f"--network={golden / MOVES}", "--seeds=17", "--trunc=0.5", f"--outdir={tmp_path}").code == 0
    wanted = pixels_of((tmp_path / "seed0017.png").read_bytes())
    page.fill("#seed", "17")
    page.keyboard.press("Enter")
    set_range(page, "trunc", 0.5)
    assert np.array_equal(shown(page), wanted)
    assert state(page) == {"seed": "17", "trunc": "0.5"}
    page.reload()
    assert np.array_equal(shown(page), wanted)
    assert page.input_value("#seed") == "17"
    page.goto(page.url.replace("seed=17", "seed=18"))  # typed into the address
    assert not np.array_equal(shown(page), wanted)
    page.keyboard.press("Control+z")
    assert np.array_equal(shown(page), wanted)
    page.click("#redo")
    settled(page)
    assert state(page)["seed"] == "18"


def test_dragging_moves_through_the_plane(page: Any, golden: Path) -> None:
    kinds = page.evaluate_handle("() => { const seen = []; new MutationObserver(() => seen.push("
                                 "document.getElementById('picture').dataset.mime)).observe(document.getElementById("
                                 "'picture'), {attributeFilter: ['data-mime', 'data-frame']}); return seen; }")
    drag(page, "#plane", -96, -32)
    settled(page)
    assert state(page) == {"seed": "1", "x": "0.5", "y": "0.5"}
    assert np.array_equal(shown(page), expected(golden, MOVES, state(page)))
    assert "image/jpeg" in kinds.json_value()
    before = state(page)
    drag(page, "#picture", 200, 0)
    settled(page)
    assert state(page) != before
    page.click("#snap")
    settled(page)
    assert set(state(page)) == {"seed"}
    page.focus("#plane")
    page.keyboard.press("Shift+ArrowRight")
    settled(page)
    seed = int(state(page)["seed"])
    page.evaluate("() => document.activeElement.blur()")
    page.keyboard.press("ArrowDown")
    settled(page)
    assert state(page) == {"seed": str(seed + 100)}


@pytest.mark.slow
def test_the_walk_walks(page: Any) -> None:
    set_range(page, "speed", 5)
    page.keyboard.press("Space")
    page.wait_for_function("() => Number(document.getElementById('seed').value) >= 1")
    assert page.get_attribute("#walk", "aria-pressed") == "true"
    page.keyboard.press("Space")
    settled(page)
    place = state(page)
    page.wait_for_timeout(300)
    assert state(page) == place


@pytest.mark.slow
def test_classes_noise_and_networks(page: Any, golden: Path) -> None:
    assert page.is_hidden("#classes")
    page.select_option("#network", CLASSES)
    page.wait_for_selector("#classes", state="visible")
    open_all(page)
    assert page.is_hidden("#transform")
    assert np.array_equal(shown(page), expected(golden, CLASSES, {"class": "0"}))
    for name, value in (("class", "2"), ("class_b", "1"), ("noise_seed", "5")):
        page.fill(f"#{name}", value)
        page.keyboard.press("Enter")
    set_range(page, "class_mix", 0.25)
    set_range(page, "noise_strength", 2)
    page.select_option("#noise_mode", "random")
    settled(page)
    words = state(page)
    assert words == {"network": CLASSES, "class": "2", "class_b": "1", "class_mix": "0.25", "noise_mode": "random",
                     "noise_seed": "5", "noise_strength": "2"}  # fmt: skip
    assert np.array_equal(shown(page), expected(golden, CLASSES, words))


LISTED = "[...document.getElementById('network').options].map(({ value }) => value)"
GROUPS = """() => Object.fromEntries([...document.querySelectorAll("#network optgroup")].map(
    (group) => [group.label, [...group.querySelectorAll("option")].map((option) => option.value)]))"""


@pytest.mark.slow
def test_the_picker_remembers_and_finds_what_is_new(page: Any, server: Served) -> None:
    (folder,) = server.viewer.catalogue._folders
    label = f"Folder {folder.name}"
    assert page.evaluate(GROUPS) == {"Networks": [MOVES, CLASSES], label: [f"{folder.name}/broken.pkl"]}
    saved(tiny3(), folder / "new.pkl")
    page.evaluate("() => dispatchEvent(new Event('focus'))")  # back from another window
    new = f"{folder.name}/new.pkl"
    page.wait_for_function(f"() => {LISTED}.includes('{new}')")
    page.select_option("#network", new)
    assert shown(page).shape == (16, 16, 3)
    page.select_option("#network", CLASSES)
    settled(page)
    assert page.evaluate(GROUPS)["Shown lately"] == [CLASSES, new, MOVES]
    page.reload()
    settled(page)
    assert page.evaluate(GROUPS)["Shown lately"] == [CLASSES, new, MOVES]
    assert page.input_value("#network") == CLASSES
    (folder / "new.pkl").unlink()
    page.evaluate("() => dispatchEvent(new Event('focus'))")
    page.wait_for_function(f"() => !{LISTED}.includes('{new}')")
    assert page.evaluate(GROUPS)["Shown lately"] == [CLASSES, MOVES]


@pytest.mark.slow
def test_style_mixing(page: Any, golden: Path) -> None:
    open_all(page)
    plain = shown(page)
    page.click("#groups >> text=fine")
    settled(page)
    layers = state(page)["mix_layers"]
    assert state(page)["mix_seed"] == "1000"
    assert not np.array_equal(shown(page), plain)
    page.fill("#mix_seed", "7")
    page.keyboard.press("Enter")
    page.check("#mix_layers input >> nth=0")
    settled(page)
    assert state(page) == {"mix_seed": "7", "mix_layers": f"0,{layers}"}
    assert np.array_equal(shown(page), expected(golden, MOVES, state(page)))
    assert "sg3 style-mix" in page.inner_text("#command")
    set_range(page, "cutoff", 2)
    set_range(page, "trunc", 0.3)
    settled(page)
    assert np.array_equal(shown(page), expected(golden, MOVES, state(page)))


@pytest.mark.slow
def test_moving_rotating_scaling(page: Any, golden: Path) -> None:
    open_all(page)
    set_range(page, "translate_x", 0.125)
    set_range(page, "rotate", 30)
    set_range(page, "scale", 1.5)
    assert np.array_equal(shown(page), expected(golden, MOVES, state(page)))
    assert state(page) == {"translate": "0.125,0", "rotate": "30", "scale": "1.5"}
    page.check("#untransform")
    assert np.array_equal(shown(page), expected(golden, MOVES, state(page)))
    page.click("#reset")
    page.check("#show_handles")
    width = page.locator("#picture").bounding_box()["width"]
    drag(page, "#centre", 0.25 * width, 0)
    settled(page)
    x, y = map(float, state(page)["translate"].split(","))
    assert abs(x - 0.25) < 0.01 > abs(y)
    drag(page, "#tip", -0.3 * width, -0.6 * width)  # straight above the centre, twice as far away
    settled(page)
    assert abs(float(state(page)["rotate"]) - 90) < 1
    assert abs(float(state(page)["scale"]) - 2) < 0.05
    page.focus("#centre")
    page.keyboard.press("ArrowDown")
    settled(page)
    assert abs(float(state(page)["translate"].split(",")[1]) - y - 0.01) < 1e-6
    page.click("#animate_rotate")
    page.wait_for_function("() => Math.abs(Number(document.getElementById('rotate').value) - 90) > 5")
    page.click("#animate_rotate")
    assert np.array_equal(shown(page), expected(golden, MOVES, state(page)))


@pytest.mark.slow
def test_all_that_moves_the_picture_can_keep_moving(page: Any, golden: Path) -> None:
    open_all(page)
    set_range(page, "animate_speed", 4)
    for name in ("x", "y", "scale"):
        page.click(f"#animate_{name}")
    # There and back: each has been at both of its ends.
    page.wait_for_function("""() => {
        window.seen ??= {};
        for (const id of ["translate_x", "translate_y", "scale"]) {
          const value = Number(document.getElementById(id).value);
          const [low, high] = window.seen[id] ?? [value, value];
          window.seen[id] = [Math.min(low, value), Math.max(high, value)];
        }
        const { translate_x: x, translate_y: y, scale } = window.seen;
        return x[0] < -0.2 && x[1] > 0.2 && y[0] < -0.2 && y[1] > 0.2 && scale[0] < 0.6 && scale[1] > 1.7;
      }""")
    assert page.get_attribute("#animate_x", "aria-pressed") == "true"
    for name in ("x", "y", "scale"):
        page.click(f"#animate_{name}")
    settled(page)
    words = state(page)
    assert {"translate", "scale"} <= set(words)
    assert max(abs(float(part)) for part in words["translate"].split(",")) <= 0.5
    assert np.array_equal(shown(page), expected(golden, MOVES, words))
    page.wait_for_timeout(300)
    assert state(page) == words


class Fingers:
    """On the picture; places are fractions of it from its middle."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.session = page.context.new_cdp_session(page)

    def __call__(self, kind: str, *places: tuple[float, float]) -> None:
        box = self.page.locator("#picture").bounding_box()
        points = [{"x": box["x"] + (0.5 + x) * box["width"], "y": box["y"] + (0.5 + y) * box["height"], "id": n}
                  for n, (x, y) in enumerate(places)]  # fmt: skip
        self.session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


@pytest.mark.slow
def test_two_fingers_move_turn_and_scale(browser: Any, server: Served, golden: Path) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with opened(browser, server.url(f"/#token={FULL}"), **phone) as page:
        settled(page)
        touch = Fingers(page)
        touch("touchStart", (-0.1, 0))
        touch("touchMove", (-0.12, 0))
        touch("touchStart", (-0.1, 0), (0.1, 0))
        for part in (0.25, 0.5, 0.75, 1):  # twice as far apart, a quarter clockwise, around the middle
            angle, far = part * np.pi / 2, 0.1 * (1 + part)
            x, y = far * np.cos(angle), far * np.sin(angle)
            touch("touchMove", (-x + 0.1 * part, -y), (x + 0.1 * part, y))
        touch("touchEnd")
        settled(page)
        words = state(page)
        assert set(words) == {"translate", "rotate", "scale"}  # and not the plane, where the first finger began
        x, y = map(float, words["translate"].split(","))
        assert (abs(x - 0.1) < 0.01, abs(y) < 0.01) == (True, True)
        assert abs(float(words["rotate"]) + 90) < 1
        assert abs(float(words["scale"]) - 2) < 0.05
        assert np.array_equal(shown(page), expected(golden, MOVES, words))
        touch("touchStart", (0, 0))  # one finger still goes over the plane
        touch("touchMove", (-0.2, 0))
        touch("touchMove", (-0.25, 0))
        touch("touchEnd")
        settled(page)
        assert float(state(page)["x"]) > 0.1


@pytest.mark.slow
def test_what_is_kept(page: Any, golden: Path, run, tmp_path: Path) -> None:
    open_all(page)
    set_range(page, "trunc", 0.7)
    picture = shown(page)
    with page.expect_download() as download:
        page.click("#save")
    saved = Path(download.value.path()).read_bytes()
    assert download.value.suggested_filename == "seed0000.png"
    assert np.array_equal(pixels_of(saved), picture)
    assert json.loads(Image.open(BytesIO(saved)).text["sg3"])["trunc"] == 0.7
    with page.expect_download() as download:
        page.click("#save_latent")
    w = np.load(download.value.path())["w"]
    G = averaged_generator(sg3.load(golden / MOVES), MOVES)
    assert torch.equal(torch.from_numpy(w), Painter(G).ws(State(trunc=0.7)))
    command = page.inner_text("#command")
    assert command == f"sg3 generate --network={MOVES} --trunc=0.7 --seeds=0 --outdir=out"
    words = command.replace(MOVES, str(golden / MOVES)).replace("--outdir=out", f"--outdir={tmp_path}").split()
    assert run(*words[1:]).code == 0
    assert np.array_equal(pixels_of((tmp_path / "seed0000.png").read_bytes()), picture)


@pytest.mark.slow
def test_a_link_to_look_only(page: Any, browser: Any, server: Served) -> None:
    open_all(page)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#copy_look")
    page.wait_for_selector("#toast.shown")
    link = page.evaluate("() => navigator.clipboard.readText()")
    assert LOOK in link
    assert FULL not in link
    with opened(browser, link) as guest:
        assert np.array_equal(shown(guest), shown(page))
        assert guest.is_hidden("#copy_look")


def test_what_goes_wrong_is_said_in_the_page(page: Any, browser: Any, server: Served) -> None:
    good = shown(page)
    page.select_option("#network", label="more0/broken.pkl")
    page.wait_for_selector("#message", state="visible")
    assert "broken.pkl" in page.inner_text("#message")
    assert page.is_visible("#old")  # what is still shown is another network's
    assert "/" not in page.inner_text("#message").replace("more0/", "")
    page.keyboard.press("Escape")
    page.select_option("#network", MOVES)
    assert np.array_equal(shown(page), good)
    assert page.is_hidden("#message")
    assert page.is_hidden("#old")
    with opened(browser, server.url("/#token=wrong")) as lost:
        lost.wait_for_selector("#message", state="visible")
        assert "token is missing or wrong" in lost.inner_text("#message")


@pytest.mark.slow
def test_labels_keyboard_and_themes(page: Any) -> None:
    open_all(page)
    nameless = page.evaluate("""() => [...document.querySelectorAll("button, input, select, [tabindex]")]
        .filter((e) => e.checkVisibility())
        .filter((e) => !(e.ariaLabel || e.labels?.[0]?.textContent.trim() || e.textContent.trim()))
        .map((e) => e.outerHTML)""")
    assert nameless == []
    reached = set()
    page.evaluate("() => document.body.focus()")
    for _ in range(160):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("() => document.activeElement.id"))
    assert {"network", "random", "walk", "save", "seed", "plane", "speed", "trunc", "cutoff", "mix_seed", "rotate",
            "copy_link", "limit"} <= reached  # fmt: skip
    before = page.get_attribute("html", "data-theme")
    page.click("#theme")
    after = page.get_attribute("html", "data-theme")
    assert {before, after} == {"light", "dark"}
    assert page.evaluate("() => getComputedStyle(document.documentElement).colorScheme") == after
    page.eval_on_selector("#truncation", "(part) => { part.open = false; }")
    set_range(page, "rotate", 20)
    page.reload()
    settled(page)
    assert page.get_attribute("html", "data-theme") == after
    assert page.eval_on_selector_all("details", "(all) => all.filter((part) => !part.open).map(({ id }) => id)") == [
        "truncation"]  # fmt: skip
    page.dblclick("#rotate", position={"x": 10, "y": 8})  # back to its default
    settled(page)
    assert state(page) == {}


@pytest.mark.slow
def test_a_telephone(browser: Any, server: Served) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with opened(browser, server.url(f"/#token={FULL}"), **phone) as page:
        settled(page)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
        page.tap("#random")
        settled(page)
        assert "seed" in state(page)


@pytest.mark.slow
def test_the_speed_is_shown_and_limited(page: Any) -> None:
    open_all(page)
    page.check("#fp32")
    settled(page)
    assert state(page) == {"fp32": "true"}
    page.uncheck("#fp32")
    set_range(page, "limit", 5)
    asked = int(page.get_attribute("#picture", "data-asked"))
    set_range(page, "speed", 2)
    page.keyboard.press("Space")
    page.wait_for_timeout(1000)
    page.keyboard.press("Space")
    settled(page)
    assert int(page.get_attribute("#picture", "data-asked")) - asked <= 9  # five in a second, and the end
    assert "median" in page.inner_text("#speed_text")
