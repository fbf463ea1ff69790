"""Tensors of a weights file -> the state_dict of one of our networks.

Two rules, tried in this order:

1. By name. One prefix, the same for all, may stand before our names (`model.features.0.weight`). Whatever else the
   file holds is not looked at.
2. By order. The matrices and kernels of the file (two or more dimensions, more than three elements, no 1 x 1 kernels
   to one channel, which are LPIPS heads) have to begin with ours: the same shapes in the order in which the layers are
   defined here, which is the order of computation, branch by branch from the left. What belongs to a kernel are
   the vectors that follow it in the file, by the last part of their name (`SYNONYMS`). Shapes alone cannot tell two
   kernels of one shape apart: that the file is in this order is taken for granted.

A normalisation without scale gets ones, as in TensorFlow's graph of Inception-v3. Everything comes as float32.
"""

from __future__ import annotations

import torch
from torch import nn

from sg3.errors import DataError

Tensors = dict[str, torch.Tensor]

SYNONYMS = {  # our name -> what files may call it
    "weight": ("weight", "gamma", "scale"),
    "bias": ("bias", "beta"),
    "running_mean": ("running_mean", "moving_mean", "mean"),
    "running_var": ("running_var", "moving_variance", "moving_var", "variance", "var"),
}


def fill(network: nn.Module, tensors: Tensors, where: str) -> None:
    """Give `network` (made on the meta device) the file's weights, frozen, and put it into eval mode.

    Raises DataError, which begins with `where`, if the tensors are not those of such a network.
    """
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    found = by_name(expected, tensors)
    if found is None:
        found = by_order(expected, tensors, where)
    state = {}
    for name, shape in expected.items():
        if name.endswith("num_batches_tracked"):  # of no use in eval mode, and not in every file
            state[name] = torch.zeros(shape, dtype=torch.int64)
            continue
        tensor = found[name]
        if tensor.shape != shape:
            raise DataError(f"{where}: {name} has shape {list(tensor.shape)}, expected {list(shape)}")
        if not tensor.is_floating_point():
            raise DataError(f"{where}: {name} is of {tensor.dtype}, expected floating point")
        state[name] = tensor.detach().float().contiguous()
    network.load_state_dict(state, assign=True)
    network.eval().requires_grad_(False)


def by_name(expected: dict[str, torch.Size], tensors: Tensors) -> Tensors | None:
    """Rule 1. None if one name is missing."""
    names = [name for name in expected if not name.endswith("num_batches_tracked")]
    prefixes = [name.removesuffix(names[0]) for name in tensors if name.endswith(names[0])]
    for prefix in prefixes:
        if all(prefix + name in tensors for name in names):
            return {name: tensors[prefix + name] for name in names}
    return None


def by_order(expected: dict[str, torch.Size], tensors: Tensors, where: str) -> Tensors:
    """Rule 2. Raises DataError."""
    ours = _groups(expected)
    theirs = _groups({name: tensor.shape for name, tensor in tensors.items()})
    if len(theirs) < len(ours):
        raise DataError(f"{where}: holds {len(theirs)} kernels and matrices, expected {len(ours)}")
    found: Tensors = {}
    for (kernel, vectors), (their_kernel, their_vectors) in zip(ours, theirs, strict=False):
        shape, their_shape = expected[kernel], tensors[their_kernel].shape
        if their_shape != shape:
            raise DataError(
                f"{where}: {their_kernel} has shape {list(their_shape)}, expected {list(shape)} for {kernel}"
            )
        found[kernel] = tensors[their_kernel]
        for name in vectors:
            role = name.split(".")[-1]
            same = [
                theirs for theirs in their_vectors
                if theirs.split(".")[-1] in SYNONYMS[role] and tensors[theirs].shape == expected[name]
            ]  # fmt: skip
            if len(same) == 1:
                found[name] = tensors[same[0]]
            elif not same and role == "weight":
                found[name] = torch.ones(expected[name])
            else:
                raise DataError(f"{where}: {len(same)} tensors after {their_kernel} could be {name}, expected one")
    return found


def _groups(shapes: dict[str, torch.Size]) -> list[tuple[str, list[str]]]:
    """Each kernel or matrix, in order, with the vectors that follow it."""
    groups: list[tuple[str, list[str]]] = []
    for name, shape in shapes.items():
        if is_head(shape) or name.endswith("num_batches_tracked"):
            continue
        if len(shape) >= 2 and shape.numel() > 3:
            groups.append((name, []))
        elif len(shape) == 1 and groups:
            groups[-1][1].append(name)
    return groups


def is_head(shape: torch.Size) -> bool:
    """Whether a tensor has the shape of an LPIPS head: a 1 x 1 kernel from some channels, but not RGB, to one."""
    return len(shape) == 4 and shape[0] == shape[2] == shape[3] == 1 and shape[1] != 3


def lpips_heads(widths: tuple[int, ...], tensors: Tensors, where: str) -> list[torch.Tensor] | None:
    """The vectors of LPIPS among a file's tensors, in their order; None if there are none. Raises DataError."""
    heads = [tensor for tensor in tensors.values() if is_head(tensor.shape)]
    if not heads:
        return None
    if tuple(head.shape[1] for head in heads) != widths:
        raise DataError(f"{where}: has LPIPS heads for {[head.shape[1] for head in heads]} channels, "
                        f"expected {list(widths)}")
    if any(not bool((head >= 0).all()) for head in heads):
        raise DataError(f"{where}: has LPIPS heads with negative weights, which give no distance")
    return [head.detach().float().flatten() for head in heads]
