"""StyleGAN2 files of the TensorFlow era: the golden one, and others that are written here as TensorFlow would."""

from __future__ import annotations

import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sg3
from sg3.errors import DataError
from sg3.models import stylegan2
from tests.helpers import other_names
from tests.helpers import tiny_networks as tiny

Variables = list[tuple[str, np.ndarray]]


def assert_same_pictures(G: torch.nn.Module, expected: torch.nn.Module) -> None:
    """In double precision: the biases of styles are written less one, which rounds them, and nothing else."""
    made, meant = tiny.image(G.double(), 2), tiny.image(expected.double(), 2)
    torch.testing.assert_close(made, meant, rtol=0, atol=5e-6)


def test_golden_file(golden: Path) -> None:
    expected = {key: torch.from_numpy(array) for key, array in np.load(golden / "tf-sg2-16.npz").items()}
    loaded = sg3.load(golden / "tf-sg2-16.pkl")
    generator = loaded.G_ema
    image = generator(expected["z"], expected["c"], noise_mode="const", force_fp32=True)
    torch.testing.assert_close(image, expected["img"], rtol=0, atol=1e-4)
    ws = generator.mapping(expected["z"], expected["c"], truncation_psi=0.6)
    torch.testing.assert_close(ws, expected["ws"], rtol=0, atol=1e-5)
    torch.testing.assert_close(loaded.D(expected["d_x"], None), expected["d_logits"], rtol=0, atol=1e-4)
    assert generator.mapping.w_avg_beta == 0.995
    assert generator.synthesis.b8.conv1.conv_clamp is None
    assert not generator.synthesis.b16.use_fp16
    assert loaded.G is not loaded.G_ema
    assert loaded.training_set_kwargs is None
    assert loaded.augment_pipe is None
    assert loaded.origin == "StyleGAN2 of TensorFlow (.pkl)"


# ---- files as TensorFlow's StyleGAN2 writes them


class Network:
    """Pickled like `dnnlib.tflib.network.Network`."""

    def __init__(self, static_kwargs: dict[str, Any], variables: Variables, **components: Network) -> None:
        self.state = {"version": 4, "name": "N", "static_kwargs": static_kwargs, "components": components}
        self.state |= {"variables": variables, "build_module_src": "raise SystemExit", "build_func_name": "G_main"}

    def __getstate__(self) -> dict[str, Any]:
        return self.state


def write(path: Path, content: Any, protocol: int = 4) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("dnnlib", "dnnlib.tflib", "dnnlib.tflib.network"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules["dnnlib.tflib.network"].Network = Network
        patch.setattr(Network, "__module__", "dnnlib.tflib.network")
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def layer(name: str, module: torch.nn.Module, flip: bool = False) -> Variables:
    """The variables of one layer, from its tensors."""
    found: Variables = []
    for leaf, tensor in module.state_dict().items():
        x = tensor.numpy()
        if leaf == "weight" and x.ndim == 4:
            kernel = (x[:, :, ::-1, ::-1] if flip else x).transpose(2, 3, 1, 0)
            found.append((f"{name}/weight", np.ascontiguousarray(kernel)))
        elif leaf in ("weight", "affine.weight"):
            found.append((f"{name}/{'weight' if leaf == 'weight' else 'mod_weight'}", np.ascontiguousarray(x.T)))
        elif leaf == "affine.bias":
            found.append((f"{name}/mod_bias", x - 1))
        elif leaf in ("bias", "noise_strength"):
            found.append((f"{name}/{leaf}", x))
    return found


def generator(G: stylegan2.Generator, **static: Any) -> Network:
    """The network that TensorFlow would have had; `lod0` for architecture orig."""
    mapping, synthesis = G.mapping, G.synthesis
    variables: Variables = layer("LabelEmbed", mapping.embed) if mapping.embed else []
    for i in range(mapping.num_layers):
        variables += layer(f"Dense{i}", getattr(mapping, f"fc{i}"))
    drawn: Variables = [("4x4/Const/const", synthesis.b4.const.numpy()[None])]
    drawn += layer("4x4/Conv", synthesis.b4.conv1)
    noise, k = [synthesis.b4.conv1], 0
    for resolution in synthesis.block_resolutions:
        block = getattr(synthesis, f"b{resolution}")
        where = f"{resolution}x{resolution}"
        if resolution > 4:
            drawn += layer(f"{where}/Conv0_up", block.conv0, flip=True) + layer(f"{where}/Conv1", block.conv1)
            noise += [block.conv0, block.conv1]
        if hasattr(block, "skip"):
            drawn += layer(f"{where}/Skip", block.skip, flip=True)
        if hasattr(block, "torgb"):
            drawn += layer("ToRGB_lod0" if block.architecture == "orig" else f"{where}/ToRGB", block.torgb)
    for k, conv in enumerate(noise):
        drawn.append((f"noise{k}", conv.noise_const.numpy()[None, None]))
    arguments = {
        "latent_size": G.z_dim, "label_size": G.c_dim, "dlatent_size": G.w_dim, "resolution": G.img_resolution,
        "fmap_base": 48, "fmap_max": 10, "mapping_layers": np.int64(mapping.num_layers), **static,
    }  # fmt: skip
    mean = [("dlatent_avg", mapping.w_avg.numpy())]
    return Network(arguments, mean, mapping=Network({}, variables), synthesis=Network({}, drawn))


def discriminator(D: stylegan2.Discriminator, **static: Any) -> Network:
    variables: Variables = []
    for resolution in D.block_resolutions:
        block, where = getattr(D, f"b{resolution}"), f"{resolution}x{resolution}"
        if hasattr(block, "fromrgb"):
            variables += layer("FromRGB_lod0" if block.architecture == "orig" else f"{where}/FromRGB", block.fromrgb)
        variables += layer(f"{where}/Conv0", block.conv0) + layer(f"{where}/Conv1_down", block.conv1)
        if hasattr(block, "skip"):
            variables += layer(f"{where}/Skip", block.skip)
    if hasattr(D.b4, "fromrgb"):
        variables += layer("4x4/FromRGB", D.b4.fromrgb)
    variables += layer("4x4/Conv", D.b4.conv) + layer("4x4/Dense0", D.b4.fc) + layer("Output", D.b4.out)
    if D.c_dim:
        variables += layer("LabelEmbed", D.mapping.embed)
        for i in range(D.mapping.num_layers):
            variables += layer(f"Mapping{i}", getattr(D.mapping, f"fc{i}"))
    arguments = {"label_size": D.c_dim, "resolution": D.img_resolution, "fmap_base": 48, "fmap_max": 10, **static}
    return Network(arguments, variables)


def make(architecture: str = "skip", c_dim: int = 0, **kwargs: Any) -> stylegan2.Generator:
    network = stylegan2.Generator(
        8, c_dim, 8, 16, 3, {"num_layers": 3}, channel_base=96, channel_max=10, conv_clamp=None, num_fp16_res=0,
        architecture=architecture, **kwargs,
    )  # fmt: skip
    return other_names.randomized(network)


def make_discriminator(architecture: str = "resnet", c_dim: int = 0) -> stylegan2.Discriminator:
    network = stylegan2.Discriminator(
        c_dim, 16, 3, architecture, channel_base=96, channel_max=10, conv_clamp=None, num_fp16_res=0,
        mapping_kwargs={"num_layers": 2, "lr_multiplier": 0.1} if c_dim else {},
    )  # fmt: skip
    return other_names.randomized(network)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_protocols(protocol: int, tmp_path: Path) -> None:
    """Protocol 2 writes bytes as text; numpy 1 called its modules otherwise."""
    G, D = make(), make_discriminator()
    path = write(tmp_path / "a.pkl", (generator(G), discriminator(D), generator(G)), protocol)
    path.write_bytes(path.read_bytes().replace(b"numpy._core", b"numpy.core") if protocol < 4 else path.read_bytes())
    loaded = sg3.load(path)
    assert_same_pictures(loaded.G_ema, G)
    images = torch.randn(4, 3, 16, 16)
    assert torch.equal(loaded.D(images), D(images))


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_architectures(architecture: str, tmp_path: Path) -> None:
    """`orig` is not written down but follows from the names; those of lower resolutions are left over from growing."""
    G, D = make(architecture), make_discriminator(architecture)
    static = {} if architecture == "orig" else {"architecture": architecture}
    networks = generator(G, **static), discriminator(D, **static)
    if architecture == "orig":
        drawn = networks[0].state["components"]["synthesis"].state["variables"]
        drawn += [("ToRGB_lod1/bias", np.zeros(3)), ("lod", 0.0)]
        networks[1].state["variables"] += [("FromRGB_lod2/bias", np.zeros(3)), ("lod", np.float32(0))]
    loaded = sg3.load(write(tmp_path / "a.pkl", (networks[0], networks[1], networks[0])))
    assert_same_pictures(loaded.G_ema, G)
    images = torch.randn(4, 3, 16, 16)
    assert torch.equal(loaded.D(images), D(images))


def test_labels_and_settings(tmp_path: Path) -> None:
    G, D = make(c_dim=3, activation="relu", resample_filter=[1, 2, 1]), make_discriminator(c_dim=3)
    static = {
        "w_avg_beta": None, "nonlinearity": "relu", "resample_kernel": [1, 2, 1], "num_fp16_res": 2, "conv_clamp": 256,
        "truncation_psi": 0.5, "structure": "fixed", "randomize_noise": True, "fused_modconv": True,
    }  # fmt: skip
    networks = generator(G, **static), discriminator(D, mapping_layers=2, mbstd_group_size=2, freeze_layers=3)
    loaded = sg3.load(write(tmp_path / "a.pkl", (networks[0], networks[1], networks[0])))
    assert loaded.G_ema.mapping.w_avg_beta == 1
    assert loaded.G_ema.synthesis.b16.use_fp16
    assert loaded.G_ema.synthesis.b16.conv1.conv_clamp == 256
    z, c = torch.randn(2, 8), torch.eye(3)[:2]
    torch.testing.assert_close(loaded.G_ema.mapping(z, c), G.mapping(z, c))
    w = G.mapping(z, c) / 100  # small enough for no clamp to matter
    expected = G.synthesis(w, noise_mode="none")
    torch.testing.assert_close(loaded.G_ema.synthesis(w, noise_mode="none"), expected, rtol=1e-5, atol=1e-5)
    D.b4.mbstd.group_size = 2
    images = torch.randn(4, 3, 16, 16)
    assert torch.equal(loaded.D(images, torch.eye(3)[[0, 1, 2, 0]]), D(images, torch.eye(3)[[0, 1, 2, 0]]))
    assert not isinstance(loaded.D.b16.conv0.weight, torch.nn.Parameter)


def static(**entries: Any) -> Any:
    return lambda network: network.state["static_kwargs"].update(entries)


def variable(name: str, value: Any) -> Any:
    def change(network: Network) -> None:
        variables = network.state["components"]["synthesis"].state["variables"]
        variables[:] = [(n, v) for n, v in variables if n != name] + ([] if value is None else [(name, value)])

    return change


WRONG = {
    "has static arguments that sg3 does not know: blur_filter, fused_scale; not|blur_filter, fused_scale": static(
        blur_filter=[1], fused_scale=True
    ),
    "Gs: is a TensorFlow network of version 2, older than StyleGAN2": lambda n: n.state.update(version=2),
    "without static_kwargs": lambda n: n.state.pop("static_kwargs"),
    "without a list of variables": lambda n: n.state.update(variables=None),
    "has a variable that is not a name and an array": lambda n: n.state["variables"].append(("x", "y")),
    r"synthesis.b8.conv0.bias missing": variable("8x8/Conv0_up/bias", None),
    r"synthesis/8x8/Extra/bias unexpected": variable("8x8/Extra/bias", np.zeros(3)),
    r"variable synthesis/8x8/Conv1/weight has an unexpected shape \[3\]": variable("8x8/Conv1/weight", np.zeros(3)),
    r"synthesis.b8.conv1.bias has shape \[4\] instead of \[10\]": variable("8x8/Conv1/bias", np.zeros(4)),
    "resolution is 1e.30, not a usable number": static(resolution=1e30),
    "fmap_base is -1, not a usable number": static(fmap_base=-1),
    "has unusable static arguments": static(resample_kernel=np.ones(4)),
    "cannot be made from its arguments": static(resolution=20),
    "mapping_layers|num_layers": static(mapping_layers=10**9),
}


@pytest.mark.parametrize("message", WRONG)
def test_networks_that_do_not_fit(message: str, tmp_path: Path) -> None:
    G, D = make(), make_discriminator()
    wrong = generator(G)
    WRONG[message](wrong)
    with pytest.raises(DataError, match=message) as caught:
        sg3.load(write(tmp_path / "a.pkl", (generator(G), discriminator(D), wrong)))
    assert str(caught.value).startswith(f"{tmp_path / 'a.pkl'}: Gs: ")
    assert str(caught.value).isprintable()


def test_other_tuples(tmp_path: Path) -> None:
    for value in ((1, 2, 3), (generator(make()),) * 2, generator(make())):
        with pytest.raises(DataError, match="is a pickle, but not of G, D and G_ema"):
            sg3.load(write(tmp_path / "a.pkl", value))
    network = Network({}, [])
    network.state = ["no dictionary"]
    with pytest.raises(DataError, match="has a network without attributes"):
        sg3.load(write(tmp_path / "a.pkl", (network, network, network)))


def test_components_without_end(tmp_path: Path) -> None:
    """Components that share components can describe exponentially many."""
    network = generator(make())
    for _ in range(20):
        network = Network(network.state["static_kwargs"], [], a=network, b=network)
    with pytest.raises(DataError, match="describes more than 250000 values"):
        sg3.load(write(tmp_path / "a.pkl", (network, discriminator(make_discriminator()), network)))
