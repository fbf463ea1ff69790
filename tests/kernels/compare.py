"""How a low-precision result is judged: by what plain PyTorch makes of the same formula in the same precision."""

from __future__ import annotations

import torch


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
