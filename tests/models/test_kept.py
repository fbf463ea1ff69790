"""What layers keep between calls: never stale, never in the way, and the same bits with and without."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import sg3
from sg3.formats import Snapshot
from sg3.kernels import kept, modulated_conv2d
from sg3.kernels.kept import Kept
from sg3.models import stylegan2, stylegan3
from sg3.train.ema import update_ema

Z = torch.linspace(-1, 1, 16).reshape(2, 8)


def network(module: Any = stylegan3) -> nn.Module:
    more: dict[str, Any] = {"num_layers": 3, "num_critical": 1} if module is stylegan3 else {}
    torch.manual_seed(3)
    return module.Generator(8, 0, 8, 16, 3, channel_base=64, channel_max=4, **more).eval()


def anew(G: nn.Module) -> torch.Tensor:
    """What a network that has kept nothing says."""
    fresh = network(stylegan3 if isinstance(G, stylegan3.Generator) else stylegan2)
    fresh.load_state_dict(G.state_dict())
    with torch.no_grad():
        return fresh(Z, noise_mode="const")


def entries(G: nn.Module) -> int:
    return sum(len(values._entries) for values in all_kept(G))


def all_kept(G: nn.Module) -> list[Kept]:
    return [module.kept for module in G.modules() if "kept" in module.__dict__]


def optimizer_step(G: nn.Module) -> None:
    optimizer = torch.optim.Adam(G.parameters(), lr=0.1)
    with torch.enable_grad():
        G(Z, noise_mode="const").square().sum().backward()
    optimizer.step()


def average(G: nn.Module) -> None:
    other = network()
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1)
    update_ema(G, other, 0.5)


def new_data(G: nn.Module) -> None:
    for p in G.parameters():
        p.data = p.data * 1.5


def in_place(G: nn.Module) -> None:
    for p in G.parameters():
        p.mul_(1.5)


def magnitudes(G: nn.Module) -> None:
    for name, buffer in G.named_buffers():
        if name.endswith("magnitude_ema"):
            buffer.mul_(3)


def load(G: nn.Module, assign: bool = False) -> None:
    state = {k: v * 1.5 for k, v in G.state_dict().items() if "filter" not in k}
    G.load_state_dict({**G.state_dict(), **state}, assign=assign)


def there_and_back(G: nn.Module) -> None:
    G.to(torch.float64)
    in_place(G)
    G.to(torch.float32)


CHANGES: dict[str, Callable[[nn.Module], None]] = {
    "in place": in_place, "new data": new_data, "optimizer": optimizer_step, "average": average, "load": load,
    "load and assign": lambda G: load(G, assign=True), "magnitudes": magnitudes, "to": there_and_back,
    "foreach": lambda G: torch._foreach_mul_(list(G.parameters()), 1.5),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_never_stale(change: str, mode: Callable[[], Any]) -> None:
    G = network()
    with mode():
        before = G(Z)
    with torch.no_grad():
        CHANGES[change](G)
    with mode():
        after = G(Z)
    assert not torch.equal(before, after)
    assert torch.equal(after, anew(G))


@pytest.mark.parametrize("module", [stylegan3, stylegan2])
def test_bits_are_the_same_and_values_are_kept(module: Any) -> None:
    G = network(module)
    with torch.no_grad():
        first = G(Z, noise_mode="const")
        assert entries(G) > 0
        found = [(values, dict(values._entries)) for values in all_kept(G)]
        assert torch.equal(G(Z, noise_mode="const"), first)
    assert all(values._entries[name] is entry for values, before in found for name, entry in before.items())
    assert torch.equal(first, anew(G))
    assert torch.equal(first, G(Z, noise_mode="const").detach())  # with gradients, so without what was kept


def test_nothing_is_kept_in_training_or_with_gradients() -> None:
    G = network()
    G(Z)
    assert entries(G) == 0
    G.train()
    with torch.no_grad():
        G(Z)
    assert entries(G) == 0
    G.eval()
    with torch.no_grad():
        G(Z)
    kept_before = entries(G)
    gradients = torch.autograd.grad(G(Z).square().sum(), list(G.parameters()))  # what was kept does not cut the graph
    assert all(g.abs().sum() > 0 for g in gradients)
    assert entries(G) == kept_before


def test_copies_pickles_and_state_dicts_know_nothing_of_it() -> None:
    G = network()
    keys = list(G.state_dict())
    with torch.no_grad():
        y = G(Z)
    assert list(G.state_dict()) == keys
    stream = io.BytesIO()
    torch.save(G, stream)
    stream.seek(0)
    for other in (copy.deepcopy(G), pickle.loads(pickle.dumps(G)), torch.load(stream, weights_only=False)):
        assert entries(other) == 0
        with torch.no_grad():
            assert torch.equal(other(Z), y)
            in_place(other)
            assert torch.equal(other(Z), anew(other))
    with torch.no_grad():
        assert torch.equal(G(Z), y)


@pytest.mark.parametrize("suffix", ["pkl", "safetensors"])
def test_files_know_nothing_of_it(suffix: str, tmp_path: Path) -> None:
    G = network()
    sg3.save(Snapshot(G_ema=G), tmp_path / f"before.{suffix}")
    with torch.no_grad():
        y = G(Z)
    sg3.save(Snapshot(G_ema=G), tmp_path / f"after.{suffix}")
    assert (tmp_path / f"before.{suffix}").read_bytes() == (tmp_path / f"after.{suffix}").read_bytes()
    loaded = sg3.load(tmp_path / f"after.{suffix}").G_ema
    with torch.no_grad():
        assert torch.equal(loaded(Z), y)


def test_inference_tensors_are_not_kept() -> None:
    """PyTorch does not count writes to them."""
    with torch.inference_mode():
        G = network()
        before = G(Z)
        assert entries(G) == 0
        in_place(G)
        assert not torch.equal(G(Z), before)


def test_made_in_inference_mode_good_outside() -> None:
    G = network()
    with torch.inference_mode():
        y = G(Z)
    assert entries(G) > 0
    with torch.no_grad():
        assert torch.equal(G(Z), y)
    found = [entry[2] for values in all_kept(G) for entry in values._entries.values()]
    tensors = [t for value in found for t in (value if isinstance(value, tuple) else (value,)) if t is not None]
    assert len(tensors) > 10
    assert not any(t.is_inference() for t in tensors)


def test_compiled_exported_and_transformed_networks_follow_their_weights() -> None:
    G = network()
    layer = G.mapping.fc0
    with torch.no_grad():
        layer(Z)  # something is kept before
        compiled = torch.compile(layer, backend="eager", fullgraph=True)
        assert torch.equal(compiled(Z), layer(Z))
        in_place(layer)
        assert torch.equal(compiled(Z), layer(Z))
        exported = torch.export.export(layer, (Z,)).module()
        exported.load_state_dict({k: v * 2 for k, v in layer.state_dict().items()})
        in_place_twice = copy.deepcopy(layer)
        in_place_twice.load_state_dict(exported.state_dict())
        assert torch.equal(exported(Z), in_place_twice(Z))
        made = torch.func.functional_call(layer, {k: v * 3 for k, v in layer.named_parameters()}, (Z,))
        layer.load_state_dict({k: v * 3 for k, v in layer.state_dict().items()})
        assert torch.equal(made, layer(Z))
        weights = torch.stack([layer.weight, layer.weight * 2])
        both = torch.vmap(lambda w: torch.func.functional_call(layer, {"weight": w}, (Z,)))(weights)
        assert torch.allclose(both[0], layer(Z))


def test_types_do_not_mix() -> None:
    values, w = Kept(), torch.randn(3, 4, 3, 3)
    s = torch.rand(2, 4)
    with torch.no_grad():
        for dtype in (torch.float32, torch.float64, torch.float32, torch.bfloat16):
            x = torch.ones(2, 4, 5, 5, dtype=dtype)
            for demodulate in (True, False):
                found = modulated_conv2d(x, w, s, demodulate=demodulate, impl="torch", kept=values)
                assert torch.equal(found, modulated_conv2d(x, w, s, demodulate=demodulate, impl="torch"))


def test_an_address_does_not_come_to_mean_another_tensor() -> None:
    """The memory of what a value was computed from is held, and not given to a tensor that looks the same."""
    values, p = Kept(), nn.Parameter(torch.zeros(1000))
    with torch.no_grad():
        for value in range(50):
            p.data = torch.full((1000,), float(value))
            assert values.get("double", (p,), None, lambda: p * 2)[0] == 2 * value


def test_not_kept_where_somebody_looks_on() -> None:
    p = torch.ones(3)
    assert kept.may_keep((p,))
    assert torch.vmap(lambda x: x + (not kept.may_keep((p,))))(p).tolist() == [2, 2, 2]
    with torch._subclasses.fake_tensor.FakeTensorMode() as fakes:
        assert not kept.may_keep((p,))
        fake = fakes.from_tensor(p)
    assert not kept.may_keep((fake,))
