"""The page's tools in a real browser: layers, directions, comparing, grids, keyframes, runs, presets, video."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sg3
from sg3.formats import averaged_generator
from sg3.tools import drag as drag_editing
from sg3.viewer import encode, tasks
from sg3.viewer.pictures import Painter
from sg3.viewer.state import State
from sg3.viewer.views import view
from tests.helpers.browsers import settled, shown, state
from tests.helpers.for_tools import pyramid, saved, tiny3
from tests.helpers.pages import drag, open_all, set_range
from tests.helpers.run_folders import run_folder
from tests.helpers.viewers import Served, pixels_of, served, viewer_of

MOVES, CLASSES, RUN = "sg3t-64.pkl", "sg2-32-cond.pkl", "00000-stylegan3-t-discs"

NINE = "() => [...document.querySelectorAll('#thumbs img')].filter((image) => image.naturalWidth).length === 9"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    folder = run_folder(tmp_path_factory.mktemp("runs") / RUN)
    Image.new("RGB", (8, 8), "lime").save(folder / "fakes_init.png")
    for kimg in (0, 4):
        saved(tiny3(), folder / f"network-snapshot-{kimg:06d}.pkl")
    return folder


@pytest.fixture(scope="module")
def server(golden: Path, run_dir: Path) -> Iterator[Served]:
    with served(viewer_of(golden / MOVES, golden / CLASSES, run_dir)) as made:
        yield made


@pytest.fixture
def page(page: Any) -> Any:
    """With all its parts unfolded."""
    open_all(page)
    return page


def expected(golden: Path, words: dict[str, str]) -> np.ndarray:
    def find(name: str) -> Painter:
        return Painter(averaged_generator(sg3.load(golden / (name or MOVES)), name))

    return view(State.read(words), find)


def rgb(pixels: np.ndarray) -> np.ndarray:
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


@pytest.mark.slow
def test_layers(page: Any, golden: Path) -> None:
    page.click("#layer_table tbody tr:nth-child(4) button")
    settled(page)
    name = state(page)["layer"]
    assert page.inner_text("#layer_table tbody tr:nth-child(4) td:nth-child(1)") == name
    assert np.array_equal(shown(page), rgb(expected(golden, state(page))))
    page.select_option("#layer_view", "sheet")
    assert np.array_equal(shown(page), rgb(expected(golden, state(page))))
    page.wait_for_function("() => Number(document.getElementById('channel').max) > 0")
    set_range(page, "channel", 3)
    set_range(page, "gain_db", 12)
    page.check("#normalize")
    assert np.array_equal(shown(page), rgb(expected(golden, state(page))))
    page.select_option("#layer_view", "spectrum")
    set_range(page, "kaiser", 4)
    set_range(page, "spectrum_db", 30)
    page.check("#all_channels")
    assert np.array_equal(shown(page), rgb(expected(golden, state(page))))
    assert set(state(page)) == {"layer", "layer_view", "channel", "gain_db", "normalize", "kaiser", "spectrum_db",
                                "all_channels"}  # fmt: skip
    page.reload()
    assert np.array_equal(shown(page), rgb(expected(golden, state(page))))


@pytest.mark.slow
def test_directions(page: Any, golden: Path, tmp_path: Path) -> None:
    set_range(page, "direction_0", 3)
    page.fill("#direction_layers", "1-3")
    page.keyboard.press("Enter")
    settled(page)
    assert state(page) == {"directions": "sefa.0:3:1-3"}
    page.select_option("#direction_set", "pca")
    set_range(page, "direction_1", -2)
    settled(page)
    assert state(page)["directions"] == "sefa.0:3:1-3,pca.1:-2:1-3"
    assert np.array_equal(shown(page), expected(golden, state(page)))
    page.reload()
    settled(page)
    assert state(page)["directions"] == "sefa.0:3:1-3,pca.1:-2:1-3"
    assert np.array_equal(shown(page), expected(golden, state(page)))
    open_all(page)
    file = tmp_path / "directions.npz"
    np.savez(file, directions=np.eye(averaged_generator(sg3.load(golden / MOVES), "").w_dim, dtype=np.float32)[:2])
    page.set_input_files("#directions_file", file)
    page.wait_for_function("() => document.querySelectorAll('#direction_sliders input').length === 2")
    page.fill("#direction_layers", "")
    set_range(page, "direction_1", 5)
    settled(page)
    assert state(page)["directions"].count(",") == 2
    page.click("#directions_zero")
    settled(page)
    assert state(page) == {}


@pytest.mark.slow
def test_comparing_two_networks(page: Any, golden: Path) -> None:
    page.select_option("#network", CLASSES)
    settled(page)
    page.select_option("#network_b", CLASSES)
    page.select_option("#compare", "difference")
    assert (shown(page) == 128).all()
    page.select_option("#compare", "split")
    set_range(page, "split", 0.25)
    assert np.array_equal(shown(page), expected(golden, state(page)))


@pytest.mark.slow
def test_grids_and_children(page: Any) -> None:
    page.fill("#seed", "40")
    page.keyboard.press("Enter")
    page.click("#grid_seeds")
    page.wait_for_function(NINE)
    page.click("#thumbs button >> nth=2")
    settled(page)
    assert state(page) == {"seed": "42"}
    page.check("#thumbs input >> nth=2")
    page.check("#thumbs input >> nth=3")
    page.click("#grid_breed")
    page.wait_for_selector("#thumbs button[title='child 1']")
    page.wait_for_function(NINE)
    before = shown(page)
    page.click("#thumbs button >> nth=0")
    settled(page)
    assert len(state(page)["latent"]) == 16
    assert not np.array_equal(shown(page), before)
    child = shown(page)
    with page.expect_download() as download:
        page.click("#save_latent")
    page.click("#reset")
    settled(page)
    page.set_input_files("#latents_file", {"name": "a.npz", "mimeType": "application/zip",
                                           "buffer": Path(download.value.path()).read_bytes()})  # fmt: skip
    page.wait_for_function("() => location.hash.includes('latent=')")
    assert np.array_equal(shown(page), child)


@pytest.mark.slow
def test_keyframes_and_the_command_of_their_video(page: Any, run, golden: Path, tmp_path: Path) -> None:
    for seed in (3, 9):
        page.fill("#seed", str(seed))
        page.keyboard.press("Enter")
        page.click("#key_add")
    set_range(page, "key_seconds", 0.2)
    page.uncheck("#key_loop")
    command = page.inner_text("#key_command")
    assert command == f"sg3 video --network={MOVES} --seeds=3,9 --interpolation=linear --w-frames=12 --no-loop " \
                      "--output=walk.mp4"  # fmt: skip
    words = command.replace(MOVES, str(golden / MOVES)).replace("walk.mp4", f"{tmp_path}/walk").split()
    assert run(*words[1:]).code == 0
    frames = sorted((tmp_path / "walk").glob("*.png"))
    assert len(frames) == 13
    set_range(page, "key_seconds", 1)
    page.click("#key_play")
    page.wait_for_function("() => location.hash.includes('seed_b=') === false && "
                           "document.getElementById('key_play').getAttribute('aria-pressed') === 'true'")
    page.wait_for_function("() => document.getElementById('key_play').getAttribute('aria-pressed') === 'false'")
    settled(page)
    words = state(page)
    assert (words["seed"], words["seed_b"]) == ("3", "9")
    assert np.array_equal(shown(page), expected(golden, words))


@pytest.mark.slow
def test_keyframes_of_whole_latents_are_those_of_the_video(page: Any, run, golden: Path, tmp_path: Path) -> None:
    """A fractional place, a mixture and what a drag left; played here and made by the command: the same pictures."""
    drag(page, "#plane", -40, -20)
    settled(page)
    page.click("#key_add")
    page.fill("#mix_seed", "7")
    page.keyboard.press("Enter")
    page.click("#groups >> text=coarse")
    set_range(page, "trunc", 0.6)
    set_range(page, "direction_0", 2)
    settled(page)
    page.click("#key_add")
    page.click("#reset")
    box = page.locator("#picture").bounding_box()
    page.click("#drag_points")
    for x in (0.4, 0.6):
        page.mouse.click(box["x"] + x * box["width"], box["y"] + 0.5 * box["height"])
    set_range(page, "drag_lr", -1.5)
    page.click("#drag_start")
    page.wait_for_selector("#drag_stop:not(:disabled)")
    page.wait_for_selector("#drag_start:not(:disabled)")
    settled(page)
    dragged, words = shown(page), state(page)
    assert set(words) == {"latent"}
    page.click("#key_add")
    names = page.locator("#key_list li button:first-child").all_inner_texts()
    assert [name.split()[0] for name in names] == ["seed", "seed", "latent"]
    assert " at 0." in names[0]
    assert names[1].endswith("+")
    page.reload()  # they are still there
    settled(page)
    open_all(page)
    page.click("#reset")
    page.click("#key_list li:nth-child(3) button")
    assert np.array_equal(shown(page), dragged)
    assert state(page) == words
    set_range(page, "key_seconds", 0.2)
    page.check("#key_loop")
    assert page.is_visible("#key_hint")
    with page.expect_download() as download:
        page.click("#key_copy")
    assert download.value.suggested_filename == "keyframes.npz"
    download.value.save_as(tmp_path / "keyframes.npz")
    command = page.inner_text("#key_command")
    assert command == f"sg3 video --network={MOVES} --latents=keyframes.npz --interpolation=linear --w-frames=12 " \
                      "--loop --output=walk.mp4"  # fmt: skip
    made = command.replace(MOVES, str(golden / MOVES)).replace("walk.mp4", f"{tmp_path}/walk")
    made = made.replace("keyframes.npz", str(tmp_path / "keyframes.npz"))
    assert run(*made.split()[1:], "--batch=1").code == 0
    frames = sorted((tmp_path / "walk").glob("*.png"))
    assert len(frames) == 36
    assert np.array_equal(pixels_of(frames[24].read_bytes()), dragged)
    set_range(page, "key_seconds", 2)
    page.click("#key_play")
    page.wait_for_function("() => location.hash.includes('latent_b=') === false && "
                           "document.getElementById('key_play').getAttribute('aria-pressed') === 'true'")
    page.wait_for_timeout(1000)
    page.click("#key_play")
    settled(page)
    words = state(page)
    assert set(words) == {"latent", "latent_b", "seed_mix"}
    first = next(n for n in range(3) if np.array_equal(at(page, words, 0), pixels_of(frames[12 * n].read_bytes())))
    for mix, frame in ((0.25, 3), (0.5, 6), (1, 12)):
        assert np.array_equal(at(page, words, mix), pixels_of(frames[(12 * first + frame) % 36].read_bytes()))


def at(page: Any, words: dict[str, str], mix: float) -> np.ndarray:
    """The picture at a place between two latents, by its address."""
    token = page.evaluate("() => new URLSearchParams(location.hash.slice(1)).get('token')")
    hash = "&".join(f"{name}={value}" for name, value in {"token": token, **words, "seed_mix": str(mix)}.items())
    page.evaluate("(hash) => new Promise((done) => { addEventListener('hashchange', done, { once: true }); "
                  "location.hash = hash; }).then(() => null)", hash)  # fmt: skip
    return shown(page)


@pytest.mark.slow
def test_a_run_is_followed(page: Any, run_dir: Path) -> None:
    page.select_option("#network", RUN)
    page.wait_for_selector("#run", state="visible")
    page.wait_for_function("() => document.getElementById('run_text').textContent.includes('2 snapshots')")
    assert "in training" in page.inner_text("#run_text")
    assert page.is_checked("#follow")
    before = shown(page)
    G = tiny3(channel_base=128)
    saved(G, run_dir / "network-snapshot-000008.pkl")
    page.wait_for_function("() => document.getElementById('run_text').textContent.includes('3 snapshots')")
    page.wait_for_timeout(200)
    assert np.array_equal(shown(page), Painter(G).picture(State()))
    set_range(page, "timeline", 0)
    assert np.array_equal(shown(page), before)
    assert state(page)["network"] == f"{RUN}/network-snapshot-000000.pkl"
    assert not page.is_checked("#follow")
    page.check("#follow")
    settled(page)
    assert state(page)["network"] == RUN
    names = page.locator("#curve option").all_inner_texts()
    assert {"fid50k", "Loss/G/loss"} <= set(names)
    page.select_option("#curve", "Loss/G/loss")
    page.click("#show_reals")
    page.wait_for_selector("#beside", state="visible")
    page.click("#show_fakes")
    page.wait_for_function("() => document.getElementById('beside').alt.includes('fakes')")
    page.click("#show_both")
    page.wait_for_selector("#pair", state="visible")
    assert page.is_hidden("#beside")
    middle = """(image) => { const c = document.createElement('canvas').getContext('2d'); c.drawImage(image, 0, 0);
                return [...c.getImageData(2, 2, 1, 1).data].slice(0, 3); }"""
    page.wait_for_function("() => ['pair_reals', 'pair_fakes'].every((id) => document.getElementById(id).naturalWidth)")
    assert page.eval_on_selector("#pair_reals", middle) == [255, 0, 0]
    assert page.eval_on_selector("#pair_fakes", middle) == [0, 0, 255]
    assert page.inner_text("#pair_words") == "The run's fakes at 8 k"
    set_range(page, "timeline", 0)  # the fakes go back with the time line, to those of the beginning
    page.wait_for_function("() => document.getElementById('pair_words').textContent.endsWith('at 0 k')")
    page.wait_for_function("() => document.getElementById('pair_fakes').complete")
    assert page.eval_on_selector("#pair_fakes", middle) == [0, 255, 0]
    page.click("#show_both")
    page.wait_for_selector("#pair", state="hidden")


@pytest.mark.slow
def test_equivariance_is_read(page: Any) -> None:
    set_range(page, "translate_x", 0.125)
    set_range(page, "rotate", 10)
    page.wait_for_function("() => /EQ-T [-0-9.]+ dB, EQ-R [-0-9.]+ dB/.test("
                           "document.getElementById('readings').textContent)")  # fmt: skip


@pytest.mark.slow
def test_presets_and_recordings(page: Any) -> None:
    page.fill("#seed", "77")
    page.keyboard.press("Enter")
    page.fill("#preset_name", "mine")
    page.click("#preset_save")
    page.click("#reset")
    settled(page)
    page.reload()
    settled(page)
    open_all(page)
    page.click("#preset_list >> text=mine")
    settled(page)
    assert state(page) == {"seed": "77"}
    page.click("#preset_list button[aria-label='Remove mine']")
    assert page.locator("#preset_list li").count() == 0
    page.click("#record")
    set_range(page, "trunc", 0.2)
    page.wait_for_timeout(500)
    with page.expect_download() as download:
        page.click("#record")
    assert Path(download.value.path()).read_bytes()[:4] == b"\x1aE\xdf\xa3"  # Matroska, WebM


POINTS = "(svg) => [...svg.querySelectorAll('circle')].map((c) => [c.getAttribute('cx'), c.getAttribute('cy')])"


@pytest.mark.slow
def test_dragging_points(page: Any, monkeypatch) -> None:
    monkeypatch.setattr(drag_editing, "NEARER", -math.inf)  # every step is progress: it ends when it is stopped
    start = shown(page)
    box = page.locator("#picture").bounding_box()
    page.click("#drag_points")
    for x, y in ((0.4, 0.5), (0.6, 0.5)):
        page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
    assert page.locator("#points circle").count() == 2
    page.click("#drag_mask")
    drag(page, "#picture", 0.2 * box["width"], 0)
    assert page.is_visible("#mask")
    placed = page.eval_on_selector("#points", POINTS)
    set_range(page, "drag_lr", -3)
    page.click("#drag_start")
    page.wait_for_function("() => parseInt(document.getElementById('drag_text').textContent) >= 2")
    page.click("#drag_stop")
    page.wait_for_selector("#drag_start:not(:disabled)")
    assert page.inner_text("#drag_text").endswith("px to go: stopped")
    settled(page)
    words = state(page)
    assert set(words) == {"latent"}
    dragged = shown(page)
    assert not np.array_equal(dragged, start)
    before = page.inner_text("#drag_text")
    page.click("#drag_undo")
    page.wait_for_function("(before) => document.getElementById('drag_text').textContent !== before", arg=before)
    page.wait_for_function("(before) => !location.hash.includes(before)", arg=words["latent"])
    page.keyboard.press("Control+z")
    assert np.array_equal(shown(page), dragged)
    page.keyboard.press("Control+z")
    assert np.array_equal(shown(page), start)
    assert page.eval_on_selector("#points", POINTS) == placed  # they go back with the picture
    set_range(page, "drag_lr", -1.5)
    page.click("#drag_start")
    page.wait_for_function("() => document.getElementById('drag_text').textContent.endsWith('the targets are reached')")
    page.wait_for_selector("#drag_start:not(:disabled)")
    page.click("#drag_clear")
    assert page.is_hidden("#points")
    assert page.is_hidden("#mask")


@pytest.mark.slow
def test_projecting_an_image(page: Any, monkeypatch) -> None:
    monkeypatch.setattr(tasks, "_perceptual", lambda device: pyramid)
    page.fill("#seed", "5")
    page.keyboard.press("Enter")
    image = encode.png(shown(page))
    page.click("#reset")
    page.fill("#project_steps", "4000")
    page.set_input_files("#project_file", {"name": "a.png", "mimeType": "image/png", "buffer": image})
    page.wait_for_function("() => / of /.test(document.getElementById('project_text').textContent)")
    assert page.is_visible("#beside")
    page.click("#project_stop")
    page.wait_for_function("() => document.getElementById('project_text').textContent === 'stopped'")
    page.fill("#project_steps", "6")
    page.set_input_files("#project_file", {"name": "a.png", "mimeType": "image/png", "buffer": image})
    page.wait_for_function("() => document.getElementById('project_text').textContent.startsWith('done')")
    settled(page)
    assert "latent" in state(page)
    assert page.is_hidden("#beside")
    page.click("#project_before")
    assert page.is_visible("#beside")
