"""sg3: StyleGAN2 and 3, Projected GAN, FastGAN and R3GAN on Triton kernels.

`sg3.load(path)` reads a network file, `sg3.save(snapshot, path)` writes one. Importing the package is cheap: torch
is imported only when one of them is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sg3._version import __version__

if TYPE_CHECKING:
    from sg3.formats import Snapshot as Snapshot
    from sg3.formats import load as load
    from sg3.formats import save as save

__all__ = ["Snapshot", "__version__", "load", "save"]


def __getattr__(name: str) -> Any:
    if name in ("Snapshot", "load", "save"):
        import sg3.formats

        return getattr(sg3.formats, name)
    raise AttributeError(f"module 'sg3' has no attribute {name!r}")
