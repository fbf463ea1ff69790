"""Writing frames as they come: to a video file (PyAV), to numbered PNGs, or side by side into one PNG.

    with open_output("walk.mp4", fps=60) as add:
        for frame in frames:        # uint8 [H, W, 3], or [H, W, 4] with straight alpha
            add(frame)

A file appears under its name when it is complete; whatever ends the writing early leaves nothing, or of a sequence
the PNGs so far. Only the sheet, which is one picture, keeps its frames until the end.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sg3.atomic import sync_folder
from sg3.errors import MissingInputError, StorageError, UsageError
from sg3.extras import install
from sg3.tools.files import make_folder, write_png
from sg3.transparency import extended

if TYPE_CHECKING:
    import av
    from av.container import OutputContainer
    from av.video.stream import VideoStream

AddFrame = Callable[[np.ndarray], None]

# suffix -> FFmpeg's name
CONTAINERS = {".mp4": "mp4", ".webm": "webm", ".mkv": "matroska", ".mov": "mov", ".apng": "apng"}
CODECS = ("libx264", "libvpx-vp9", "libsvtav1", "h264_nvenc", "hevc_nvenc", "av1_nvenc", "mpeg4", "prores_ks", "apng")
# What a container of FFmpeg's name can hold; .mp4 and .mkv about anything but APNG, which only its own can.
HOLDS = {"webm": ("vp8", "vp9", "av1"), "mov": ("h264", "hevc", "mpeg4", "prores"), "apng": ("apng",)}
PREFERRED = {"webm": ("libvpx-vp9",), "apng": ("apng",)}
ALPHA = {"webm": "libvpx-vp9", "matroska": "libvpx-vp9", "mov": "prores_ks", "apng": "apng"}  # the encoder with alpha
PIXELS = {"prores_ks": "yuv422p10le", "apng": "rgb24"}  # pixel formats; all others have yuv420p
PIXELS_WITH_ALPHA = {"libvpx-vp9": "yuva420p", "prores_ks": "yuva444p10le", "apng": "rgba"}
BT709, LIMITED_RANGE = 1, 1  # FFmpeg's numbers for colour matrix, primaries and transfer, and for 16..235
MAX_SHEET_PIXELS = 2**27  # about what viewers and Pillow open without protest
SHEET_WIDTH = 4096  # pixels; a line of a sheet has one frame at least


def output_kind(path: Path) -> str:
    """What `open_output` will write: 'video', 'frames' (a folder or a name with %05d) or 'sheet' (one PNG).

    Raises UsageError for anything else.
    """
    if "%" in path.name:
        if re.fullmatch(r"[^%]*%0?\d?d[^%]*\.png", path.name) is None:
            raise UsageError(f"--output={path}: a name for numbered frames looks like frame%05d.png")
        return "frames"
    if path.suffix.lower() in CONTAINERS:
        return "video"
    if path.suffix.lower() == ".png":
        return "sheet"
    if path.is_dir() or not path.suffix:
        return "frames"
    raise UsageError(
        f"--output={path}: expected .mp4, .webm or .mkv (or .mov, .apng), or for PNGs a folder, %05d.png or one .png"
    )


def open_output(
    path: Path, *, fps: float = 60, codec: str | None = None, bitrate: int = 12_000_000, comment: str = ""
) -> AbstractContextManager[AddFrame]:
    """A context that yields `add(frame)` for uint8 frames [H, W, 3], or with straight alpha [H, W, 4], all of one size.

    By the name (see `output_kind`) it is a `video_file`, a `png_sequence` or a `png_sheet`. `comment` goes into the
    file's metadata. Raises UsageError for a name or codec that cannot be written, MissingInputError without PyAV,
    StorageError if writing fails.
    """
    kind = output_kind(path)
    if kind == "video":
        return video_file(path, fps=fps, codec=codec, bitrate=bitrate, comment=comment)
    if kind == "frames":
        return png_sequence(path, comment=comment)
    return png_sheet(path, comment=comment)


def encoder_name(path: Path, codec: str | None, transparent: bool = False) -> str:
    """The encoder for a video file: `codec`, or a default that suits the container and this build of FFmpeg.

    The default is libx264 (mpeg4 in a build without it), libvpx-vp9 for .webm, and the one that keeps alpha for frames
    that have it. Raises UsageError for an encoder that is unknown, not for video or not allowed in the container, and
    where alpha would be lost.
    """
    av = _import_av()
    container = CONTAINERS[path.suffix.lower()]
    holds = HOLDS.get(container)
    present = [name for name in CODECS if (encoder := _encoder(av, name)) is not None and (
        encoder.canonical_name in holds if holds else name != "apng")]  # fmt: skip
    if codec is not None:
        found = _encoder(av, codec)
        if found is None:
            raise UsageError(f"--codec={codec}: no video encoder of this PyAV; there is {', '.join(present)}")
        if holds and found.canonical_name not in holds:
            choice = " or ".join(present)
            raise UsageError(f"--codec={codec}: {path.suffix} cannot hold it; choose {choice}, or an .mp4")
        codec = found.name
    if transparent and (container not in ALPHA or codec not in (None, ALPHA[container])):
        what = f"--output={path}: {path.suffix}" if container not in ALPHA else f"--codec={codec}"
        raise UsageError(
            f"{what} cannot hold the alpha of these images; name a .webm, .mov or .apng (without --codec) or a folder "
            "for PNGs, or lay the images on a colour with --background=white"
        )
    if codec is not None:
        return codec
    preferred = (ALPHA[container],) if transparent else PREFERRED.get(container, ("libx264", "mpeg4"))
    if not present or (transparent and preferred[0] not in present):
        raise UsageError(f"--output={path}: this build of PyAV has no encoder for it; try .mp4 or a folder of PNGs")
    return next((name for name in preferred if name in present), present[0])


@contextmanager
def video_file(
    path: Path, *, fps: float = 60, codec: str | None = None, bitrate: int = 12_000_000, comment: str = ""
) -> Iterator[AddFrame]:
    """Encode frames at `fps` per second and about `bitrate` bits per second, 4:2:0, in BT.709 colours; ProRes has more
    colour, and APNG is lossless.

    Such video has even sides: an odd one gets its last row or column twice (`even_size` tells the result).
    """
    av = _import_av()
    if encoder_name(path, codec) == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # errors only: the library writes a page to stderr otherwise
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        make_folder(path.parent)
        options = {"movflags": "+faststart+use_metadata_tags"} if path.suffix.lower() in (".mp4", ".mov") else {}
        if path.suffix.lower() == ".apng":
            options = {"plays": "0"}  # without end
        with av.open(str(temporary), "w", format=CONTAINERS[path.suffix.lower()], options=options) as container:
            if comment:
                container.metadata["comment"] = comment
            video = _Encoding(container, path, codec, fps, bitrate)
            yield video.add
            video.finish(path)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, (OSError, av.FFmpegError)):
            raise StorageError(f"{path}: cannot be written: {error.strerror or error}") from error
        raise
    sync_folder(path.parent)


class _Encoding:
    """The one stream of a container; its size is that of the first frame."""

    def __init__(
        self, container: OutputContainer, path: Path, codec: str | None, fps: float, bitrate: int
    ) -> None:
        self._container = container
        self._path = path
        self._codec = codec
        self._format = ""
        self._fps = Fraction(fps).limit_denominator(1001)
        self._bitrate = bitrate
        self._stream: VideoStream | None = None
        self._shape: tuple[int, ...] = ()

    def add(self, frame: np.ndarray) -> None:
        import av
        from av.video.reformatter import Colorspace

        stream = self._stream or self._start(frame)
        _check(frame, self._shape)
        height, width = stream.height, stream.width
        frame = np.pad(frame, ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)), mode="edge")
        transparent = frame.shape[2] == 4
        lossless = self._format.startswith("rgb")
        if transparent and not lossless:  # or colours that do not show would come through at the edges
            frame = extended(frame)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgba" if transparent else "rgb24")
        if not lossless:
            picture = picture.reformat(
                format=self._format, dst_colorspace=Colorspace.ITU709, dst_color_range=LIMITED_RANGE
            )
        self._container.mux(stream.encode(picture))

    def finish(self, path: Path) -> None:
        if self._stream is None:
            raise UsageError(f"--output={path}: there are no frames to write")
        self._container.mux(self._stream.encode(None))

    def _start(self, frame: np.ndarray) -> VideoStream:
        import av

        self._shape = frame.shape
        transparent = frame.shape[2] == 4
        encoder = encoder_name(self._path, self._codec, transparent)
        self._format = PIXELS_WITH_ALPHA[encoder] if transparent else PIXELS.get(encoder, "yuv420p")
        # Reference frames that are not shown would lose their alpha.
        options = {"auto-alt-ref": "0"} if transparent and encoder == "libvpx-vp9" else {}
        stream = self._container.add_stream(encoder, rate=self._fps, options=options)
        assert isinstance(stream, av.VideoStream)
        lossless = self._format.startswith("rgb")
        stream.height, stream.width = frame.shape[:2] if lossless else even_size(*frame.shape[:2])
        stream.pix_fmt = self._format
        stream.bit_rate = self._bitrate
        context = stream.codec_context
        if not lossless:
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = LIMITED_RANGE
        try:
            context.open()
        except (av.FFmpegError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            size = f"{stream.width}x{stream.height}"
            raise UsageError(
                f"--codec={encoder}: does not start for {size} on this machine ({reason}); sizes are limited, "
                "and nvenc needs its GPU; try another codec or PNGs"
            ) from error
        self._stream = stream
        return stream


@contextmanager
def png_sequence(path: Path, *, comment: str = "") -> Iterator[AddFrame]:
    """Write each frame as a PNG: `path` is a folder, for 00000.png and so on, or a name such as a/frame%05d.png.

    Raises UsageError if there are such files already: those of a longer sequence would stay and mix with these.
    """
    folder, pattern = (path.parent, path.name) if "%" in path.name else (path, "%05d.png")
    before, after = re.split(r"%0?\d?d", pattern)
    if folder.is_dir():
        numbered = re.compile(re.escape(before) + r"\d+" + re.escape(after))
        present = sorted(p.name for p in folder.iterdir() if numbered.fullmatch(p.name))
        if present:
            raise UsageError(f"--output={path}: has frames already ({present[0]}, ...); delete them, or name another")
    make_folder(folder)
    count = 0
    shape: tuple[int, ...] = ()

    def add(frame: np.ndarray) -> None:
        nonlocal count, shape
        shape = shape or frame.shape
        _check(frame, shape)
        write_png(folder / (pattern % count), frame, comment)
        count += 1

    yield add


@contextmanager
def png_sheet(path: Path, *, comment: str = "") -> Iterator[AddFrame]:
    """Lay all frames side by side, from left to right, in one PNG; in several lines of SHEET_WIDTH pixels if there are
    so many, the last of which black frames fill up."""
    kept: list[np.ndarray] = []
    pixels = 0

    def add(frame: np.ndarray) -> None:
        nonlocal pixels
        pixels += frame.shape[0] * frame.shape[1]
        if pixels > MAX_SHEET_PIXELS:
            raise UsageError(f"--output={path}: too many frames for one picture; name a folder or a video instead")
        _check(frame, kept[0].shape if kept else frame.shape)
        kept.append(frame)

    yield add
    if not kept:
        raise UsageError(f"--output={path}: there are no frames to write")
    make_folder(path.parent)
    columns = min(len(kept), max(1, SHEET_WIDTH // kept[0].shape[1]))
    kept += [np.zeros_like(kept[0])] * (-len(kept) % columns)
    lines = [np.concatenate(kept[start : start + columns], axis=1) for start in range(0, len(kept), columns)]
    write_png(path, np.concatenate(lines, axis=0), comment)


def even_size(height: int, width: int) -> tuple[int, int]:
    """The size of a video of such frames."""
    return height + height % 2, width + width % 2


def _check(frame: np.ndarray, shape: tuple[int, ...]) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] not in (3, 4) or frame.shape != shape:
        raise ValueError(
            f"frame: got {frame.dtype} {list(frame.shape)}, expected uint8 [H, W, 3 or 4], all of one size"
        )


def _import_av() -> Any:
    try:
        import av
    except ImportError:
        message = f"--output: writing videos needs PyAV: {install('video')}; or name a folder, for PNGs"
        raise MissingInputError(message) from None
    return av


def _encoder(av: Any, name: str) -> av.Codec | None:
    """The encoder of this name, if this build has it and it makes video."""
    try:
        codec = av.Codec(name, "w")
    except av.codec.codec.UnknownCodecError:
        return None
    return codec if codec.type == "video" else None
