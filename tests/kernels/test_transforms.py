"""What torch.func makes of the ops: gradients, batches of them and both at once are those of the plain formula."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import grad, jacrev, jvp, vjp

from sg3.kernels import bias_act, conv2d_resample, filtered_lrelu, grid_sample, modulated_conv2d, upfirdn2d

Op = Callable[[torch.Tensor, str], torch.Tensor]

generator = torch.Generator().manual_seed(0)
TAPS, F, B = torch.rand(12, generator=generator) / 6, torch.rand(4, generator=generator), torch.ones(3) / 8
W, S = torch.randn(4, 3, 3, 3, generator=generator), torch.randn(1, 3, generator=generator)
X, GRID = torch.randn(2, 3, 6, 6, generator=generator), torch.rand(1, 4, 4, 2, generator=generator) - 0.5

OPS: dict[str, Op] = {
    "filtered_lrelu": lambda x, impl: filtered_lrelu(x, TAPS, TAPS, B, 2, 2, 9, clamp=0.5, impl=impl),
    "upfirdn2d": lambda x, impl: upfirdn2d(x, F, up=2, padding=[2, 1, 2, 1], impl=impl),
    "bias_act": lambda x, impl: bias_act(x, B, act="lrelu", clamp=1.0, impl=impl),
    "smooth bias_act": lambda x, impl: bias_act(x, B, act="swish", impl=impl),
    "modulated_conv2d": lambda x, impl: modulated_conv2d(x, W, S.expand(len(x), 3), padding=1, impl=impl),
    "conv2d_resample": lambda x, impl: conv2d_resample(x, W, F, up=2, padding=1, impl=impl),
    "grid_sample": lambda x, impl: grid_sample(x, GRID.expand(len(x), 4, 4, 2), impl=impl),
}


def one(op: Op, x: torch.Tensor, impl: str) -> torch.Tensor:
    """Of an image without a batch."""
    return op(x[None], impl)


def squares(op: Op, x: torch.Tensor, impl: str) -> torch.Tensor:
    return op(x, impl).pow(2).sum()


def curved(op: Op, x: torch.Tensor, impl: str) -> torch.Tensor:
    """The length of a gradient, as R1 and path length have it."""
    return grad(lambda x: op(x, impl).pow(3).sum())(x).pow(2).sum()


def recorded(function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """The gradient by autograd of what torch.func has transformed."""
    x = X.clone().requires_grad_()
    return torch.autograd.grad(function(x), x)[0]


TRANSFORMED: dict[str, Callable[[Op, str], torch.Tensor]] = {
    "grad": lambda op, impl: grad(lambda x: squares(op, x, impl))(X),
    "grad of grad": lambda op, impl: grad(lambda x: curved(op, x, impl))(X),
    "recorded grad": lambda op, impl: recorded(lambda x: curved(op, x, impl)),
    "jacrev": lambda op, impl: jacrev(lambda x: op(x, impl).sum((2, 3)))(X),
    "hessian's product": lambda op, impl: vjp(grad(lambda x: squares(op, x, impl)), X)[1](X)[0],
    "vmap": lambda op, impl: torch.vmap(lambda x: one(op, x, impl))(X),
    "vmap of channels_last": lambda op, impl: torch.vmap(lambda x: op(x, impl), 1)(
        X.to(memory_format=torch.channels_last)[:, None].expand(2, 2, 3, 6, 6)),
    "vmap of grad": lambda op, impl: torch.vmap(grad(lambda x: one(op, x, impl).pow(2).sum()))(X),
    "grad of vmap": lambda op, impl: grad(lambda x: torch.vmap(lambda x: one(op, x, impl))(x).pow(2).sum())(X),
    "recorded vmap": lambda op, impl: recorded(lambda x: torch.vmap(lambda x: one(op, x, impl))(x).pow(2).sum()),
}  # fmt: skip

# Each op by PyTorch, and those with other kinds of signs, interpreted where that does not take long.
CASES = [(name, op, "torch") for op in OPS for name in TRANSFORMED]
CASES += [(name, "filtered_lrelu", "numba") for name in TRANSFORMED]
CASES += [(name, op, "triton") for op in ("bias_act", "smooth bias_act") for name in TRANSFORMED]
SLOW = [(name, "filtered_lrelu", "triton") for name in TRANSFORMED if name not in ("jacrev", "recorded grad")]


@pytest.mark.parametrize(("name", "which", "impl"), CASES + [pytest.param(*c, marks=pytest.mark.slow) for c in SLOW])
def test_transformed(name: str, which: str, impl: str) -> None:
    if impl != "torch" and importlib.util.find_spec(impl) is None:
        pytest.skip(f"{impl} is not installed")
    op = OPS[which]
    expected = TRANSFORMED[name](op, "ref")
    assert expected.abs().max() > 0
    torch.testing.assert_close(TRANSFORMED[name](op, impl), expected, rtol=1e-4, atol=1e-5 * expected.abs().max())


def test_gradients_of_a_grid_are_missing_nowhere() -> None:
    """impl='auto' takes the plain formula for a grid with a gradient, also where vmap hides that it has one."""
    def total(grid: torch.Tensor, impl: str) -> torch.Tensor:
        return torch.vmap(lambda g: grid_sample(X[:1], g, impl=impl))(grid).pow(2).sum()

    grids = torch.cat([GRID, GRID / 2])[:, None]
    assert torch.equal(grad(lambda g: total(g, "auto"))(grids), grad(lambda g: total(g, "ref"))(grids))


FORWARD_MODE = {
    "torch.func.jvp": lambda op, impl: jvp(lambda x: op(x, impl), (X,), (X,))[1],
    "dual numbers": lambda op, impl: forward_ad.unpack_dual(op(forward_ad.make_dual(X, X), impl)).tangent,
}


@pytest.mark.parametrize("name", FORWARD_MODE)
@pytest.mark.parametrize(("op", "impl"), [("filtered_lrelu", "torch"), ("bias_act", "triton"),
                                          ("grid_sample", "torch")])  # fmt: skip
def test_forward_mode_is_refused_where_it_would_be_zero(op: str, impl: str, name: str) -> None:
    if impl == "triton":
        pytest.importorskip("triton")
    with forward_ad.dual_level() if name == "dual numbers" else torch.enable_grad():
        assert FORWARD_MODE[name](OPS[op], "ref").abs().max() > 0
        with pytest.raises(NotImplementedError, match=rf"{op}_{impl}: has no forward-mode.*impl='ref'"):
            FORWARD_MODE[name](OPS[op], impl)
        assert OPS[op](2 * X.detach(), "ref").shape == OPS[op](X, "ref").shape
