"""Recordings of networks, with a recorder that stands in for CUDA graphs: it runs the network on what its inputs hold.

As with a graph, every replay writes to the same output. On a GPU (`pytest -m gpu`) the same holds for real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from sg3.models import stylegan2, stylegan3
from sg3.models.repeated import MOST_RECORDINGS, Repeated
from sg3.sampling import generate, set_transform


class Recorder:
    """Notes what it recorded."""

    def __init__(self) -> None:
        self.made: list[Recorded] = []

    def __call__(self, run: Callable[[], torch.Tensor]) -> Recorded:
        self.made.append(Recorded(run))
        return self.made[-1]

    @property
    def replays(self) -> list[int]:
        return [recorded.replays for recorded in self.made]


class Recorded:
    def __init__(self, run: Callable[[], torch.Tensor]) -> None:
        self._run, self.replays = run, 0
        self.output = torch.full_like(run(), float("nan"))  # recording computes nothing

    def replay(self) -> None:
        self.replays += 1
        self.output.copy_(self._run())


def network(module: Any = stylegan3) -> Any:
    more: dict[str, Any] = {"num_layers": 3, "num_critical": 1} if module is stylegan3 else {}
    return module.Generator(8, 0, 8, 16, 3, channel_base=64, channel_max=4, **more).eval().requires_grad_(False)


def z(seed: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 8, generator=torch.Generator().manual_seed(seed))


NO_LABEL = torch.zeros(2, 0)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_runs_then_records_then_replays(mode: Callable[[], Any]) -> None:
    G, recorder = network(), Recorder()
    repeated = Repeated(G, record=recorder)
    with mode():
        given = [z(seed) for seed in range(5)]
        images = [repeated(each, NO_LABEL, noise_mode="const") for each in given]
        assert recorder.replays == [4]  # not the first
        for each, image in zip(given, images, strict=True):  # each in memory of its own
            assert torch.equal(image, G(each, noise_mode="const").detach())
            assert not image.requires_grad
    assert all(torch.equal(each, z(seed)) for seed, each in enumerate(given))


def test_a_recording_for_each_kind_of_call() -> None:
    G, recorder = network(), Recorder()
    repeated = Repeated(G, record=recorder)
    kinds: list[dict[str, Any]] = [
        {"noise_mode": "const"}, {"noise_mode": "const", "truncation_psi": 0.5}, {"noise_mode": "const", "batch": 3},
        {"noise_mode": "const", "force_fp32": True},
    ]  # fmt: skip
    for _ in range(3):
        for kind in kinds:
            settings = dict(kind)
            given = z(7, settings.pop("batch", 2))
            assert torch.equal(repeated(given, no_label(given), **settings), G(given, **settings))
    assert recorder.replays == [2, 2, 2, 2]
    double = z(7).double()
    for _ in range(2):
        assert torch.equal(repeated(double, NO_LABEL), G(double))
    assert recorder.replays == [2, 2, 2, 2, 1]
    assert len(repeated._known) == MOST_RECORDINGS  # the oldest is gone
    repeated(z(7), NO_LABEL, noise_mode="const")
    assert len(recorder.made) == 5


def no_label(given: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(given), 0)


def new_addresses(G: Any) -> None:
    G.load_state_dict({k: v * 1.25 for k, v in G.state_dict().items()}, assign=True)


def filters(G: Any) -> None:
    getattr(G.synthesis, G.synthesis.layer_names[0]).up_filter.mul_(0.5)


def types(G: Any) -> None:
    for module in G.modules():
        if hasattr(module, "half_type"):
            module.half_type = "bfloat16"


@pytest.mark.parametrize("change", [new_addresses, filters, types, lambda G: G.train()])
def test_what_a_recording_cannot_follow_is_recorded_anew(change: Callable[[Any], None]) -> None:
    torch.manual_seed(1)
    G, recorder = network(), Recorder()
    repeated = Repeated(G, record=recorder)
    for _ in range(2):
        repeated(z(0), NO_LABEL)
    change(G)
    for _ in range(3):
        assert torch.equal(repeated(z(1), NO_LABEL), G(z(1)))
    assert recorder.replays == [1, 2]


def test_values_may_change_at_any_time() -> None:
    G, recorder = network(), Recorder()
    repeated = Repeated(G, record=recorder)
    for step in range(4):
        for p in G.parameters():
            p.mul_(1.1)
        set_transform(G, (0.1 * step, 0.0), 30.0 * step)
        assert torch.equal(repeated(z(0), NO_LABEL), G(z(0)))
    assert recorder.replays == [3]


def test_random_noise_is_drawn_anew() -> None:
    G, recorder = network(stylegan2), Recorder()
    for block in G.synthesis.children():
        for layer in block.children():
            if hasattr(layer, "noise_strength"):
                layer.noise_strength.fill_(1.0)
    repeated = Repeated(G, record=recorder)
    images = [repeated(z(0), NO_LABEL, noise_mode="random") for _ in range(3)]
    assert not torch.equal(images[1], images[2])
    assert recorder.made == []
    for _ in range(3):
        repeated(z(0), NO_LABEL, noise_mode="const")
    assert recorder.replays == [2]


def test_plain_where_there_is_no_gpu_or_graphs_are_off() -> None:
    G, recorder = network(), Recorder()
    for repeated in (Repeated(G), Repeated(G, graphs=False, record=recorder)):
        for _ in range(3):
            assert torch.equal(repeated(z(0), NO_LABEL), G(z(0)))
        assert not repeated._known
    assert recorder.made == []


def test_a_failed_recording_is_said_once_and_then_it_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def fail(run: Callable[[], torch.Tensor]) -> Recorded:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore lines")

    G = network()
    repeated = Repeated(G, record=fail)
    for seed in range(4):
        assert torch.equal(repeated(z(seed), NO_LABEL), G(z(seed)))
    assert [r.getMessage() for r in caplog.records] == [
        "sg3: running without CUDA graphs, recording failed: CUDA error: operation not permitted when stream is "
        "capturing"
    ]


def test_mistakes_are_the_networks_own() -> None:
    repeated = Repeated(network(), record=Recorder())
    with pytest.raises(ValueError, match="z: got shape"):
        repeated(torch.zeros(2, 5), NO_LABEL)


@pytest.mark.gpu
@pytest.mark.parametrize("module", [stylegan2, stylegan3])
def test_graphs_make_the_same_images(module: Any) -> None:
    G = network(module).cuda()
    latents, labels = z(0, 10), torch.zeros(10, 0)
    with_graphs, without = (list(generate(G, latents, labels, batch=2, graphs=graphs)) for graphs in (True, False))
    assert all((a == b).all() for a, b in zip(with_graphs, without, strict=True))
    repeated, draws = Repeated(G), []
    for seed in range(4):
        for p in G.parameters():
            p.mul_(1.01)
        draws.append(repeated(z(seed).cuda(), NO_LABEL.cuda(), noise_mode="const"))
        assert torch.equal(draws[-1], G(z(seed).cuda(), noise_mode="const"))
    assert next(iter(repeated._known.values())).recording is not None
