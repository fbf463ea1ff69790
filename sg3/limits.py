"""How much a file from outside may ask for: every limit of every reader, in one place.

Reading a file that nobody vouches for costs at most two seconds of one processor and 512 MB of memory beyond what its
own tensors or pixels take. The numbers here are chosen so that each reader keeps to that: what a thing at the limit
costs is noted beside it, and so is what real files have. Readers do not count for themselves where there is another
way: `check_unfolded` (formats) measures a pickle before anybody walks through it, `open_zip`, `Inflated` and
`parse_json` below stand between a reader and what would otherwise believe the file.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

from sg3.errors import DataError

# ---- pickles. A snapshot at 1024 x 1024 has 40,000 instructions, 170 records with 40,000 characters of source text
# each, which they share, names of 30 characters, 30 levels.
PICKLE_INSTRUCTIONS = 250_000  # 5 microseconds each, to scan, decode, measure and interpret
PICKLE_TEXT = 2**24  # characters in one string
NAME = 1_000  # characters in a dictionary's key, a name of the program's, a tensor's name
NESTING = 100  # levels
# What a pickle may be with everything in it that is shared written out: whoever walks through it visits no more.
VALUES = 250_000
TEXT = 2**26  # characters: strings, and the path of names to each value
SHARED = 2**25  # bytes of tensors and arrays beyond those that are in the file
SETTINGS = 1_000  # values among constructor arguments or training settings
SETTING_TEXT = 2**16  # characters in one of them

# ---- tensors and networks
DIMENSIONS = 8
REPEATED = 2**20  # elements of a view that shows fewer, such as one w expanded to all layers
TENSORS = 20_000  # in one file; real ones have up to 2,000
HEADER = 2**21  # bytes of a safetensors file's header; a snapshot's has 50,000
SPARE_ELEMENTS = 2**25  # what a constructor may make beside the tensors of the file: filters, temporaries; 128 MB
SPARE_TENSORS = 1_000  # and how many tensors, beside 8 for each one of the file
CLASSES = 1_000  # of layers that a pickle names
MEAN_OF_W = 3 * 2**32  # multiplications to estimate it; 8 layers of 512 and 4096 latents take 2**33
RESOLUTION = 2**13  # pixels; the largest published networks have 1024, experiments 4096
FEATURES = 2**14  # of a layer, a latent, a label
LAYERS = 64  # of a part of a network
MARGIN = 64  # pixels beyond the border of StyleGAN3's maps
TAPS = 64  # of a resampling filter along one axis; real ones have 4 to 12
STAGES = 12  # resolutions: 4 times powers of two up to RESOLUTION
# Constructor arguments that a file may ask for, by name: smallest and largest. They cost time or memory by themselves,
# at the latest when pictures are made. Other numbers may be up to OTHER_ARGUMENTS in size.
ARGUMENTS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("z_dim", "w_dim", "c_dim", "cmap_dim", "embed_features", "layer_features", "channel_max"),
                    (0, FEATURES)),
    "img_resolution": (4, RESOLUTION), "img_size": (1, RESOLUTION), "img_channels": (1, 64),
    "channel_base": (1, FEATURES * RESOLUTION),
    "num_layers": (0, LAYERS), "num_critical": (0, LAYERS), "num_fp16_res": (0, LAYERS), "margin_size": (0, MARGIN),
    "first_cutoff": (0.5, RESOLUTION), "first_stopband": (1, RESOLUTION), "last_stopband_rel": (1, 8),
    "conv_kernel": (1, 15), "filter_size": (1, 32), "lrelu_upsampling": (1, 4), "resample_filter": (-1e6, 1e6),
    "w_avg_beta": (0, 1), "magnitude_ema_beta": (0, 1), "freeze_layers": (0, 10 * LAYERS),
    "mbstd_group_size": (1, FEATURES), "mbstd_num_channels": (0, FEATURES),
    # FastGAN, projected discriminator
    "ngf": (1, FEATURES), "cout": (1, FEATURES), "ndf": (1, FEATURES), "num_discs": (1, 4), "proj_type": (0, 2),
    # R3GAN
    "NoiseDimension": (0, FEATURES), "WidthPerStage": (1, FEATURES), "CardinalityPerStage": (1, FEATURES),
    "BlocksPerStage": (1, LAYERS), "ExpansionFactor": (1, 64), "ConditionEmbeddingDimension": (0, FEATURES),
    "KernelSize": (1, 15), "ResamplingFilter": (-1e6, 1e6), "FP16Stages": (-LAYERS, LAYERS),
}  # fmt: skip
ARGUMENTS["length of img_size"] = (2, 2)
ARGUMENTS |= {f"length of {name}": (0, TAPS) for name in ("resample_filter", "ResamplingFilter")}
ARGUMENTS |= {f"length of {name}": (0, STAGES) for name in
              ("WidthPerStage", "CardinalityPerStage", "BlocksPerStage", "FP16Stages")}
OTHER_ARGUMENTS = 2**24

# ---- archives
WEIGHT_ENTRIES = 50_000  # in a zip file of torch.save, TorchScript or numpy; 5 microseconds each
TABLE_ENTRY = 46  # bytes that an entry of a zip file's table has at least, before its name
PICKLE_ENTRY = 2**26  # bytes of data.pkl in a torch.save file, which holds no tensor's elements

CIFAR = 2**28  # bytes of its archive, decompressed; the real one has 186 million
CIFAR_BATCH = 2**28  # bytes of all batches of images; CIFAR-10's 5 have 31 million each, CIFAR-100's has 155 million
TAR_MEMBERS = 1_000
IDX_IMAGES = 1_000_000
IDX = 2**31  # bytes, decompressed one image after the other as they are used; the largest, EMNIST, has 547 million

# ---- images and sets of them
PIXELS = 2**26  # in one image; cameras make up to 61 million
PIXELS_WEBP = 2**25  # its decoder keeps four copies
IMAGE_BYTES = 4 * PIXELS + 2**20  # of one file: four channels uncompressed, and room for metadata
SCANS = 200  # in a progressive JPEG; real ones have 10
SCANNED_PIXELS = 10 * PIXELS  # pixels times scans: 2 seconds
PIXELS_IN_FLIGHT = 2**26  # of all images being worked on at the same time, if they are several
IMAGES = 10_000_000  # in one set
DRAWN = 1024  # pixels along a side of an emoji; it is drawn at 8 times the size, which takes 256 MB
CLASSES_OF_IMAGES = 1_000_000  # a one-hot row of more than this is a mistake in the file
COMPRESSION = 200  # bytes for one in an entry of a zip file; bombs reach 1000, level-0 PNGs of photographs about 3
COMPRESSION_COUNTS_FROM = 2**20  # bytes; a smaller entry does no harm at any ratio
HASHED = 2**30  # bytes of one file in a folder, when its content is hashed
LMDB_MEMORY = 2**29  # bytes beyond the database's own, of the process that has it open
LMDB_SECONDS = 2  # of processor time to list the keys, and one more for each 64 MB of the database
LMDB_VALUE_SECONDS = 2  # to get one value
LATENTS = 2**24  # numbers among latents that are read from a file; 2,000 keyframes in W+ at 1024 x 1024
KEYFRAMES = 10_000  # points of a path that are read from a file
ARRAYS = 2**27  # bytes in an .npz or .npy that is read; a compressed one may describe any number
ARRAY_ENTRIES = 1_000

# ---- downloads
ADDRESS = 8_000  # characters
REDIRECTS = 10
DOWNLOAD = 2**34  # bytes of one file
DOWNLOAD_PATIENCE = 600.0  # seconds that every download has, beside those for DOWNLOAD_SPEED
DOWNLOAD_SPEED = 2**14  # bytes in a second, on average
DISK_RESERVE = 2**28  # bytes that have to be free while a file of unknown length comes

# ---- what one can ask for: more would fill the memory or the process table before anything could be said about it
GRID = 10_000  # images in one picture
FLOAT = 3.4e38  # of a number that meets tensors: float32 ends there, and PyTorch refuses what is beyond
BATCH = 100_000  # images in a step, and at a time
LOADERS = 256  # processes that load images
THREADS = 512
RANKS_PER_CPU = 4  # processes of a command without GPUs
MEASURED = 10_000_000  # images of a metric
NEIGHBOURS = 1_000
BLUR = 100  # pixels: its kernel has 6 times as many taps

# ---- files of runs
RUN_FILE = 2**28  # bytes of one that is read as a whole; statistics of 25,000 ticks have 50 million
OPTION_FILE = 2**20  # bytes
OPTION_NAME = 100  # characters

# ---- JSON
JSON = 2**26  # bytes; dataset.json of ImageNet has 45 million
JSON_MEMORY = 2**29  # bytes that the parsed document may take

PIECE = 2**18  # bytes that are read or decompressed at a time


def open_zip(source: Path | BinaryIO, entries: int, where: str) -> zipfile.ZipFile:
    """A zip file, opened for reading if its table has room for at most so many entries.

    zipfile makes an object of every entry before anybody can ask how many there are. Raises what zipfile raises, also
    for an entry that is nowhere in the file, and DataError, which begins with `where`, for more entries.
    """
    with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
        file.seek(0)
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # the very record that zipfile will go by
        file.seek(0)
    if end and end[5] > entries * TABLE_ENTRY:  # bytes of the table
        raise DataError(f"{where}: is a zip file with a table of {end[5]} bytes, more than any such file needs")
    archive = zipfile.ZipFile(source)
    if len(archive.filelist) > entries:
        archive.close()
        raise DataError(f"{where}: is a zip file of {len(archive.filelist)} entries, more than any such file needs")
    if any(not 0 <= entry.header_offset <= archive.start_dir for entry in archive.filelist):
        archive.close()  # going there would look like a failure of the disk
        raise zipfile.BadZipFile("an entry lies outside of the file")
    return archive


def image_entries(size: int) -> int:
    """How many entries a zip file of images may have that is so many bytes long: an image takes some hundred."""
    return min(100_000 + size // 256, IMAGES)


class Plain:
    """A file that is read from where it is, or skipped over."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, count: int) -> bytes:
        """So many bytes, or what is left of them."""
        return b"".join(self._pieces(count))

    def skip(self, count: int) -> None:
        """Go on behind so many bytes."""
        for _ in self._pieces(count):
            pass

    def _pieces(self, count: int) -> Iterator[bytes]:
        while count > 0 and (piece := self._file.read(min(count, PIECE))):
            count -= len(piece)
            yield piece


class Inflated(Plain):
    """A .gz file, decompressed as it is read, up to `most` bytes. Only its first member: more would be free of charge.

    `read` and `skip` raise ValueError if the file is damaged, cut short or larger.
    """

    def __init__(self, file: BinaryIO, most: int) -> None:
        super().__init__(file)
        self._most = most
        self._left = most
        self._decompressor = zlib.decompressobj(31)  # with gzip's header and checksum
        self._ready = memoryview(b"")

    def _pieces(self, count: int) -> Iterator[bytes]:
        while count > 0 and self._fill():
            piece = self._ready[:count]
            self._ready = self._ready[len(piece) :]
            count -= len(piece)
            yield bytes(piece)

    def _fill(self) -> bool:
        """Have something ready. False at the end."""
        while not self._ready and not self._decompressor.eof:
            data = self._decompressor.unconsumed_tail or self._file.read(PIECE)
            try:
                piece = self._decompressor.decompress(data, PIECE)
            except zlib.error as error:
                raise ValueError(error) from None
            if not data and not piece:
                raise ValueError("it is cut short")
            self._left -= len(piece)
            if self._left < 0:
                raise ValueError(f"it has more than {self._most} bytes")
            self._ready = memoryview(piece)
        return bool(self._ready)


def parse_json(data: bytes | str) -> Any:
    """A JSON document. Raises ValueError if it is none, or if it might take more memory than JSON_MEMORY.

    Three bytes can describe an object of 64, so the document's values are counted before anything is made of them.
    """
    if len(data) > JSON:
        raise ValueError(f"has {len(data)} bytes, more than {JSON}")

    def count(sign: str) -> int:
        return data.count(sign) if isinstance(data, str) else data.count(sign.encode())

    containers = count("[") + count("{")
    values = containers + count(",")
    if 3 * len(data) + 72 * containers + 57 * values + 200 * count(":") > JSON_MEMORY:
        raise ValueError(f"describes {values} values, which would take too much memory")
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def parse_shallow(data: bytes | str) -> Any:
    """A JSON document that can be walked through, calculated with and written again without care: of NESTING levels at
    most, and with whole numbers of 64 bits.

    Raises ValueError, also as `parse_json` does.
    """
    content = parse_json(data)
    level = [content]
    for _ in range(NESTING):
        if any(type(value) is int and not -(2**63) <= value < 2**64 for value in level):
            raise ValueError("holds a whole number of more than 64 bits")
        level = [inner for outer in level if isinstance(outer, (dict, list))
                 for inner in (outer.values() if isinstance(outer, dict) else outer)]  # fmt: skip
        if not level:
            return content
    raise ValueError(f"is nested more than {NESTING} levels deep")
