"""What all Triton launchers share: how float32 is multiplied, by whichever of PyTorch's switches."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

pytest.importorskip("triton")

from sg3.kernels import filtered_lrelu
from sg3.kernels.triton_launch import dot_precision
from tests.helpers.filtered_lrelu_cases import Case


@pytest.fixture(autouse=True)
def _switches_as_they_were() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")
    for switch in (torch.backends, torch.backends.cuda.matmul, torch.backends.mkldnn.matmul):
        switch.fp32_precision = "none"


def older(precision: str) -> None:
    torch.set_float32_matmul_precision(precision)


def newer(precision: str) -> None:
    torch.backends.cuda.matmul.fp32_precision = precision


def for_all(precision: str) -> None:
    torch.backends.fp32_precision = precision


def allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed


@pytest.mark.parametrize(("settings", "expected"), [
    ([], "ieee"),
    ([(older, "highest")], "ieee"),
    ([(older, "high")], "bf16x3"),
    ([(older, "medium")], "tf32"),
    ([(allow_tf32, True)], "bf16x3"),  # the same as 'high', says PyTorch
    ([(allow_tf32, False)], "ieee"),
    ([(newer, "tf32")], "tf32"),
    ([(newer, "ieee")], "ieee"),
    ([(for_all, "tf32")], "tf32"),
    ([(for_all, "tf32"), (newer, "ieee")], "ieee"),
    ([(older, "medium"), (newer, "ieee")], "ieee"),
    ([(newer, "tf32"), (older, "highest")], "ieee"),
    ([(newer, "tf32"), (older, "high")], "bf16x3"),
    ([(older, "medium"), (allow_tf32, True)], "tf32"),
], ids=lambda value: "+".join(f"{switch.__name__}={to}" for switch, to in value) or "untouched"
   if isinstance(value, list) else value)  # fmt: skip
def test_every_switch_of_pytorch_counts(settings: list, expected: str) -> None:
    for switch, value in settings:
        switch(value)
    assert dot_precision(torch.float32) == expected
    assert dot_precision(torch.float16) == dot_precision(torch.bfloat16) == "ieee"


def test_an_op_after_the_newer_switch(device: str) -> None:
    newer("tf32")
    case = Case(shape=(1, 1, 9, 8))
    fu, fd = case.filters(device)
    x, b = case.inputs(torch.float32, device)
    y, exact = (filtered_lrelu(x, fu, fd, b, 2, 2, case.padding, impl=impl) for impl in ("triton", "ref"))
    torch.testing.assert_close(y, exact, rtol=0, atol=4e-3 * float(exact.abs().max()))
