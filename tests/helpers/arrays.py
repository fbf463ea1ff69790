"""Arrays of the golden data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch


class Arrays:
    """An .npz file whose arrays come out as tensors."""

    def __init__(self, path: Path) -> None:
        self._file = np.load(path, allow_pickle=False)

    def __contains__(self, name: str) -> bool:
        return name in self._file

    def __getitem__(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self._file[name])

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(prefix): self[k] for k in self._file.files if k.startswith(prefix)}
