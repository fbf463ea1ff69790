"""Networks against the numbers of the original: weights from golden snapshots, read by our own loader."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import sg3
from sg3.models import stylegan2, stylegan3
from sg3.models.layers import count_parameters

NETWORKS = ("sg3t-64", "sg3r-64", "sg2-32-cond")


@pytest.mark.parametrize("name", NETWORKS)
def test_state_dict_names_and_shapes(golden_networks, name: str) -> None:
    settings, _ = golden_networks
    family = stylegan2 if name.startswith("sg2") else stylegan3
    G = family.Generator(**settings[name]["G_kwargs"])
    D = stylegan2.Discriminator(**settings[name]["D_kwargs"])
    assert {k: list(v.shape) for k, v in G.state_dict().items()} == settings[name]["G_state"]
    assert {k: list(v.shape) for k, v in D.state_dict().items()} == settings[name]["D_state"]


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_outputs(golden: Path, golden_networks, name: str) -> None:
    _, arrays = golden_networks
    expected = arrays.under(f"{name}/")
    snapshot = sg3.load(golden / f"{name}.pkl")
    G, D = snapshot.G_ema, snapshot.D
    z, c = expected["z"], expected["c"]

    def near(got: torch.Tensor, key: str) -> None:
        torch.testing.assert_close(got, expected[key], atol=1e-4, rtol=0)

    near(G.mapping(z, c), "ws")
    near(G.mapping(z, c, truncation_psi=0.5, truncation_cutoff=3), "ws_psi05_cut3")
    near(G(z, c, noise_mode="const"), "img")
    near(G(z, c, truncation_psi=0.5, noise_mode="const"), "img_psi05")
    near(D(expected["d_x"], expected["d_c"]), "d_logits")
    if "transform" in expected:
        G.synthesis.input.transform.copy_(expected["transform"])
        near(G(z, c, noise_mode="const"), "img_transformed")


@pytest.mark.parametrize("name", ["stylegan3-t-256", "stylegan3-t-1024", "stylegan3-r-256", "stylegan3-r-1024"])
def test_layer_specs(golden: Path, name: str) -> None:
    """Sizes, rates, band limits, paddings, filters and parameter counts of the published configurations."""
    spec = json.loads((golden / "layer_specs.json").read_text())[name]
    rotation = {"conv_kernel": 1, "use_radial_filters": True, "channel_base": 65536, "channel_max": 1024}
    G = stylegan3.Generator(512, 0, 512, int(name[-4:].strip("-")), 3, **(rotation if "-r-" in name else {}))
    assert G.num_ws == spec["num_ws"]
    assert count_parameters(G) == spec["params"]
    first = G.synthesis.input
    assert [first.size] * 2 == spec["input_size"]
    assert first.channels == spec["input_channels"]
    assert first.sampling_rate == spec["input_sampling_rate"]
    assert first.bandwidth == pytest.approx(spec["bandwidth"])
    assert G.synthesis.layer_names == [layer["name"] for layer in spec["layers"]]
    for expected in spec["layers"]:
        layer = getattr(G.synthesis, expected["name"])
        s = layer.spec
        for key in ("in_channels", "out_channels", "in_sampling_rate", "out_sampling_rate"):
            assert getattr(s, key) == expected[key], (expected["name"], key)
        for key in ("in_cutoff", "out_cutoff", "in_half_width", "out_half_width"):
            assert getattr(s, key) == pytest.approx(expected[key], rel=1e-12), (expected["name"], key)
        assert [s.in_size] * 2 == expected["in_size"]
        assert [s.out_size] * 2 == expected["out_size"]
        assert layer.tmp_sampling_rate == expected["tmp_sampling_rate"]
        assert (layer.up_factor, layer.down_factor) == (expected["up"], expected["down"])
        assert layer.padding == expected["padding"]
        assert (s.use_fp16, s.is_critically_sampled) == (expected["use_fp16"], expected["critical"])
        _same_taps(layer.up_filter, expected["up_filter"])
        _same_taps(layer.down_filter, expected["down_filter"])


def _same_taps(ours: torch.Tensor | None, golden: list | None) -> None:
    if ours is None or golden is None:
        assert ours is None
        assert golden is None
        return
    taps = ours[[0, 5]] if ours.ndim == 2 else ours  # of radial filters, golden holds rows 0 and 5
    np.testing.assert_allclose(taps.numpy(), np.array(golden), atol=3e-8)
