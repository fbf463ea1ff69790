"""Latents out of files: those of sg3's projection, and what other projectors and encoders save.

    .npz    arrays by name: w or z, projected_w, latent, ...
    .npy    one array
    .pt     a tensor, a dictionary with one by these names, or a dictionary of such dictionaries, one for each picture

Nothing in a file is executed: pickled objects, such as dictionaries saved by numpy.save, are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch.func import functional_call

from sg3 import limits
from sg3.errors import DataError, MissingInputError, UsageError
from sg3.formats.safe_pickle import Call
from sg3.formats.torch_file import read_chosen
from sg3.models import Generator, StyleGenerator
from sg3.sampling import class_labels, to_uint8
from sg3.terminal import printable
from sg3.tools.files import Pixels, load_array, load_arrays
from sg3.tools.latent_as_w import LatentAsW, Walkable

# What latents are called, and the space that they are in; None where the name does not tell. The first counts.
NAMES: dict[str, str | None] = {
    "w": "w", "z": "z", "projected_w": "w", "wp": "w", "w_plus": "w", "dlatents": "w", "dlatent": "w",
    "latent": None, "latents": None, "latent_in": None, "latent_code": None,
}  # fmt: skip
Note = Callable[[str], None]


def load_latents(
    paths: Sequence[Path], G: Walkable, space: str | None = None, note: Note = lambda _: None
) -> tuple[str, torch.Tensor]:
    """Space and points [N, ...], float64, of the latents in these files, one file after the other.

    z is [z_dim] or [N, z_dim]; w is [w_dim], [N, w_dim], [num_ws, w_dim] (one latent, which `note` is told) or
    [N, num_ws, w_dim], such as in `projected_w.npz` of a projection. An array whose name does not tell is taken for
    `space`, w by default. Raises MissingInputError, DataError (damaged, of another shape), UsageError (files in
    different spaces, or w where z is needed).
    """
    parts: dict[Path, tuple[str, torch.Tensor]] = {path: _load_points(path, G, space or "w", note) for path in paths}
    spaces = {name: path for path, (name, _) in parts.items()}
    if len(spaces) > 1:
        raise UsageError(f"--latents: {spaces['z']} holds z and {spaces['w']} w; give files of one kind")
    (name,) = spaces
    if name == "w" and space == "z":
        raise UsageError(f"--space=z: {spaces['w']} holds w, for which there is no z")
    points = [points for _, points in parts.values()]
    if any(p.ndim == 3 for p in points):
        if sum(len(p) for p in points) * G.num_ws * G.w_dim > limits.LATENTS:
            raise DataError(f"--latents: more than {limits.LATENTS} numbers in all; give fewer files")
        points = [p if p.ndim == 3 else p[:, None].expand(-1, G.num_ws, -1) for p in points]
    return name, torch.cat(points)


def pictures_of_files(
    G: Generator,
    paths: Sequence[Path],
    *,
    class_idx: int | None = None,
    truncation_psi: float = 1.0,
    noise_mode: str = "const",
    batch: int = 4,
    keep_transform: bool = False,
    share: tuple[int, int] = (0, 1),
    note: Note = lambda _: None,
) -> tuple[list[tuple[str, int]], Iterator[Pixels]]:
    """The space (z or w) and number of each file's latents, and the pictures [H, W, C] of all of them, in order.

    Noise maps and transform of a projection come from its file, too (`keep_transform`: but for the transform), and are
    drawn in float32, as they were found. `truncation_psi` pulls w towards its mean. `share` (k, n): of all pictures
    only every n-th, from the k-th on. Raises as `load_latents` does, and UsageError for a class that the network does
    not have, or that it needs for z.
    """
    walkable = G if isinstance(G, StyleGenerator) else LatentAsW(G).eval().to(next(G.parameters()).device)
    space = "w" if isinstance(G, StyleGenerator) else "z"
    held: list[tuple[str, int]] = []
    parts: list[tuple[torch.Tensor, dict[str, torch.Tensor]]] = []
    for path in paths:
        found, points = load_latents([path], walkable, space, note)
        beside = load_projection(path)
        if keep_transform and beside.pop("input.transform", None) is not None:
            note(f"{path}: its transform is left out, --translate and --rotate say another")
        known = dict(walkable.synthesis.named_buffers())
        for name, tensor in beside.items():
            if name not in known or known[name].shape != tensor.shape:
                raise DataError(f"{path}: holds {printable(name)} of shape {list(tensor.shape)}, which is not this "
                                "network's; use the network that was projected to")
        if found == "w" and G.c_dim and class_idx is not None:
            note("--class has no effect, w holds a class already")
        c = class_labels(G, class_idx, len(points)) if found == "z" else torch.zeros(len(points), G.c_dim)
        held.append((found, len(points)))
        parts.append((_ws(walkable, found, points, c, truncation_psi), beside))

    def render() -> Iterator[Pixels]:
        before = 0
        for all_ws, beside in parts:
            ws = all_ws[(share[0] - before) % share[1] :: share[1]]
            before += len(all_ws)
            if len(ws) == 0:
                continue
            replaced = {name: tensor.to(ws.device) for name, tensor in beside.items()}
            options = {"noise_mode": noise_mode, **({"force_fp32": True} if replaced else {})}
            for part in ws.split(batch):
                with torch.no_grad():
                    images: torch.Tensor = functional_call(walkable.synthesis, replaced, part, options)
                yield from to_uint8(images)

    return held, render()


@torch.no_grad()
def _ws(G: Walkable, space: str, points: torch.Tensor, c: torch.Tensor, truncation_psi: float) -> torch.Tensor:
    """ws [N, num_ws, w_dim], float32 on G's device, of points in z or w."""
    device = next(G.parameters()).device
    points = points.to(device)
    if space == "z":  # in float64, as seeds are
        ws: torch.Tensor = G.mapping(points, c.to(device), truncation_psi=truncation_psi)
        return ws
    w = points.float()
    if truncation_psi != 1:
        w = G.mapping.w_avg.lerp(w, truncation_psi)
    return w if w.ndim == 3 else w[:, None].expand(-1, G.num_ws, -1)


def load_projection(path: Path) -> dict[str, torch.Tensor]:
    """What a projection found beside w, by the names of buffers in `G.synthesis`: StyleGAN2's noise maps, StyleGAN3's
    `input.transform`. Empty for other files. Raises as `load_latents` does."""
    if path.suffix != ".npz":
        return {}
    arrays = load_arrays(path)
    named = {name.removeprefix("noise/"): array for name, array in arrays.items() if name.startswith("noise/")}
    if "transform" in arrays:
        named["input.transform"] = arrays["transform"]
    return {name: _tensor(array, path).float() for name, array in named.items()}


def _load_points(path: Path, G: Walkable, default: str, note: Note) -> tuple[str, torch.Tensor]:
    name, values = _read_latents(path)
    name = name or default
    points = values.reshape(1, -1) if values.ndim == 1 else values
    width, layers = (G.z_dim, None) if name == "z" else (G.w_dim, G.num_ws)
    if layers and points.ndim == 4 and 1 in points.shape[:2]:  # as encoders keep them: batch by batch
        points = points.flatten(0, 1)
    if layers and points.ndim == 2 and len(points) == layers > 1:
        points = points[None]
    fits = points.ndim == 2 or (points.ndim == 3 and points.shape[1] == layers)
    if not fits or points.shape[-1] != width or len(points) == 0:
        expected = f"[N, {width}]" + (f" or [N, {layers}, {width}]" if layers else "")
        raise DataError(f"{path}: {name} has shape {list(values.shape)}, this network takes {expected}")
    if points.numel() > limits.LATENTS or len(points) > limits.KEYFRAMES:
        most = f"at most {limits.KEYFRAMES} points and {limits.LATENTS} numbers"
        raise DataError(f"{path}: {name} has shape {list(values.shape)}, expected {most}")
    if not points.is_floating_point() or not torch.isfinite(points.float()).all():
        raise DataError(f"{path}: {name} holds something else than finite fractional numbers of 32 bits")
    if layers and values.ndim == 2 and points.ndim == 3:
        note(f"{path}: {name} has shape {list(values.shape)}, one latent with a w for each of the {layers} layers")
    return name, points.to(torch.float64)


def _read_latents(path: Path) -> tuple[str | None, torch.Tensor]:
    """What a file calls its array, as far as it is the name of a space (w or z), and the array."""
    if path.suffix == ".npy":
        return None, _tensor(load_array(path), path)
    if path.suffix == ".npz":
        arrays = load_arrays(path)
        for name, space in NAMES.items():
            if name in arrays:
                return space, _tensor(arrays[name], path)
        if list(arrays) == ["arr_0"]:  # numpy's word for an array without a name
            return None, _tensor(arrays["arr_0"], path)
        names = printable(", ".join(arrays) or "nothing")
        raise DataError(f"{path}: has neither an array w nor z, but {names}")
    if path.suffix == ".pt":
        if not path.is_file():
            raise MissingInputError(f"{path}: there is no such file")
        found = read_chosen(path, lambda content: _latents_in(content, path))
        if not all(isinstance(latent, torch.Tensor) for latent in found.values()):
            raise DataError(f"{path}: holds no tensor of latents")
        for name in ("", *NAMES):
            if name in found:
                return NAMES.get(name), found[name]
        if len({latent.shape for latent in found.values()}) > 1:
            raise DataError(f"{path}: holds latents of different shapes")
        return "w", torch.stack(list(found.values()))
    fix = "; a pickle would be executed, save its array with numpy.save" if path.suffix in (".pkl", ".pickle") else ""
    raise DataError(f"{path}: expected .npz, .npy or .pt{fix}")


def _tensor(array: NDArray[Any], path: Path) -> torch.Tensor:
    try:
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    except TypeError as error:
        raise DataError(f"{path}: holds {array.dtype}, not numbers") from error


def _latents_in(content: Any, path: Path) -> dict[str, Any]:
    """The latents of a .pt file; projectors store one dictionary with a `latent` for each picture."""
    if isinstance(content, Call):
        return {"": content}
    if isinstance(content, dict):
        if name := _named(content):
            return {name: content[name]}
        entries = [(entry, _named(entry)) for entry in content.values() if isinstance(entry, dict)]
        found = [entry[name] for entry, name in entries if name]
        if found and len(found) == len(content):
            return {str(number): latent for number, latent in enumerate(found)}
    raise DataError(f"{path}: holds no tensor of latents (a tensor, or a dictionary with w, z or latent)")


def _named(content: dict[Any, Any]) -> str | None:
    return next((name for name in NAMES if isinstance(content.get(name), Call)), None)
