"""Starting from another network's weights (`--resume`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from sg3.errors import DataError
from sg3.formats import Snapshot, load
from sg3.train.transfer_alpha import adds_alpha, with_alpha

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Match:
    """What one of a run's networks has in common with its namesake in a snapshot: `source` and `target` by name, where
    names and shapes are the same, or where StyleGAN2's constant was `stretched` for images of another shape. `share`
    is that of the network's numbers, 0 to 1."""

    network: str
    source: Tensors | None  # None: the snapshot has no such network
    target: Tensors
    stretched: list[str]
    reshaped: list[str]
    missing: list[str]
    share: float
    adds_alpha: bool  # the snapshot's images are opaque, these have alpha

    def line(self, path: str) -> str:
        """What is copied and what is not."""
        if self.source is None:
            return f"{self.network}: {path} has none, starting from random weights"
        count = len(self.target) + len(self.reshaped) + len(self.missing)
        line = f"{self.network}: {len(self.target)} of {count} tensors copied from {path}"
        lists = {"of these stretched": self.stretched, "of another shape": self.reshaped, "missing there": self.missing}
        for what, names in lists.items():
            if names:
                line += f"; {len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        if self.adds_alpha:
            begins = "D does not look at alpha yet" if self.network == "D" else "its pictures are opaque at first"
            line += f"; made there for images without alpha: {begins}"
        return line


def matches(path: str, networks: Mapping[str, nn.Module], least: float) -> tuple[list[Match], list[str]]:
    """What the snapshot at `path` has of G, D and G_ema, and, a line each, what of the file was not taken as it is; the
    networks may be on the meta device.

    Raises DataError if that is less than a share `least` of G's numbers, or if they are not all finite, and what
    `sg3.load` raises.
    """
    snapshot = load(path)
    found = [_match(name, _source(snapshot, name), target) for name, target in networks.items()]
    share = next((match.share for match in found if match.network == "G"), 0.0)
    if share < least:
        raise DataError(
            f"--resume={path}: has {share:.0%} of the numbers of this run's G; check --cfg, --data and its size "
            f"(--resume-least={share // 0.01 / 100:g} takes what there is)"
        )
    for match in found:
        for name in match.target:
            if match.source is not None and not bool(match.source[name].isfinite().all()):
                raise DataError(f"--resume={path}: {match.network}: {name} has NaN or infinite numbers; take another")
    return found, [f"note: {note}" for note in snapshot.notes]


@torch.no_grad()
def transfer_weights(path: str, networks: Mapping[str, nn.Module], least: float) -> list[str]:
    """Copy every tensor that the snapshot's G, D and G_ema share with `networks` by name and shape.

    Returns one line per network saying what was copied and what was not, and the file's notes. Raises what `matches`
    raises.
    """
    found, notes = matches(path, networks, least)
    for match in found:
        for name, tensor in match.target.items():
            assert match.source is not None
            tensor.copy_(match.source[name])
    return [*(match.line(path) for match in found), *notes]


def _source(snapshot: Snapshot, name: str) -> nn.Module | None:
    """That network; of a file with one generator, G and G_ema both begin as it."""
    source: nn.Module | None = getattr(snapshot, name)
    other: dict[str, nn.Module | None] = {"G": snapshot.G_ema, "G_ema": snapshot.G}
    return other.get(name) if source is None else source


def _match(name: str, source: nn.Module | None, target: nn.Module) -> Match:
    # Filters are designed for a resolution, not learnt.
    ours = {key: tensor for key, tensor in _tensors(target).items() if not key.endswith("_filter")}
    theirs = {} if source is None else _tensors(source)
    added = source is not None and adds_alpha(source, target)
    if source is not None and added:
        theirs = with_alpha(theirs, source, target)
    stretched = {key: _stretched(theirs[key], tensor) for key, tensor in ours.items()
                 if key.endswith("b4.const") and key in theirs and theirs[key].shape != tensor.shape
                 and theirs[key].shape[0] == tensor.shape[0]}  # fmt: skip
    theirs |= stretched
    same = {key: tensor for key, tensor in ours.items() if key in theirs and theirs[key].shape == tensor.shape}
    total = sum(tensor.numel() for tensor in ours.values())
    return Match(
        network=name,
        source=None if source is None else {key: theirs[key] for key in same},
        target=same,
        stretched=list(stretched),
        reshaped=[key for key in ours if key in theirs and key not in same],
        missing=[key for key in ours if key not in theirs],
        share=sum(tensor.numel() for tensor in same.values()) / max(total, 1),
        adds_alpha=added,
    )


def _stretched(constant: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """[C, H, W] in the height and width of `like`, between pixels linear."""
    return F.interpolate(constant.detach()[None], size=like.shape[1:], mode="bilinear", align_corners=False)[0]


def _tensors(network: nn.Module) -> Tensors:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}
