"""Written videos, read back: size, length, colours; nothing half-done under the final name."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sg3.errors import MissingInputError, StorageError, UsageError
from sg3.tools.encode import encoder_name, even_size, open_output, output_kind

av = pytest.importorskip("av")


def frames(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Flat colours: red rises from frame to frame, green is constant, blue differs between left and right."""
    made = []
    for i in range(count):
        frame = np.zeros((height, width, 3), dtype=np.uint8)
        frame[..., 0], frame[..., 1] = 30 + 150 * i // max(count - 1, 1), 90
        frame[:, width // 2 :, 2] = 200
        made.append(frame)
    return made


def write(path: Path, pictures: Iterable[np.ndarray], **options) -> None:
    with open_output(path, **options) as add:
        for picture in pictures:
            add(picture)


def read(path: Path) -> tuple[list[np.ndarray], av.VideoStream, float]:
    """Frames, the stream's description, seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        pictures = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        return pictures, stream, container.duration / av.time_base


@pytest.mark.parametrize(
    ("name", "codec", "read_as"),
    [
        ("a.mp4", None, "h264"),
        ("a.MP4", "libx264", "h264"),
        ("a.mkv", None, "h264"),
        ("a.webm", None, "vp9"),
        ("a.webm", "libsvtav1", "av1"),
        ("a.mp4", "av1", "av1"),
        ("a.mp4", "libvpx-vp9", "vp9"),
        ("a.mp4", "mpeg4", "mpeg4"),
    ],
)
def test_video_files(tmp_path: Path, name: str, codec: str | None, read_as: str, capfd) -> None:
    path = tmp_path / name
    pictures = frames(12, 64, 64)
    write(path, pictures, fps=24, codec=codec, comment="a remark")
    got, stream, seconds = read(path)
    assert len(got) == 12
    assert stream.codec_context.codec.canonical_name == read_as
    assert (stream.codec_context.width, stream.codec_context.height) == (64, 64)
    assert stream.average_rate == 24
    assert seconds == pytest.approx(0.5, abs=0.01)
    for a, b in zip(pictures, got, strict=True):
        assert np.abs(a.astype(int) - b)[:, [8, 56]].max() <= 8  # lossy, but neither colours nor order may change
    assert stream.codec_context.colorspace == 1  # BT.709
    with av.open(str(path)) as container:
        assert {k.lower(): v for k, v in container.metadata.items()}["comment"] == "a remark"
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert capfd.readouterr().err == ""


def test_the_same_frames_give_the_same_file(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write(tmp_path / name, frames(20))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_bitrate(tmp_path: Path) -> None:
    noise = list(np.random.RandomState(0).randint(0, 256, (30, 64, 64, 3), dtype=np.uint8))
    for rate in (200_000, 4_000_000):
        write(tmp_path / f"{rate}.mp4", noise, bitrate=rate)
    assert (tmp_path / "200000.mp4").stat().st_size * 2 < (tmp_path / "4000000.mp4").stat().st_size


def test_odd_sizes_repeat_the_last_row_and_column(tmp_path: Path) -> None:
    assert even_size(33, 50) == (34, 50)
    write(tmp_path / "odd.mp4", frames(3, 33, 51))
    got, _, _ = read(tmp_path / "odd.mp4")
    assert got[0].shape == (34, 52, 3)
    assert np.abs(got[0][33].astype(int) - got[0][32]).max() <= 4


def test_png_sequences(tmp_path: Path) -> None:
    pictures = frames(3, 5, 7)
    write(tmp_path / "new" / "folder", pictures, comment="a remark")
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == ["00000.png", "00001.png", "00002.png"]
    image = Image.open(tmp_path / "new" / "folder" / "00002.png")
    assert np.array_equal(np.asarray(image), pictures[2])
    assert image.text["sg3"] == "a remark"
    write(tmp_path / "walk%03d.png", pictures)
    assert (tmp_path / "walk002.png").is_file()
    with pytest.raises(UsageError, match=r"has frames already \(00000.png"):
        write(tmp_path / "new" / "folder", pictures[:1])


def test_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = frames(4, 5, 7)
    write(tmp_path / "sheet.png", pictures)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "sheet.png")), np.concatenate(pictures, axis=1))
    monkeypatch.setattr("sg3.tools.encode.SHEET_WIDTH", 2 * pictures[0].shape[1] + 1)
    write(tmp_path / "wrapped.png", pictures[:3])
    lines = [np.concatenate(pair, axis=1) for pair in (pictures[:2], [pictures[2], np.zeros_like(pictures[2])])]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "wrapped.png")), np.concatenate(lines, axis=0))
    monkeypatch.undo()
    monkeypatch.setattr("sg3.tools.encode.MAX_SHEET_PIXELS", 100)
    with pytest.raises(UsageError, match="too many frames for one picture"):
        write(tmp_path / "big.png", pictures)
    assert not (tmp_path / "big.png").exists()


@pytest.mark.parametrize("name", ["a.mp4", "a.png"])
def test_nothing_is_left_of_an_interrupted_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"before")

    def interrupted() -> Iterator[np.ndarray]:
        yield from frames(100)  # more than the encoder looks ahead, so that something has been written
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / name, interrupted())
    assert (tmp_path / name).read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.mp4", "video"), ("b/a.webm", "video"), ("a.MKV", "video"), ("a", "frames"), ("a/%05d.png", "frames"),
     ("%d.png", "frames"), ("a.png", "sheet")],
)  # fmt: skip
def test_the_name_says_what_is_written(name: str, kind: str) -> None:
    assert output_kind(Path(name)) == kind


def test_wrong_names(tmp_path: Path) -> None:
    for name in ("a.gif", "a.mp3"):
        with pytest.raises(UsageError, match=r"expected \.mp4, \.webm or \.mkv"):
            output_kind(Path(name))
    for name in ("%s.png", "%05d%d.png", "%05d.jpg", "%5x.png"):
        with pytest.raises(UsageError, match=r"looks like frame%05d\.png"):
            output_kind(Path(name))
    (tmp_path / "v1.2").mkdir()
    assert output_kind(tmp_path / "v1.2") == "frames"


def test_wrong_codecs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--codec=divx: no video encoder of this PyAV; there is .*libx264"):
        encoder_name(Path("a.mp4"), "divx")
    with pytest.raises(UsageError, match="--codec=aac: no video encoder"):
        encoder_name(Path("a.mp4"), "aac")
    with pytest.raises(UsageError, match=r"--codec=libx264: \.webm cannot hold it; choose libvpx-vp9"):
        encoder_name(Path("a.webm"), "libx264")
    assert encoder_name(Path("a.mp4"), "av1") == "libsvtav1"
    with pytest.raises(UsageError, match="--codec=h264_nvenc: does not start for 16x16 on this machine"):
        write(tmp_path / "a.mp4", frames(1, 16, 16), codec="h264_nvenc")  # too small even where there is a GPU
    assert not any(tmp_path.iterdir())


def test_without_an_encoder_for_it_the_default_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    from sg3.tools import encode

    def lacking(names: set[str]):
        return lambda _av, name: None if name in names else av.Codec("mpeg4", "w")

    monkeypatch.setattr(encode, "_encoder", lacking({"libx264"}))
    assert encoder_name(Path("a.mp4"), None) == "mpeg4"
    monkeypatch.setattr(encode, "_encoder", lacking(set(encode.CODECS)))
    with pytest.raises(UsageError, match="no encoder for it; try"):
        encoder_name(Path("a.webm"), None)


def test_failures_are_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for name in ("file/a.mp4", "file/a%d.png", "file/a.png"):
        with pytest.raises(StorageError, match="file: this folder cannot be made"):
            write(tmp_path / name, frames(1))
    with pytest.raises(UsageError, match="no frames to write"):
        write(tmp_path / "none.mp4", [])
    for name in ("mixed.mp4", "mixed.png", "mixed"):
        with pytest.raises(ValueError, match="all of one size"):
            write(tmp_path / name, [*frames(1), *frames(1, 50)])
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingInputError, match=r"pip install 'sg3\[video\]'"):
        write(tmp_path / "a.mp4", frames(1))
