"""Loss terms: gradients against golden, and the parts that golden leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sg3
from sg3.train.log import Stats
from sg3.train.losses.blur import gaussian_taps
from sg3.train.recipes.stylegan.loss import Loss
from sg3.train.recipes.system import MicroBatch

CASES = [(n, p) for n, phases in {
    "sg3t-64": ("Gmain", "Dmain", "Dreg", "Dboth"), "sg2-32-cond": ("Gmain", "Greg", "Dmain", "Dreg", "Dboth"),
}.items() for p in phases]  # fmt: skip


@pytest.mark.parametrize(("name", "phase"), CASES)
def test_gradients_equal_golden(golden: Path, golden_networks, monkeypatch, name: str, phase: str) -> None:
    # On the reference ops, whose arithmetic is the oracle's. Which side of a leaky ReLU's kink an activation falls on
    # can still depend on the processor: a rounding difference of 1e-7 moves the gradients of a tiny network by 1e-3. So
    # the images may be scaled by a few roundings; a wrong formula is wrong for all of them.
    monkeypatch.setenv("SG3_IMPL", "ref")
    settings, arrays = golden_networks
    given = arrays.under(f"loss/{name}/{phase}/")
    expected = arrays.under(f"loss/{name}/{phase}/grad/")
    worst = {}
    for scale in (1.0, 1 - 3e-7, 1 + 3e-7, 1 - 1e-6, 1 + 1e-6):
        grads = loss_gradients(golden / f"{name}.pkl", phase, settings[name]["loss"][phase], given, scale, monkeypatch)
        errors = {  # the gradient of noise strengths depends on noise that golden does not hold; R1 skips some biases
            key: float((grads[key] - value).abs().max() / value.abs().max().clamp_min(1e-20))
            for key, value in expected.items() if not key.endswith("noise_strength")
        }  # fmt: skip
        assert len(errors) >= 25
        key = max(errors, key=lambda key: errors[key])
        worst[scale] = key, errors[key]
        if errors[key] <= 1e-3:
            return
    pytest.fail(f"largest relative errors by scale: {worst}")


def loss_gradients(
    path: Path, phase: str, case: dict[str, Any], given: dict[str, torch.Tensor], scale: float,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, torch.Tensor]:  # fmt: skip
    """Gradients of one phase for the network that it trains, with generated images times `scale`."""
    snapshot = sg3.load(path)
    G, D = snapshot.G, snapshot.D
    G.synthesis.register_forward_hook(lambda _, __, images: images * scale)
    for key, p in G.named_parameters():
        if key.endswith("noise_strength"):
            p.zero_()
    if "pl_noise" in given:
        monkeypatch.setattr(torch, "randn_like", lambda x: given["pl_noise"].reshape(x.shape))
    loss = Loss(
        G, D, Stats(), r1_gamma=case["r1_gamma"], pl_weight=case["pl_weight"],
        pl_batch_shrink=case["pl_batch_shrink"], pl_decay=case["pl_decay"],
    )  # fmt: skip
    terms = {
        "Gmain": [loss.g_adversarial], "Greg": [loss.g_path_length], "Dmain": [loss.d_fake, loss.d_real],
        "Dreg": [loss.d_r1], "Dboth": [loss.d_fake, loss.d_real, loss.d_r1],
    }[phase]  # fmt: skip
    module = G if phase[0] == "G" else D
    module.requires_grad_(True)
    mb = MicroBatch(given["real"], given["c"], given["z"], given["c"], np.random.default_rng(0))
    for term in terms:
        (term(mb).mean() * case["gain"]).backward()
    if "pl_mean_after" in given:
        torch.testing.assert_close(loss.pl_mean, given["pl_mean_after"], rtol=1e-5, atol=0)
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def test_blur_taps_shrink_from_61_to_none() -> None:
    cpu = torch.device("cpu")
    taps = gaussian_taps(10.0, cpu)
    assert taps is not None
    assert taps.numel() == 61
    torch.testing.assert_close(taps.sum(), torch.ones([]))
    torch.testing.assert_close(taps[30] / taps[40], torch.tensor(2.0))  # exp2: half after sigma pixels
    assert gaussian_taps(0.0, cpu) is None
    assert gaussian_taps(0.3, cpu) is None
    small = gaussian_taps(0.4, cpu)
    assert small is not None
    assert small.numel() == 3


class Constant(torch.nn.Module):
    """A stand-in G whose w says which latent it came from."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping = lambda z, c, update_emas=False: z[:, None].repeat(1, 6, 1)
        self.synthesis = lambda ws, update_emas=False: ws


def test_style_mixing_replaces_a_tail_of_the_ws() -> None:
    loss = Loss(Constant(), torch.nn.Identity(), Stats(), style_mixing_prob=0.9)
    z, c = torch.zeros(2, 4), torch.zeros(2, 0)
    cutoffs = []
    for seed in range(300):
        ws = loss.mixed_ws(z, c, np.random.default_rng(seed))
        same = (ws == 0).all(dim=2).all(dim=0)
        cutoff = int(same.sum())
        assert same[:cutoff].all()  # the head keeps the first latent, the tail takes the other
        cutoffs.append(cutoff)
    unmixed = cutoffs.count(6) / 300
    assert 0.05 < unmixed < 0.15
    assert set(cutoffs) == {1, 2, 3, 4, 5, 6}


@pytest.mark.parametrize("clamped", [False, True])
def test_clamped_images_are_those_that_files_hold(clamped: bool) -> None:
    """D sees no colour beyond white or black, so G may go beyond; within nothing changes."""
    z = torch.tensor([[[0.5, 1.5], [-3.0, -1.0]]], requires_grad=True)
    seen: list[torch.Tensor] = []

    def D(img: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        seen.append(img.detach())
        return img.flatten(1).sum(dim=1, keepdim=True)

    G = Constant()
    G.mapping = lambda z, c, update_emas=False: z
    loss = Loss(G, D, Stats(), clamp_images=clamped, discriminator=D)  # type: ignore[arg-type]
    mb = MicroBatch(torch.zeros(1, 2, 2), torch.zeros(1, 0), z, torch.zeros(1, 0), np.random.default_rng(0))
    (grad,) = torch.autograd.grad(loss.g_adversarial(mb).sum(), z)
    loss.d_fake(mb)
    expected = z.detach().clamp(-1, 1) if clamped else z.detach()
    assert [torch.equal(img, expected) for img in seen] == [True, True]
    assert (grad != 0).tolist() == [[[True, not clamped], [not clamped, True]]]
