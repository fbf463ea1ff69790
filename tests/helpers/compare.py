"""How results are compared: to the last bit, in a norm, or with what plain PyTorch makes of the same formula."""

from __future__ import annotations

import torch
from torch import nn


def assert_same(a: object, b: object, where: str = "state") -> None:
    """Equal to the last bit, NaN equal to itself."""
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor), where
        assert a.dtype == b.dtype, where
        bits_a, bits_b = (x.contiguous().flatten().view(torch.uint8) for x in (a, b))
        assert torch.equal(bits_a, bits_b), where
    elif isinstance(a, dict):
        assert isinstance(b, dict), where
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert isinstance(b, (list, tuple)), where
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def assert_same_state(actual: nn.Module, expected: nn.Module) -> None:
    assert list(actual.state_dict()) == list(expected.state_dict())
    for key, tensor in expected.state_dict().items():
        assert torch.equal(actual.state_dict()[key], tensor), key


def assert_close(one: dict, two: dict, where: str) -> None:
    for key, a in one.items():
        distance, size = float((a - two[key]).norm()), float(a.norm())
        assert distance <= 1e-4 * size + 1e-7, f"{where}.{key}: {distance} of {size}"


def assert_within_budget(result: torch.Tensor, eager: torch.Tensor, exact: torch.Tensor, what: str = "",
                         ulps: float = 0) -> None:  # fmt: skip
    """|result - exact| <= 2 (|eager - exact| + eps |exact|), in the maximum norm and in L2.

    `exact` is the float64 reference, `eager` the reference in `result`'s dtype, whose eps is meant. `ulps` is added
    for what is known to lose more: Triton's interpreter truncates to bfloat16 where a GPU rounds, up to 1.
    """
    assert result.dtype == eager.dtype, what
    assert result.shape == eager.shape == exact.shape, f"{what}: {result.shape}, {eager.shape}, {exact.shape}"
    eps = torch.finfo(result.dtype).eps
    result, eager, exact = (t.detach().double() for t in (result, eager, exact))
    assert not result.isnan().any(), f"{what}: NaN"
    for norm in (float("inf"), 2):
        error, budget = (torch.linalg.vector_norm(t - exact, norm) for t in (result, eager))
        budget = 2 * budget + (2 + ulps) * eps * torch.linalg.vector_norm(exact, norm)
        assert error <= budget, f"{what}: error {error:.3g} in norm {norm}, budget {budget:.3g}"
