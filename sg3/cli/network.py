"""The generator that a command works with."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from sg3.cli.ranks import may_be_one_of_several
from sg3.published import require_there
from sg3.terminal import say

if TYPE_CHECKING:
    from sg3.canvas import Size
    from sg3.formats import Snapshot
    from sg3.models import Generator, StyleGenerator
    from sg3.tools.latent_as_w import Walkable
    from sg3.transparency import Colour


def require_network(network: str) -> None:
    """Raise MissingInputError for a name of nothing now, rather than after PyTorch's import, which takes seconds.

    Processes that torchrun or srun may have started find out together, so that one says so.
    """
    if not may_be_one_of_several():
        with suppress(OSError):  # a name that cannot be looked up: whoever reads it has words for that
            require_there(network)


def open_generator(network: str, device: str, class_idx: int | None = None) -> Generator:
    """The averaged generator of a network file, on the device named; says so if a class has no effect on it.

    Raises DataError for a file without one, UsageError for a device that is not there, and what `sg3.load` raises.
    """
    return open_framed(network, device, class_idx, bars=True)[0]


def open_framed(network: str, device: str, class_idx: int | None, bars: bool) -> tuple[Generator, Size | None]:
    """The same, and which part of its images to show: what lies between the black bars that it was trained with, unless
    `bars`; None for all of them."""
    from sg3.formats import averaged_generator

    snapshot = _loaded(network, device)
    G = averaged_generator(snapshot, network)
    _check_class(G, class_idx)
    return G, _visible(snapshot, G, bars)


def _visible(snapshot: Snapshot, G: Generator, bars: bool) -> Size | None:
    from sg3.canvas import shown_part, spelled
    from sg3.formats.snapshot import visible_part

    visible = None if bars else shown_part(G, visible_part(snapshot))
    if visible is not None:
        say(f"note: trained between black bars, which are cut off: {spelled(visible)} (--bars leaves them)")
    return visible


def open_walkable(
    network: str, device: str, class_idx: int | None = None, bars: bool = False
) -> tuple[Walkable, Size | None]:
    """The same for a walk through w, or through z where there is no w."""
    from sg3.models import StyleGenerator
    from sg3.tools.latent_as_w import LatentAsW

    G, visible = open_framed(network, device, class_idx, bars)
    if isinstance(G, StyleGenerator):
        return G, visible
    return LatentAsW(G).eval().to(next(G.parameters()).device), visible


def note_truncation(has_w: bool, truncation_psi: float) -> None:
    """Say so if --trunc has no effect."""
    if not has_w and truncation_psi != 1:
        say(f"note: --trunc={truncation_psi:g} has no effect, this network has no w to truncate")


def background_of(G: Generator | Walkable, text: str | None) -> Colour | None:
    """--background as a colour, if the network's images have alpha; says so if it has no effect. Raises UsageError."""
    from sg3.transparency import colour, has_alpha

    if text is None:
        return None
    background = colour(text)
    if not has_alpha(G.img_channels):
        say(f"note: --background={text} has no effect, the network's images have no alpha")
        return None
    return background


def open_style_generator(network: str, device: str, class_idx: int | None = None) -> StyleGenerator:
    """The same for commands that work in w. Raises UsageError also for a generator that has none."""
    return open_framed_style(network, device, class_idx, bars=True)[0]


def open_framed_style(
    network: str, device: str, class_idx: int | None, bars: bool
) -> tuple[StyleGenerator, Size | None]:
    """The same, and which part of its images to show, as `open_framed`."""
    from sg3.formats import style_generator

    snapshot = _loaded(network, device)
    G = style_generator(snapshot, network)
    _check_class(G, class_idx)
    return G, _visible(snapshot, G, bars)


def _loaded(network: str, device: str) -> Snapshot:
    """The snapshot; what of the file was not taken as it is, is said."""
    from sg3.device import device_for_work
    from sg3.formats import load

    snapshot = load(network, device_for_work(device))
    for note in snapshot.notes:
        say(f"note: {note}")
    return snapshot


def _check_class(G: Generator, class_idx: int | None) -> None:
    if G.c_dim == 0 and class_idx is not None:
        say(f"note: --class={class_idx} has no effect, the network is unconditional")
