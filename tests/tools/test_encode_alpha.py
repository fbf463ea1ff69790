"""Videos with alpha, read back: alpha and the colours of what shows survive, and nothing invisible comes through."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from sg3.errors import UsageError
from sg3.tools.encode import encoder_name, open_output
from sg3.transparency import extended
from tests.helpers.browsers import chromium

av = pytest.importorskip("av")


def frames(count: int = 8, side: int = 64) -> list[np.ndarray]:
    """A red disc with a soft edge on transparent green, moving to the right; in its middle a half-seen square."""
    yy, xx = np.mgrid[:side, :side] + 0.5
    made = []
    for i in range(count):
        frame = np.zeros((side, side, 4), np.uint8)
        alpha = (side * 0.3 - np.hypot(yy - side / 2, xx - side * 0.4 - i)).clip(0, 1)
        frame[:] = 220, 30, 20, 0
        frame[:, :, 3] = np.rint(255 * alpha)
        middle = round(side * 0.4) + i
        frame[side // 2 - 6 : side // 2 + 6, middle - 6 : middle + 6, 3] = 128
        frame[frame[:, :, 3] == 0, :3] = 0, 255, 0
        made.append(frame)
    return made


def write(path: Path, pictures: list[np.ndarray], **options: object) -> None:
    with open_output(path, **options) as add:
        for picture in pictures:
            add(picture)


def read(path: Path) -> list[np.ndarray]:
    """With alpha: FFmpeg's own VP9 decoder, which it prefers, drops it."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoder = stream.codec_context
        if decoder.codec.canonical_name == "vp9":
            decoder = av.CodecContext.create("libvpx-vp9", "r")
        pictures = []
        for packet in container.demux(stream):
            for frame in decoder.decode(packet if packet.size else None):
                pictures.append(frame.to_ndarray(format="rgba"))
        return pictures


@pytest.mark.parametrize(
    ("name", "codec", "most"),
    [("a.webm", "vp9", 12), ("a.mkv", "vp9", 12), ("a.mov", "prores", 8), ("a.apng", "apng", 0)],
)
def test_alpha_survives(name: str, codec: str, most: int, tmp_path: Path) -> None:
    pictures = frames()
    write(tmp_path / name, pictures, fps=25, comment="a remark")
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.video[0].codec_context.codec.canonical_name == codec
    got = read(tmp_path / name)
    assert len(got) == len(pictures)
    for wanted, found in zip(pictures, got, strict=True):
        assert np.abs(wanted[:, :, 3].astype(int) - found[:, :, 3]).max() <= 2 * most
        inside = wanted[:, :, 3] > 0
        assert np.abs(wanted.astype(int) - found)[inside][:, :3].mean() <= most  # no green comes in
        green = found[inside][:, 1].astype(int)
        assert green.max() <= 30 + 2 * most
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_apng_is_lossless_and_endless(tmp_path: Path) -> None:
    pictures = [picture[:63, :61] for picture in frames(4)]
    write(tmp_path / "a.apng", pictures, fps=25)
    with Image.open(tmp_path / "a.apng") as image:
        assert image.info["loop"] == 0
        found = [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(image)]
    for wanted, picture in zip(pictures, found, strict=True):
        np.testing.assert_array_equal(picture, wanted)
    write(tmp_path / "b.apng", [picture[:, :, :3] for picture in pictures])
    assert Image.open(tmp_path / "b.apng").mode == "RGB"


def test_pngs_have_alpha(tmp_path: Path) -> None:
    pictures = frames(3)
    write(tmp_path / "folder", pictures)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "folder" / "00002.png")), pictures[2])
    write(tmp_path / "sheet.png", pictures)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "sheet.png")), np.concatenate(pictures, axis=1))


def test_what_cannot_hold_alpha_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.mp4: \.mp4 cannot hold the alpha .* \.webm, \.mov .*--background=white"):
        write(tmp_path / "a.mp4", frames(1))
    with pytest.raises(UsageError, match=r"--codec=libsvtav1 cannot hold the alpha"):
        write(tmp_path / "a.webm", frames(1), codec="libsvtav1")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match=r"--codec=libx264: \.apng cannot hold it; choose apng"):
        encoder_name(Path("a.apng"), "libx264")
    assert encoder_name(Path("a.mov"), None) == "libx264"
    assert encoder_name(Path("a.mov"), None, transparent=True) == "prores_ks"
    assert encoder_name(Path("a.mkv"), "libvpx-vp9", transparent=True) == "libvpx-vp9"


def test_movies_without_alpha(tmp_path: Path) -> None:
    pictures = [picture[:, :, :3] for picture in frames(3)]
    for name, codec in (("a.mov", None), ("b.mov", "prores_ks")):
        write(tmp_path / name, pictures, codec=codec)
        with av.open(str(tmp_path / name)) as container:
            found = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert np.abs(found[1].astype(int) - pictures[1]).mean() < 6


def test_colours_go_on_where_nothing_shows() -> None:
    frame = frames(1)[0]
    wide = extended(frame)
    np.testing.assert_array_equal(wide[:, :, 3], frame[:, :, 3])
    shows = frame[:, :, 3] > 0
    np.testing.assert_array_equal(wide[shows], frame[shows])
    assert (wide[:, :, :3] == [220, 30, 20]).all()
    two = np.zeros((5, 7, 4), np.uint8)
    two[0, 0], two[4, 6] = (255, 0, 0, 255), (0, 0, 255, 9)
    wide = extended(two)
    assert wide[1, 0, :3].tolist() == [255, 0, 0]
    assert wide[4, 5, :3].tolist() == [0, 0, 255]
    nothing = np.zeros((4, 4, 4), np.uint8)
    assert extended(nothing) is nothing


def test_in_a_browser(tmp_path: Path) -> None:
    """Chromium takes WebM's colours as straight: what shows over two backgrounds is what was written."""
    frame = frames(1)[0]
    frame[40:56, 4:12] = 10, 200, 240, 255
    write(tmp_path / "a.webm", [frame] * 3, fps=10)
    data = base64.b64encode((tmp_path / "a.webm").read_bytes()).decode()
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 64, "height": 64})
        page.set_content(f'<body style="margin:0"><video muted src="data:video/webm;base64,{data}"></video>')
        page.wait_for_function("() => document.querySelector('video').readyState >= 2")
        for colour, behind in (("black", (0, 0, 0)), ("rgb(255, 0, 255)", (255, 0, 255))):
            page.evaluate(f"() => document.body.style.background = '{colour}'")
            alpha = frame[:, :, 3:] / 255
            expected = frame[:, :, :3] * alpha + np.array(behind) * (1 - alpha)
            until = time.monotonic() + 20
            while True:  # on a busy machine a frame that is ready is shown later
                (tmp_path / "shot.png").write_bytes(page.screenshot())
                shown = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB")).astype(float)
                if np.abs(shown - expected).mean() <= 6 or time.monotonic() > until:
                    break
            assert np.abs(shown - expected)[[4, 32, 48], [4, 26, 8]].max() <= 16  # outside, half, opaque
            assert np.abs(shown - expected).mean() <= 6
