"""How many operations a forward without gradients asks a GPU for: each costs the host some microseconds.

Counted on the meta device, where nothing is computed, with a GPU's choices; and where PyTorch's dispatcher is asked: a
registered op counts as one. Views and allocations are free. What layers keep between calls is kept here, too, and
counts in the first call only.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sg3.kernels import dispatch, kept
from sg3.models import layers, stylegan2, stylegan3

FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view"}
T: dict[str, Any] = {}
R: dict[str, Any] = {
    "conv_kernel": 1, "use_radial_filters": True, "channel_base": 65536, "channel_max": 1024,
}  # fmt: skip


class Dispatched(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.name().partition("::")[2].partition(".")[0]
        aliases = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        same = any(result is a for a in args)  # x.to(x's dtype)
        if not (aliases or same or name in FREE):
            self.counts[name] += 1
        return result


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Implementations and types are a GPU's, and values are kept though a PyTorch mode looks on."""
    monkeypatch.delenv("SG3_IMPL", raising=False)
    monkeypatch.setattr(dispatch, "_best", lambda available, device, dtype: available[0])
    for models in (stylegan2, stylegan3):
        monkeypatch.setattr(
            models, "working_type", lambda half, name, *_: layers.working_type(half, name, torch.device("cuda"))
        )
    monkeypatch.setattr(kept, "may_keep", lambda sources: True)
    monkeypatch.setattr(kept, "identity", lambda source: (id(source), source._version))


def count(network: type[torch.nn.Module], **kwargs: Any) -> list[Counter[str]]:
    """Operations of the first and the second forward of a synthesis network at 1024 px, by name."""
    found = []
    G = network(512, 1024, 3, **kwargs).eval().requires_grad_(False).to("meta")
    ws = torch.zeros(2, G.num_ws, 512, device="meta")
    for _ in range(2):
        with Dispatched() as counter, torch.no_grad():
            G(ws, noise_mode="const")
        found.append(counter.counts)
    return found


@pytest.mark.parametrize("config", [T, R], ids=["T", "R"])
def test_a_forward_of_stylegan3(config: dict[str, Any], gpu: None) -> None:
    first, second = count(stylegan3.SynthesisNetwork, **config)
    assert second["filtered_lrelu_triton"] == second["convolution"] == 15
    assert second["modulation_scales_triton"] == 15
    assert second["normalized_weights_triton"] == 0
    assert first["normalized_weights_triton"] == 14  # not ToRGB's
    assert second.total() <= 120, ", ".join(f"{n} {name}" for name, n in second.items())
    assert first.total() > second.total()


def test_a_forward_of_stylegan2(gpu: None) -> None:
    first, second = count(stylegan2.SynthesisNetwork)
    assert second["convolution"] > 17
    assert second.total() < first.total()
