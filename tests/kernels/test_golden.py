"""Every op against the numbers of the original: value, first and second order, in float64 and float32."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

import sg3.kernels
from sg3.kernels.dispatch import IMPLEMENTATIONS
from sg3.models.stylegan2 import modulated_conv2d as modulated_conv2d_sg2
from tests.conftest import GOLDEN

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}  # relative to the largest entry, as golden's README states


def cases_and_impls() -> list[Any]:
    """OP/NAME of all cases with each implementation and dtype, for parametrisation; without the data, one to skip."""
    path = GOLDEN / "ops.json"
    if not path.is_file():
        return [("golden-data-absent", "ref", torch.float32)]
    return [
        pytest.param(f"{op}/{name}", impl, dtype, id=f"{op}/{name}-{impl}-{str(dtype).removeprefix('torch.')}")
        for op, name in ((case["op"], case["name"]) for case in json.loads(path.read_text()))
        for impl in ("ref", "torch", "numba", "triton") if impl in implementations(op)
        for dtype in TOLERANCE if impl in ("ref", "torch") or dtype == torch.float32
    ]  # fmt: skip


def implementations(op: str) -> tuple[str, ...]:
    """What a golden op can run on; StyleGAN2's modulated convolution is made of other ops."""
    return IMPLEMENTATIONS["conv2d_resample" if op == "modulated_conv2d_sg2" else op.removesuffix("_sg3")]


def call(
    op: str, inputs: dict[str, torch.Tensor], constants: dict[str, Any], params: dict[str, Any], impl: str
) -> torch.Tensor:
    """Run the public op of a golden case."""
    if op == "modulated_conv2d_sg2":
        params = {k: v for k, v in params.items() if k != "fused_modconv"}  # ours has one form
        return modulated_conv2d_sg2(**inputs, **constants, **params)
    if op == "upfirdn2d":
        constants.setdefault("f", None)
    function = getattr(sg3.kernels, op.removesuffix("_sg3"))
    return function(**inputs, **constants, **params, impl=impl)


@pytest.mark.parametrize(("name", "impl", "dtype"), cases_and_impls())
def test_op_equals_golden(golden_ops, monkeypatch, name: str, impl: str, dtype: torch.dtype) -> None:
    if impl == "numba":
        pytest.importorskip("numba", reason="impl='numba' needs sg3's extra 'cpu'")
    cases, arrays = golden_ops
    case = next(c for c in cases if f"{c['op']}/{c['name']}" == name)
    if case["op"] == "modulated_conv2d_sg2":  # takes no impl, and bias_act beside it has no 'torch'
        monkeypatch.setenv("SG3_IMPL", "auto" if impl == "torch" else impl)

    def array(key: str) -> torch.Tensor:
        return arrays[f"{name}/{key}"]

    def check(what: str, got: torch.Tensor, expected: torch.Tensor) -> None:
        scale = expected.abs().max().clamp_min(1e-30)
        error = float((got.detach().double() - expected).abs().max() / scale)
        assert error <= TOLERANCE[dtype], f"{what}: relative error {error:.2e}"

    inputs = {key: array(key).to(dtype).requires_grad_() for key in case["inputs"]}
    constants = {key: array(key) for key in case["filters"]}
    for key in ("input_gain", "grid"):  # data, not FIR taps
        if key in constants:
            constants[key] = constants[key].to(dtype)
    y = call(case["op"], inputs, constants, case["params"], impl)
    assert y.dtype == dtype
    check("y", y, array("y"))

    grads = torch.autograd.grad(y, list(inputs.values()), array("dy").to(dtype), create_graph=True)
    for key, grad in zip(inputs, grads, strict=True):
        check(f"d/d{key}", grad, array(f"grad_{key}"))

    second = case["second_order"]
    if second:
        wanted = [inputs[key] for key in second]
        if grads[0].requires_grad:
            grads2 = torch.autograd.grad(grads[0], wanted, array("v").to(dtype), allow_unused=True)
        else:  # piecewise linear, and known to be: the first gradient does not depend on any input
            grads2 = (None,) * len(wanted)
        for key, grad, tensor in zip(second, grads2, wanted, strict=True):
            expected = array(f"grad2_{key}")
            check(f"d2/d{key}", torch.zeros_like(tensor) if grad is None else grad, expected)


def test_golden_covers_every_op(golden_ops) -> None:
    cases, _ = golden_ops
    assert {case["op"] for case in cases} >= {
        "filtered_lrelu", "upfirdn2d", "bias_act", "modulated_conv2d_sg3", "modulated_conv2d_sg2",
        "conv2d_resample", "grid_sample",
    }  # fmt: skip
    assert len(cases) == 33
