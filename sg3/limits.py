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
from typing import Any, BinaryIO

from sg3.errors import DataError

# ---- pickles. A snapshot at 1024 x 1024 has 40,000 instructions, 170 records with 40,000 characters of source text
# each, which they share, names of 30 characters, 30 levels.
PICKLE_INSTRUCTIONS = 400_000  # 3 microseconds each, to scan, decode and measure
PICKLE_TEXT = 2**24  # characters in one string
NAME = 1_000  # characters in a dictionary's key, a name of the program's, a tensor's name
NESTING = 100  # levels
# What a pickle may be with everything in it that is shared written out: whoever walks through it visits no more.
VALUES = 400_000
TEXT = 2**26  # characters: strings, and the path of names to each value
SHARED = 2**25  # bytes of tensors and arrays beyond those that are in the file
SETTINGS = 1_000  # values among constructor arguments or training settings
SETTING_TEXT = 2**16  # characters in one of them

# ---- tensors and networks
DIMENSIONS = 8
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
    "img_resolution": (4, RESOLUTION), "img_channels": (1, 64), "channel_base": (1, FEATURES * RESOLUTION),
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
ARGUMENTS |= {f"length of {name}": (0, TAPS) for name in ("resample_filter", "ResamplingFilter")}
ARGUMENTS |= {f"length of {name}": (0, STAGES) for name in
              ("WidthPerStage", "CardinalityPerStage", "BlocksPerStage", "FP16Stages")}
OTHER_ARGUMENTS = 2**24

# ---- archives
WEIGHT_ENTRIES = 50_000  # in a zip file of torch.save, TorchScript or numpy; 5 microseconds each
TABLE_ENTRY = 46  # bytes that an entry of a zip file's table has at least, before its name
PICKLE_ENTRY = 2**26  # bytes of data.pkl in a torch.save file, which holds no tensor's elements

# ---- JSON
JSON = 2**26  # bytes; dataset.json of ImageNet has 45 million
JSON_MEMORY = 2**29  # bytes that the parsed document may take


def open_zip(file: BinaryIO, entries: int, where: str) -> zipfile.ZipFile:
    """A zip file, opened for reading if its table has room for at most so many entries.

    zipfile makes an object of every entry before anybody can ask how many there are. Raises what zipfile raises, and
    DataError, which begins with `where`, for more entries.
    """
    file.seek(0)
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # the very record that zipfile will go by
    if end and end[5] > entries * TABLE_ENTRY:  # bytes of the table
        raise DataError(f"{where}: is a zip file with a table of {end[5]} bytes, more than any such file needs")
    file.seek(0)
    archive = zipfile.ZipFile(file)
    if len(archive.NameToInfo) > entries:
        archive.close()
        raise DataError(f"{where}: is a zip file of {len(archive.NameToInfo)} entries, more than any such file needs")
    return archive


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
    if 3 * len(data) + 72 * containers + 57 * values > JSON_MEMORY:
        raise ValueError(f"describes {values} values, which would take too much memory")
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
