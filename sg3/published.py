"""Networks that others have published: short name -> address.

`stylegan3-r-afhqv2-512x512` is enough; the files are downloaded on first use (`sg3.formats.download`). NVIDIA's are
those of StyleGAN3's and StyleGAN2's pages, mmagic's those of its model zoo's two pages, under licences of their own.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from sg3.errors import MissingInputError

_NVIDIA = "https://api.ngc.nvidia.com/v2/models/nvidia/research/{family}/versions/1/files/{name}.pkl"
_STYLEGAN3 = {  # dataset -> resolutions; each in configuration t and in r
    "ffhq": (1024,), "ffhqu": (1024, 256), "metfaces": (1024,), "metfacesu": (1024,), "afhqv2": (512,),
}  # fmt: skip
_STYLEGAN2 = {
    "ffhq": (1024, 512, 256), "ffhqu": (1024, 256), "metfaces": (1024,), "metfacesu": (1024,), "celebahq": (256,),
    "lsundog": (256,), "afhqcat": (512,), "afhqdog": (512,), "afhqwild": (512,), "afhqv2": (512,),
    "brecahad": (512,), "cifar10": (32,),
}  # fmt: skip

_MMAGIC = "https://download.openmmlab.com/mmediting/"
_MMAGIC_FILES = {  # short name -> file there
    "mmagic-stylegan2-car":
        "stylegan2/official_weights/stylegan2-car-config-f-official_20210327_172340-8cfe053c.pth",
    "mmagic-stylegan2-cat":
        "stylegan2/official_weights/stylegan2-cat-config-f-official_20210327_172444-15bc485b.pth",
    "mmagic-stylegan2-church":
        "stylegan2/official_weights/stylegan2-church-config-f-official_20210327_172657-1d42b7d1.pth",
    "mmagic-stylegan2-ffhq":
        "stylegan2/official_weights/stylegan2-ffhq-config-f-official_20210327_171224-bce9310c.pth",
    "mmagic-stylegan2-horse":
        "stylegan2/official_weights/stylegan2-horse-config-f-official_20210327_173203-ef3e69ca.pth",
    "mmagic-stylegan2-apex-ffhq-256":
        "stylegan2/stylegan2_c2_apex_fp16_PL-R1-no-scaler_ffhq_256_b4x8_800k_20210508_114701-c2bb8afd.pth",
    "mmagic-stylegan2-ffhq-1024":
        "stylegan2/stylegan2_c2_ffhq_1024_b4x8_20210407_150045-618c9024.pth",
    "mmagic-stylegan2-ffhq-256":
        "stylegan2/stylegan2_c2_ffhq_256_b4x8_20210407_160709-7890ae1f.pth",
    "mmagic-stylegan2-globalg-partiald-ffhq-256":
        "stylegan2/stylegan2_c2_fp16-globalG-partialD_PL-R1-no-scaler_ffhq_256_b4x8_800k_20210508_114930-ef8270d4.pth",
    "mmagic-stylegan2-partial-gd-ffhq-256":
        "stylegan2/stylegan2_c2_fp16_partial-GD_PL-no-scaler_ffhq_256_b4x8_800k_20210508_114854-dacbe4c9.pth",
    "mmagic-stylegan2-lsun-car-384x512":
        "stylegan2/stylegan2_c2_lsun-car_384x512_b4x8_1800k_20210424_160929-fc9072ca.pth",
    "mmagic-stylegan3-r-afhqv2-512":
        "stylegan3/stylegan3_r_afhqv2_512_b4x8_cvt_official_rgb_20220329_234829-f2eaca72.pth",
    "mmagic-stylegan3-r-ffhq-1024":
        "stylegan3/stylegan3_r_ffhq_1024_b4x8_cvt_official_rgb_20220329_234933-ac0500a1.pth",
    "mmagic-stylegan3-r-ffhqu-256":
        "stylegan3/stylegan3_r_ffhqu_256_b4x8_cvt_official_rgb_20220329_234909-4521d963.pth",
    "mmagic-stylegan3-t-ada-metfaces-1024":
        "stylegan3/stylegan3_t_ada_fp16_gamma6.6_metfaces_1024_b4x8_best_fid_iter_130000_20220401_115101-f2ef498e.pth",
    "mmagic-stylegan3-t-afhqv2-512":
        "stylegan3/stylegan3_t_afhqv2_512_b4x8_cvt_official_rgb_20220329_235017-ee6b037a.pth",
    "mmagic-stylegan3-t-ffhq-1024":
        "stylegan3/stylegan3_t_ffhq_1024_b4x8_cvt_official_rgb_20220329_235113-db6c6580.pth",
    "mmagic-stylegan3-t-ffhqu-256":
        "stylegan3/stylegan3_t_ffhqu_256_b4x8_cvt_official_rgb_20220329_235046-153df4c8.pth",
    "mmagic-stylegan3-t-noaug-ffhq-256":
        "stylegan3/stylegan3_t_noaug_fp16_gamma2.0_ffhq_256_b4x8_best_fid_iter_740000_20220401_122456-730e1fba.pth",
    "mmagic-stylegan3-t-noaug-ffhq-1024":
        "stylegan3/stylegan3_t_noaug_fp16_gamma32.8_ffhq_1024_b4x8_best_fid_iter_490000_20220401_120733-4ff83434.pth",
}

TERMS = {  # what is known of the terms; the pages say more
    "nvidia": "NVIDIA Source Code License, non-commercial",
    "converted": "as NVIDIA's, of whose networks it is a conversion",
    "mmagic": "not stated; mmagic itself is Apache-2.0",
}


@dataclass(frozen=True)
class Published:
    """A network, where it lies, and who says under which terms."""

    name: str
    url: str
    by: str
    terms: str


def published() -> dict[str, Published]:
    """All of them by short name: StyleGAN3's first, t before r, then StyleGAN2's, then mmagic's."""
    names = [f"stylegan3-{c}-{data}-{n}x{n}" for c in "tr" for data, sizes in _STYLEGAN3.items() for n in sizes]
    names += [f"stylegan2-{data}-{n}x{n}" for data, sizes in _STYLEGAN2.items() for n in sizes]
    found = [
        Published(name, _NVIDIA.format(family=name.partition("-")[0], name=name), "NVIDIA", TERMS["nvidia"])
        for name in names
    ]
    found += [
        Published(name, _MMAGIC + file, "mmagic", TERMS["converted" if "official" in file else "mmagic"])
        for name, file in _MMAGIC_FILES.items()
    ]
    return {network.name: network for network in found}


def published_names() -> list[str]:
    """All short names, in the order of `published`."""
    return list(published())


def published_url(name: str) -> str | None:
    """Where the network of that short name lies; None if there is none of that name."""
    found = published().get(name)
    return None if found is None else found.url


def closest(name: str) -> str | None:
    """The short name that was probably meant, for the message about an unknown one; None if nothing is near."""
    found = difflib.get_close_matches(name.lower().removesuffix(".pkl"), published_names(), n=1, cutoff=0.75)
    return found[0] if found else None


def is_remote(source: str | os.PathLike[str]) -> bool:
    """Whether `sg3.load` would download this: an address (hf://, too), or the short name of a published network that is
    no file."""
    if re.match("[a-z]+://", str(source)):
        return True
    return published_url(str(source)) is not None and not Path(source).exists()


def require_there(source: str | os.PathLike[str]) -> None:
    """Raise MissingInputError for what is neither here nor remote; it names a published network if one is meant."""
    if not Path(source).exists() and not is_remote(source):
        meant = closest(str(source))
        hint = f"; did you mean the published network {meant}?" if meant else ""
        raise MissingInputError(f"{Path(source)}: there is no such file{hint}")
