"""The golden data of Projected GAN, FastGAN and R3GAN: cases, recipe-made weights and inputs, comparison.

Weights and inputs are not stored: the folder's `recipe.py` makes them from names and seeds. Results are stored as
float32, large ones as a strided sample. See the folder's README.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from sg3.models.diffaug import DiffAugDraws


class GoldenGan:
    """One group of cases, `GROUP.json` with `GROUP.npz`."""

    def __init__(self, folder: Path, group: str) -> None:
        self.data: dict[str, Any] = json.loads((folder / "gan" / f"{group}.json").read_text())
        self.arrays = np.load(folder / "gan" / f"{group}.npz", allow_pickle=False)
        self.recipe = load_recipe(folder)

    def case(self, name: str) -> dict[str, Any]:
        """Constructor arguments, seeds, inputs, tolerances of a case."""
        (found,) = [case for case in self.data["cases"] if case["case"] == name]
        return found

    def array(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[name])

    def check(self, case: dict[str, Any], name: str, got: torch.Tensor, bound: float | None = None) -> None:
        """`got` against the stored tensor, by the case's tolerance for its type (float64 or float32), or `bound`."""
        about = case["tensors"][name]
        assert list(got.shape) == about["shape"], name
        bound = bound or self.bound(case, name, got.dtype)
        got = got.detach().double()
        key = f"{case['case']}/{name}"
        self.near(sampled(got, about), self.array(key), bound, key)
        if f"{key}.mean" in self.arrays:
            self.near(got.mean(dim=(0, 2, 3)), self.array(f"{key}.mean"), bound, f"{key}.mean", scale=about["rms"])
            std = got.var(dim=(0, 2, 3), correction=0).sqrt()
            self.near(std, self.array(f"{key}.std"), bound, f"{key}.std", scale=about["rms"])

    @staticmethod
    def bound(case: dict[str, Any], name: str, dtype: torch.dtype) -> float:
        """How far a tensor may be from the stored one, as part of its Euclidean norm."""
        return case["tensors"][name]["tol64_rel_l2" if dtype == torch.float64 else "tol_rel_l2"]

    @staticmethod
    def near(got: torch.Tensor, expected: torch.Tensor, bound: float, what: str, scale: float = 0.0) -> None:
        """|got - expected| <= bound |expected| in the Euclidean norm; a row of statistics has `scale` as its unit."""
        expected = expected.double()
        distance = (got.detach().double().reshape(expected.shape) - expected).norm()
        unit = expected.norm().maximum(torch.tensor(scale * expected.numel() ** 0.5))
        assert distance <= bound * unit, f"{what}: {(distance / unit).item():.2e} exceeds {bound:.0e}"


def sampled(x: torch.Tensor, about: Mapping[str, Any]) -> torch.Tensor:
    """What the file keeps of a tensor: all, or every so-many-th entry."""
    return x.flatten()[:: about["sampled"]] if about.get("sampled") else x


def load_recipe(folder: Path) -> ModuleType:
    """The folder's recipe.py."""
    spec = importlib.util.spec_from_file_location("golden_gan_recipe", folder / "gan" / "recipe.py")
    assert spec is not None
    assert spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    return recipe


def fill(network: nn.Module, recipe: ModuleType, seed: int, **options: Any) -> None:
    """Give a network the recipe's weights; its state_dict has the original's names."""
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    made = recipe.fill(shapes, seed, **options)
    state = {name: torch.from_numpy(np.asarray(array)) for name, array in made.items()}
    network.load_state_dict(state, strict=False)


def gradient_norms(network: nn.Module, names: Iterable[str]) -> torch.Tensor:
    """The norm of the gradient of each parameter, in this order."""
    parameters = dict(network.named_parameters())
    grads = [parameters[name].grad for name in names]
    return torch.stack([grad.double().norm() for grad in grads]).to(grads[0].dtype)  # float32 sums lose four digits


def buffer_starts(network: nn.Module, count: int = 4) -> torch.Tensor:
    """The first entries of what batch norms and spectral norms remember, as the golden data has them."""
    ends = ("running_mean", "running_var", "stored_mean", "stored_var", "weight_u")
    state = network.state_dict()
    return torch.cat([tensor.flatten()[:count] for name, tensor in state.items() if name.endswith(ends)])


def diffaug_draws(recorded: Mapping[str, list[float]]) -> DiffAugDraws:
    """The original calls the vertical axis x."""
    color = {name: torch.tensor(recorded[name]) for name in ("brightness", "saturation", "contrast")}
    pairs = {
        ours: torch.stack([torch.tensor(recorded[f"{theirs}_{axis}"]) for axis in "xy"], dim=1)
        for ours, theirs in (("shift", "translation"), ("cutout", "offset"))
    }
    return DiffAugDraws(**color, **pairs)


def one_hot(classes: Iterable[int], count: int) -> torch.Tensor:
    return torch.eye(count)[list(classes)]


Maker = Callable[..., torch.Tensor]


def makers(recipe: ModuleType, dtype: torch.dtype) -> dict[str, Maker]:
    """The recipe's inputs as tensors of a type: normal(name, shape, seed), uniform, image."""

    def make(kind: str) -> Maker:
        return lambda name, shape, seed: torch.from_numpy(getattr(recipe, kind)(name, tuple(shape), seed)).to(dtype)

    return {kind: make(kind) for kind in ("normal", "uniform", "image")}
