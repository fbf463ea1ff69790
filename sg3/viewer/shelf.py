"""What clients have given the server to keep for a while: latents and sets of directions, named after their content.

The same content has the same name, so an address that names it works again once the file has been loaded again.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from sg3.errors import DataError, MissingInputError, Sg3Error, UsageError
from sg3.terminal import printable
from sg3.tools.directions import Directions
from sg3.tools.files import load_arrays
from sg3.tools.latent_as_w import Walkable
from sg3.tools.latent_files import load_latents, load_projection
from sg3.tools.video import make_keyframes, map_keyframes

Result = TypeVar("Result")
Maps = dict[str, torch.Tensor]  # noise of StyleGAN2 by the name of its buffer, where a projection has found some

MOST_LATENTS = 1_000
MOST_PASSING = 200  # of those on the way of a drag, so that a long one takes no place from what was loaded
MOST_BYTES = 2**28  # of either, with their noise: that of a large StyleGAN2 has ten million
MOST_LOADED = 100  # latents of a file
MOST_SETS = 20
MOST_DIRECTIONS = 1_000  # of a file
MOST_WIDTH = 2_048  # of a direction
UPLOAD = 2**24  # bytes


class Shelf:
    """Whatever is put here, up to a number; then the oldest goes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latents: OrderedDict[str, tuple[torch.Tensor, Maps]] = OrderedDict()
        self._passing: OrderedDict[str, tuple[torch.Tensor, Maps]] = OrderedDict()
        self._sets: OrderedDict[str, Directions] = OrderedDict()

    def put_latent(self, ws: torch.Tensor, noise: Maps | None = None, passing: bool = False) -> str:
        """Keep ws [1, num_ws, w_dim], and the noise that belongs to it; returns its name. What is only `passing` goes
        earlier."""
        ws = ws.detach().cpu().clone()
        digest = hashlib.sha256(ws.numpy().tobytes())
        for key, values in sorted((noise or {}).items()):
            digest.update(key.encode() + values.numpy().tobytes())
        name = digest.hexdigest()[:16]
        kept, most = (self._passing, MOST_PASSING) if passing else (self._latents, MOST_LATENTS)
        with self._lock:
            kept[name] = ws, noise or {}
            kept.move_to_end(name)
            while len(kept) > most or (len(kept) > 1 and _bytes(kept.values()) > MOST_BYTES):
                kept.popitem(last=False)
        return name

    def latent(self, name: str, num_ws: int, w_dim: int) -> torch.Tensor:
        """[1, num_ws, w_dim]. Raises MissingInputError, and UsageError if it is another network's."""
        found = self._find(name)
        if found is None:
            raise MissingInputError(f"latent={name}: is not here any more; load its .npz again")
        ws, _ = found
        if ws.shape != (1, num_ws, w_dim):
            have = f"{ws.shape[1]} x {ws.shape[2]}"
            raise UsageError(f"latent={name}: has {have} numbers, this network takes {num_ws} x {w_dim}")
        return ws

    def noise(self, name: str) -> Maps:
        """What belongs to a latent; nothing for most."""
        found = self._find(name)
        return {} if found is None else found[1]

    def together(self, names: list[str]) -> NDArray[np.float32]:
        """[N, num_ws, w_dim] of these. Raises MissingInputError, and UsageError if they are of different networks."""
        found = [(name, self._find(name)) for name in names]
        for name, entry in found:
            if entry is None:
                raise MissingInputError(f"latents={printable(name, 40)}: is not here any more")
        all_ws = [entry[0] for _, entry in found if entry is not None]
        if any(ws.shape != all_ws[0].shape for ws in all_ws):
            raise UsageError("latents: are of different networks")
        return torch.cat(all_ws).numpy()

    def _find(self, name: str) -> tuple[torch.Tensor, Maps] | None:
        with self._lock:
            return self._latents.get(name) or self._passing.get(name)

    def put_directions(self, data: bytes) -> tuple[str, int]:
        """Keep what `sg3 directions` writes, an .npz; returns its name and how many there are. Raises DataError."""
        arrays = _read(data, load_arrays)
        found = arrays.get("directions")
        if found is None or found.ndim != 2 or not len(found) or not _is_finite(found):
            raise DataError("directions: the file has no array `directions` [K, w_dim], as sg3 directions writes it")
        if len(found) > MOST_DIRECTIONS or found.shape[1] > MOST_WIDTH:
            have = len(found) if found.shape[1] <= MOST_WIDTH else f"{len(found)} of {found.shape[1]} numbers"
            most = f"{MOST_DIRECTIONS} of {MOST_WIDTH} numbers"
            raise DataError(f"directions: the file has {have}, expected at most {most}")
        scale = arrays.get("scale", np.ones(len(found)))
        if scale.shape != (len(found),) or not _is_finite(scale):
            raise DataError("directions: the file's array `scale` does not belong to its directions")
        name = hashlib.sha256(data).hexdigest()[:16]
        rows = torch.from_numpy(found.astype(np.float64))
        with self._lock:
            self._sets[name] = Directions(rows, torch.ones(len(found)), torch.from_numpy(scale.astype(np.float64)))
            while len(self._sets) > MOST_SETS:
                self._sets.popitem(last=False)
        return name, len(found)

    def directions(self, name: str, w_dim: int) -> Directions:
        """A set. Raises MissingInputError, and UsageError if it is another network's."""
        with self._lock:
            found = self._sets.get(name)
        if found is None:
            raise MissingInputError(f"directions={name}: are not here any more; load their .npz again")
        if found.directions.shape[1] != w_dim:
            have = found.directions.shape[1]
            raise UsageError(f"directions={name}: have {have} numbers, this network's w has {w_dim}")
        return found


@dataclass(frozen=True)
class Loaded:
    """Latents of a file: points in a space, and the noise of StyleGAN2 that a projection found with them."""

    space: str
    points: torch.Tensor  # [N, ...]
    noise: Maps

    def ws(self, G: Walkable, class_idx: int | None) -> torch.Tensor:
        """[N, num_ws, w_dim], by the network where they are in z. Raises UsageError."""
        keys = make_keyframes(G, self.space, self.points, classes=() if class_idx is None else (class_idx,))
        w = map_keyframes(G, keys).points.to(torch.float32)
        return w if w.ndim == 3 else w[:, None].expand(-1, G.num_ws, -1)


def read_latents(data: bytes, G: Walkable) -> Loaded:
    """An .npz with `w` or `z` for this network, which is not run. Raises DataError, UsageError."""
    (space, points), beside = _read(data, lambda path: (load_latents([path], G), load_projection(path)))
    if len(points) > MOST_LOADED:
        raise UsageError(f"latents: the file has {len(points)}, expected at most {MOST_LOADED}")
    known = dict(G.synthesis.named_buffers())
    noise = {name: values for name, values in beside.items() if name != "input.transform"}  # a setting of the page
    for name, values in noise.items():
        if name not in known or known[name].shape != values.shape or not torch.isfinite(values).all():
            raise DataError(f"the file: holds noise {printable(name)} of shape {list(values.shape)}, which is not this "
                            "network's; use the network that was projected to")  # fmt: skip
    return Loaded(space, points, noise)


def _bytes(kept: Collection[tuple[torch.Tensor, Maps]]) -> int:
    """Of latents and of their noise, which those of a file share."""
    maps = {id(noise): noise for _, noise in kept}.values()
    return sum(ws.nbytes for ws, _ in kept) + sum(values.nbytes for noise in maps for values in noise.values())


def _is_finite(array: NDArray[np.generic]) -> bool:
    return array.dtype.kind == "f" and bool(np.isfinite(array.astype(np.float64)).all())


def _read(data: bytes, read: Callable[[Path], Result]) -> Result:
    """What `read` makes of the file; errors speak of `the file`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.npz"
        path.write_bytes(data)
        try:
            return read(path)
        except Sg3Error as error:
            raise type(error)(str(error).replace(str(path), "the file")) from None
