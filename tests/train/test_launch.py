"""What a run says of itself when it begins."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest
from torch import nn

from sg3.train.launch import never_called
from tests.helpers import tiny_networks


@pytest.mark.parametrize("make", [tiny_networks.generator2, tiny_networks.generator3])
def test_ops_that_are_named_are_called(make: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    called = set()
    for op in ("filtered_lrelu", "modulated_conv2d"):
        module = importlib.import_module(f"sg3.kernels.{op}.op")
        plain = module.resolve

        def resolve(name: str, *args: object, plain: Callable[..., str] = plain) -> str:
            called.add(name)
            return plain(name, *args)

        monkeypatch.setattr(module, "resolve", resolve)
    G = make()
    tiny_networks.image(G)
    ops = {"filtered_lrelu", "modulated_conv2d"}
    assert called & ops == ops - never_called(G)
