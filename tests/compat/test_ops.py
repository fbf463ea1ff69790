"""The op modules: sg3's ops under the original's names, values, gradients and flags."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from math import sqrt
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import sg3.compat
import sg3.kernels
from tests.helpers.compare import assert_within_budget

NAMES = ("bias_act", "upfirdn2d", "filtered_lrelu", "conv2d_gradfix", "conv2d_resample", "grid_sample_gradfix", "fma")
TAPS = [0.1, -0.3, 0.7, 0.4, 0.2]  # not symmetric


@pytest.fixture
def ops() -> Iterator[dict[str, ModuleType]]:
    with sg3.compat.install(quiet=True):
        yield {name: importlib.import_module(f"torch_utils.ops.{name}") for name in NAMES}


def doubles(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def filters() -> torch.Tensor:
    return torch.tensor(TAPS)


def cases() -> dict[str, tuple[str, str, str, list[torch.Tensor], list[Any], dict[str, Any]]]:
    """name -> module, function, sg3's function, differentiable inputs, other positional arguments, keywords"""
    f = filters()
    x = doubles(2, 3, 7, 6)
    return {
        "bias_act": ("bias_act", "bias_act", "bias_act", [x, doubles(3)], [], {"act": "swish", "gain": 1.3}),
        "bias_act dim": ("bias_act", "bias_act", "bias_act", [x, doubles(6)], [3, "lrelu", 0.3, None, 0.9], {}),
        "upfirdn2d": ("upfirdn2d", "upfirdn2d", "upfirdn2d", [x], [f], {"up": [2, 1], "down": 3, "padding": [1, -1]}),
        "upfirdn2d flip": ("upfirdn2d", "upfirdn2d", "upfirdn2d", [x], [f, 2, 1, [1, 2, 3, 4], True, 1.7], {}),
        "filter2d": ("upfirdn2d", "filter2d", "filter2d", [x], [f], {"padding": 1, "gain": 2}),
        "upsample2d": ("upfirdn2d", "upsample2d", "upsample2d", [x], [f], {"up": 3, "flip_filter": True}),
        "downsample2d": ("upfirdn2d", "downsample2d", "downsample2d", [x], [f, [2, 1]], {}),
        "filtered_lrelu": ("filtered_lrelu", "filtered_lrelu", "filtered_lrelu", [x], [f, f, None, 2, 2, 3], {}),
        "filtered_lrelu np": (
            "filtered_lrelu", "filtered_lrelu", "filtered_lrelu", [x], [f, f],
            {"up": np.int64(2), "padding": list(np.array([3, 2, 4, 5])), "gain": np.sqrt(2), "slope": 0.1, "clamp": 1,
             "flip_filter": True},
        ),
        "conv2d_resample": (
            "conv2d_resample", "conv2d_resample", "conv2d_resample", [x, doubles(4, 3, 3, 3)], [f],
            {"up": 2, "padding": 1, "flip_weight": False},
        ),
        "conv2d_resample groups": (
            "conv2d_resample", "conv2d_resample", "conv2d_resample", [x, doubles(6, 1, 3, 3)], [f, 1, 2, 1, 3], {},
        ),
        "grid_sample": (
            "grid_sample_gradfix", "grid_sample", "grid_sample", [x],
            [torch.rand(2, 4, 5, 2, dtype=torch.float64) * 2.4 - 1.2], {},
        ),
    }  # fmt: skip


@pytest.mark.parametrize(("case", "impl"), [
    (case, impl) for case in cases() for impl in ("cuda", "ref")
    if impl == "cuda" or not case.startswith(("conv2d_resample", "grid_sample"))  # these take no impl
])  # fmt: skip
def test_op_equals_sg3(case: str, impl: str, ops: dict[str, ModuleType]) -> None:
    """Value, gradients and gradients of a gradient, bit for bit: it is the same op."""
    module, function, ours, inputs, rest, keywords = cases()[case]
    theirs = getattr(ops[module], function)
    takes_impl = "impl" in inspect.signature(theirs).parameters
    results = []
    for op, extra in (
        (theirs, {"impl": impl} if takes_impl else {}),
        (getattr(sg3.kernels, ours), {"impl": "auto" if impl == "cuda" else "ref"}),
    ):
        torch.manual_seed(1)
        y = op(*inputs, *rest, **keywords, **extra)
        first = torch.autograd.grad(y, inputs, torch.randn_like(y), create_graph=True)
        total = sum((g * torch.randn_like(g)).sum() for g in first)
        second = torch.autograd.grad(total, inputs, allow_unused=True) if total.requires_grad else ()
        results.append([y, *first, *second])
    for mine, expected in zip(*results, strict=True):
        assert (mine is None) == (expected is None)
        assert mine is None or torch.equal(mine, expected)


@pytest.mark.parametrize("op", ["bias_act", "upfirdn2d", "filtered_lrelu", "conv2d_resample", "grid_sample"])
def test_golden_values_and_gradients(op: str, ops: dict[str, ModuleType], golden_ops: Any) -> None:
    cases, arrays = golden_ops
    function = getattr(ops["grid_sample_gradfix" if op == "grid_sample" else op], op)
    chosen = [case for case in cases if case["op"] == op]
    assert chosen
    for case in chosen:
        name = f"{op}/{case['name']}"
        inputs = {key: arrays[f"{name}/{key}"].double().requires_grad_() for key in case["inputs"]}
        constants = {key: arrays[f"{name}/{key}"] for key in case["filters"]}
        if op == "grid_sample":
            constants["grid"] = constants["grid"].double()
        if op == "upfirdn2d":
            constants.setdefault("f", None)
        y = function(**inputs, **constants, **case["params"])
        grads = torch.autograd.grad(y, list(inputs.values()), arrays[f"{name}/dy"].double())
        for mine, key in [(y, "y"), *zip(grads, (f"grad_{key}" for key in inputs), strict=True)]:
            expected = arrays[f"{name}/{key}"]
            assert (mine - expected).abs().max() <= 1e-9 * expected.abs().max(), f"{name}: {key}"


def test_signatures_of_the_original(ops: dict[str, ModuleType]) -> None:
    """Names, order and defaults, as scripts rely on them."""
    expected = {
        "bias_act.bias_act": "x, b=None, dim=1, act='linear', alpha=None, gain=None, clamp=None, impl='cuda'",
        "upfirdn2d.upfirdn2d": "x, f, up=1, down=1, padding=0, flip_filter=False, gain=1, impl='cuda'",
        "upfirdn2d.filter2d": "x, f, padding=0, flip_filter=False, gain=1, impl='cuda'",
        "upfirdn2d.upsample2d": "x, f, up=2, padding=0, flip_filter=False, gain=1, impl='cuda'",
        "upfirdn2d.downsample2d": "x, f, down=2, padding=0, flip_filter=False, gain=1, impl='cuda'",
        "filtered_lrelu.filtered_lrelu": "x, fu=None, fd=None, b=None, up=1, down=1, padding=0, "
        f"gain={sqrt(2)}, slope=0.2, clamp=None, flip_filter=False, impl='cuda'",
        "conv2d_gradfix.conv2d": "input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1",
        "conv2d_gradfix.conv_transpose2d": "input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, "
        "dilation=1",
        "conv2d_gradfix.no_weight_gradients": "disable=True",
        "conv2d_resample.conv2d_resample": "x, w, f=None, up=1, down=1, padding=0, groups=1, flip_weight=True, "
        "flip_filter=False",
        "grid_sample_gradfix.grid_sample": "input, grid",
        "fma.fma": "a, b, c",
    }
    for name, text in expected.items():
        module, function = name.split(".")
        parameters = inspect.signature(getattr(ops[module], function)).parameters.values()
        assert ", ".join(str(p.replace(annotation=inspect.Parameter.empty)) for p in parameters) == text, name
    setup = inspect.signature(ops["upfirdn2d"].setup_filter).parameters
    assert list(setup) == ["f", "device", "normalize", "flip_filter", "gain", "separable"]


# ---- convolutions and fma


@pytest.mark.parametrize("enabled", [False, True])
def test_convolutions_are_torchs(enabled: bool, ops: dict[str, ModuleType]) -> None:
    gradfix = ops["conv2d_gradfix"]
    gradfix.enabled = enabled
    x, w, b = doubles(1, 4, 3, 4), doubles(4, 2, 3, 3), doubles(4)
    for mine, torchs, keywords in (
        (gradfix.conv2d, F.conv2d, {"stride": 2, "padding": 1, "groups": 2, "dilation": 1}),
        (gradfix.conv_transpose2d, F.conv_transpose2d, {"stride": 2, "output_padding": 1, "groups": 2}),
    ):
        bias = b if mine is gradfix.conv2d else None
        assert torch.equal(mine(x, w, bias, **keywords), torchs(x, w, bias, **keywords))
        assert torch.autograd.gradgradcheck(lambda x, w, f=mine, k=keywords: f(x, w, **k), (x, w))


@pytest.mark.parametrize("function", ["conv2d", "conv2d_resample"])
def test_no_weight_gradients(function: str, ops: dict[str, ModuleType]) -> None:
    """Inside, backward leaves the weight out; a gradient of that gradient, taken outside, reaches it."""
    gradfix = ops["conv2d_gradfix"]
    convolve = ops["conv2d_resample"].conv2d_resample if function == "conv2d_resample" else gradfix.conv2d
    x, w = doubles(1, 2, 5, 5), doubles(3, 2, 3, 3)

    def gradients() -> tuple[torch.Tensor | None, ...]:
        y = convolve(x, w)
        dx, dw = torch.autograd.grad(y.pow(3).sum(), [x, w], create_graph=True, allow_unused=True)
        return dx, dw

    gradfix.enabled = True
    expected_dx, expected_dw = gradients()
    assert expected_dw is not None
    with gradfix.no_weight_gradients():
        assert gradfix.weight_gradients_disabled
        dx, dw = gradients()
        with gradfix.no_weight_gradients(False):
            assert gradfix.weight_gradients_disabled
    assert not gradfix.weight_gradients_disabled
    assert dw is None
    assert torch.equal(dx, expected_dx)
    (second,) = torch.autograd.grad(dx.square().sum(), [w])
    (expected_second,) = torch.autograd.grad(expected_dx.square().sum(), [w])
    assert torch.equal(second, expected_second)

    gradfix.enabled = False  # then the flag has no say, as in the original
    with gradfix.no_weight_gradients():
        assert gradients()[1] is not None


@pytest.mark.parametrize("shapes", [((2, 3, 2, 2), (2, 3, 1, 1), (1, 1, 2, 2)), ((3, 1), (2,), (2, 3, 2))])
def test_fma(shapes: tuple[tuple[int, ...], ...], ops: dict[str, ModuleType]) -> None:
    a, b, c = (doubles(*shape) for shape in shapes)
    y = ops["fma"].fma(a, b, c)
    torch.testing.assert_close(y, a * b + c, rtol=1e-14, atol=1e-14)
    for grad, tensor in zip(torch.autograd.grad(y.sum(), [a, b, c]), (a, b, c), strict=True):
        assert grad.shape == tensor.shape
    assert torch.autograd.gradcheck(ops["fma"].fma, (a, b, c))
    assert torch.autograd.gradgradcheck(ops["fma"].fma, (a, b, c))


def test_fma_in_half_precision(ops: dict[str, ModuleType]) -> None:
    a, b, c = (torch.randn(3, 4, dtype=torch.float16) for _ in range(3))
    y = ops["fma"].fma(a, b, c)
    assert y.dtype == torch.float16
    assert_within_budget(y, a * b + c, a.double() * b.double() + c.double())


# ---- flags and private names


def test_plugins_are_refused_with_the_op_to_call() -> None:
    with sg3.compat.install(quiet=True):
        custom_ops = importlib.import_module("torch_utils.custom_ops")
        custom_ops.verbosity = "full"
        for plugin, op in (("bias_act_plugin", "bias_act.bias_act"), ("filtered_lrelu_plugin", "filtered_lrelu")):
            with pytest.raises(ImportError, match=rf"{plugin}: .*no plugins.*call torch_utils.ops.{op}") as caught:
                custom_ops.get_plugin(module_name=plugin, sources=["a.cpp", "a.cu"], extra_cuda_cflags=["-O3"])
            assert "\n" not in str(caught.value)
        with pytest.raises(ImportError, match=r"my_plugin: .*has no op for this one"):
            custom_ops.get_plugin("my_plugin", ["a.cpp"])


def test_private_names_that_forks_import(ops: dict[str, ModuleType]) -> None:
    up, act, lrelu = ops["upfirdn2d"], ops["bias_act"], ops["filtered_lrelu"]
    assert up._parse_scaling(2) == (2, 2)
    assert up._parse_scaling([2, 3]) == (2, 3)
    assert up._parse_padding(1) == (1, 1, 1, 1)
    assert up._parse_padding([1, 2]) == (1, 1, 2, 2)
    assert up._parse_padding([1, 2, 3, 4]) == (1, 2, 3, 4)
    assert up._get_filter_size(None) == (1, 1)
    assert up._get_filter_size(torch.ones(2, 5)) == (5, 2)
    for module in (up, act, lrelu):
        assert module._init() is False
        assert module._plugin is None
    x, b, f = doubles(1, 2, 5, 5), doubles(2), filters()
    for reference, cuda in (
        (act._bias_act_ref(x, b, act="lrelu", clamp=0.5), act._bias_act_cuda(act="lrelu", clamp=0.5).apply(x, b)),
        (up._upfirdn2d_ref(x, f, up=2, padding=2), up._upfirdn2d_cuda(up=2, padding=2).apply(x, f)),
        (
            lrelu._filtered_lrelu_ref(x, f, f, b, up=2, down=2, padding=4),
            lrelu._filtered_lrelu_cuda(up=2, down=2, padding=4).apply(x, f, f, b, None, 0, 0),
        ),
    ):
        torch.testing.assert_close(cuda, reference, rtol=1e-12, atol=1e-12)
    with pytest.raises(NotImplementedError, match="sign plane"):
        lrelu._filtered_lrelu_cuda().apply(x, None, None, b, torch.zeros(1, dtype=torch.uint8), 0, 0)


def test_activation_table(ops: dict[str, ModuleType]) -> None:
    table = ops["bias_act"].activation_funcs
    root = sqrt(2)
    assert {name: (e.def_alpha, e.def_gain, e.cuda_idx, e.ref, e.has_2nd_grad) for name, e in table.items()} == {
        "linear": (0, 1, 1, "", False), "relu": (0, root, 2, "y", False), "lrelu": (0.2, root, 3, "y", False),
        "tanh": (0, 1, 4, "y", True), "sigmoid": (0, 1, 5, "y", True), "elu": (0, 1, 6, "y", True),
        "selu": (0, 1, 7, "y", True), "softplus": (0, 1, 8, "y", True), "swish": (0, root, 9, "x", True),
    }  # fmt: skip
    x = torch.tensor([-1.0, 2.0])
    assert torch.equal(table["lrelu"].func(x, alpha=0.5), torch.tensor([-0.5, 2.0]))
    assert torch.equal(table["lrelu"]["func"](x, gain=3), F.leaky_relu(x, 0.2))
