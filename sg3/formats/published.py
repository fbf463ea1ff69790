"""The networks that NVIDIA published with StyleGAN3: short name -> address.

`stylegan3-r-afhqv2-512x512` is enough; the files are downloaded on first use (`sg3.formats.download`). They are
NVIDIA's, under a licence of their own.
"""

from __future__ import annotations

import difflib

_ADDRESS = "https://api.ngc.nvidia.com/v2/models/nvidia/research/{family}/versions/1/files/{name}.pkl"
_STYLEGAN3 = {  # dataset -> resolutions; each in configuration t and in r
    "ffhq": (1024,), "ffhqu": (1024, 256), "metfaces": (1024,), "metfacesu": (1024,), "afhqv2": (512,),
}  # fmt: skip
_STYLEGAN2 = {
    "ffhq": (1024, 512, 256), "ffhqu": (1024, 256), "metfaces": (1024,), "metfacesu": (1024,), "celebahq": (256,),
    "lsundog": (256,), "afhqcat": (512,), "afhqdog": (512,), "afhqwild": (512,), "afhqv2": (512,),
    "brecahad": (512,), "cifar10": (32,),
}  # fmt: skip


def published_names() -> list[str]:
    """All short names: StyleGAN3's first, t before r, then StyleGAN2's."""
    names = [f"stylegan3-{c}-{data}-{n}x{n}" for c in "tr" for data, sizes in _STYLEGAN3.items() for n in sizes]
    return names + [f"stylegan2-{data}-{n}x{n}" for data, sizes in _STYLEGAN2.items() for n in sizes]


def published_url(name: str) -> str | None:
    """Where the network of that short name lies; None if there is none of that name."""
    if name not in published_names():
        return None
    return _ADDRESS.format(family=name.partition("-")[0], name=name)


def closest(name: str) -> str | None:
    """The short name that was probably meant, for the message about an unknown one; None if nothing is near."""
    found = difflib.get_close_matches(name.lower().removesuffix(".pkl"), published_names(), n=1, cutoff=0.75)
    return found[0] if found else None
