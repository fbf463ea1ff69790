"""Whether all processes of a run still have the same networks, bit for bit, as they must."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from sg3.errors import NumericalError
from sg3.processes import World


def check_consistency(world: World, modules: Mapping[str, nn.Module]) -> None:
    """Raises NumericalError naming the first tensors, and the ranks, that are not bit for bit those of rank 0."""
    if world.size == 1:
        return
    named = [(f"{name}.{key}", t) for name, module in modules.items() for key, t in module.state_dict().items()]
    sums = torch.stack([_checksum(tensor) for _, tensor in named]).cpu().tolist()
    everyones = world.gather(sums)
    problems = []
    for index, (name, _) in enumerate(named):
        ranks = [rank for rank, theirs in enumerate(everyones) if theirs[index] != everyones[0][index]]
        if ranks:
            problems.append(f"{name} on rank {', '.join(map(str, ranks))}")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise NumericalError(
            f"the processes have drifted apart, different from rank 0: {'; '.join(problems[:3])}{more}; continue from "
            "the last state, and look for differing GPUs, drivers or versions"
        )


def _checksum(tensor: torch.Tensor) -> torch.Tensor:
    """Two 64-bit sums over the bits of a tensor, the second one weighted by place: int64 [2]."""
    bytes_ = tensor.detach().contiguous().flatten().view(torch.uint8).to(torch.int64)
    place = torch.arange(bytes_.numel(), device=bytes_.device) % 65521 + 1
    return torch.stack([bytes_.sum(), (bytes_ * place).sum()])
