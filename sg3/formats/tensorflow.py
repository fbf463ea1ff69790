"""StyleGAN2 and StyleGAN2-ADA files of the TensorFlow era.

The file is a pickled tuple (G, D, Gs) of networks. Each has its static arguments by TensorFlow's names, variables
[(name, array)] and components, which are networks themselves. Convolution kernels are [kh, kw, in, out], dense ones
[in, out]; variables are renamed and transposed to what sg3's networks have, and `networks.build` does the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sg3 import limits
from sg3.errors import DataError
from sg3.formats import networks
from sg3.formats.pickle_values import NetworkState
from sg3.formats.plain_data import plain
from sg3.formats.snapshot import Snapshot
from sg3.terminal import printable

OLDEST_VERSION = 4  # before: StyleGAN (1) and Progressive GAN, other networks
MAX_COMPONENTS = 100
IGNORED = frozenset({
    "truncation_psi", "truncation_cutoff", "style_mixing_prob", "structure", "conditioning", "fused_modconv",
    "resolution_w", "resolution_h", "randomize_noise",
})  # fmt: skip
# TensorFlow's static arguments -> where they go, in dotted form; see `_arguments`.
COMMON = {
    "fmap_base": "channel_base",  # TensorFlow counts it per two pixels: doubled
    "label_size": "c_dim", "resolution": "img_resolution", "num_channels": "img_channels", "fmap_max": "channel_max",
    "num_fp16_res": "num_fp16_res", "conv_clamp": "conv_clamp", "architecture": "architecture",
    "mapping_layers": "mapping_kwargs.num_layers", "label_fmaps": "mapping_kwargs.embed_features",
    "mapping_fmaps": "mapping_kwargs.layer_features", "mapping_nonlinearity": "mapping_kwargs.activation",
    "mapping_lrmul": "mapping_kwargs.lr_multiplier",
}  # fmt: skip
GENERATOR = COMMON | {
    "latent_size": "z_dim", "dlatent_size": "w_dim", "w_avg_beta": "mapping_kwargs.w_avg_beta",
    "resample_kernel": "resample_filter", "use_noise": "use_noise", "nonlinearity": "activation",
}  # fmt: skip
DISCRIMINATOR = COMMON | {
    "resample_kernel": "block_kwargs.resample_filter", "nonlinearity": "block_kwargs.activation",
    "freeze_layers": "block_kwargs.freeze_layers", "mbstd_group_size": "epilogue_kwargs.mbstd_group_size",
    "mbstd_num_features": "epilogue_kwargs.mbstd_num_channels",
}  # fmt: skip
# What the TensorFlow networks had where nothing is given, as far as sg3's own defaults differ or there are none.
COMMON_DEFAULTS = {"label_size": 0, "resolution": 1024, "num_channels": 3, "num_fp16_res": 0, "conv_clamp": None}
GENERATOR_DEFAULTS = COMMON_DEFAULTS | {"latent_size": 512, "dlatent_size": 512, "w_avg_beta": 0.995}
DISCRIMINATOR_DEFAULTS = COMMON_DEFAULTS | {"mapping_layers": 0, "mapping_lrmul": 0.1}


def recognises(content: Any) -> bool:
    """Whether a pickle's content is such a file's: a tuple of networks."""
    return isinstance(content, tuple) and len(content) == 3 and all(isinstance(n, NetworkState) for n in content)


def interpret(content: tuple[NetworkState, NetworkState, NetworkState], path: Path) -> Snapshot:
    """The networks of such a file. Raises DataError, in one line, for whatever does not fit."""
    G, D, Gs = content
    return Snapshot(
        G=_generator(G, f"{path}: G"),
        D=_discriminator(D, f"{path}: D"),
        G_ema=_generator(Gs, f"{path}: Gs"),
        origin="StyleGAN2 of TensorFlow (.pkl)",
    )


def _generator(network: NetworkState, where: str) -> nn.Module:
    static = GENERATOR_DEFAULTS | _static(network, GENERATOR, where)
    variables = _variables(network, where)
    if "synthesis/ToRGB_lod0/weight" in variables:
        static.setdefault("architecture", "orig")
    arguments = _arguments(static, GENERATOR)
    mapping = arguments["mapping_kwargs"]
    if mapping["w_avg_beta"] is None:
        mapping["w_avg_beta"] = 1.0  # a mean that stays as it is
    tensors = _renamed(variables, GENERATOR_MODULES, static["resolution"], where)
    return networks.build(networks.STYLEGAN2_GENERATOR, arguments, tensors, where, IMPLIED)


def _discriminator(network: NetworkState, where: str) -> nn.Module:
    static = DISCRIMINATOR_DEFAULTS | _static(network, DISCRIMINATOR, where)
    variables = _variables(network, where)
    if "FromRGB_lod0/weight" in variables:
        static.setdefault("architecture", "orig")
    arguments = _arguments(static, DISCRIMINATOR)
    if "nonlinearity" in static:
        arguments["epilogue_kwargs"]["activation"] = static["nonlinearity"]
    tensors = _renamed(variables, DISCRIMINATOR_MODULES, static["resolution"], where)
    return networks.build(networks.STYLEGAN2_DISCRIMINATOR, arguments, tensors, where, IMPLIED)


def _static(network: NetworkState, known: dict[str, str], where: str) -> dict[str, Any]:
    """The static arguments that mean something here. Raises DataError, naming them all, if any is unknown."""
    static = network.state.get("static_kwargs")
    version = network.state.get("version")
    if not isinstance(static, dict) or not isinstance(version, int):
        raise DataError(f"{where}: is a TensorFlow network without static_kwargs and version")
    if version < OLDEST_VERSION:
        raise DataError(f"{where}: is a TensorFlow network of version {version}, older than StyleGAN2")
    if unknown := [name for name in static if name not in known and name not in IGNORED]:
        raise DataError(f"{where}: has static arguments that sg3 does not know: {printable(', '.join(unknown))}")
    try:
        kept = plain({name: value for name, value in static.items() if name in known})
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: has unusable static arguments ({printable(error)})") from None
    for name in ("resolution", "fmap_base"):
        if not isinstance(kept.get(name, 4), int) or not 4 <= kept.get(name, 4) <= 2**22:
            raise DataError(f"{where}: static argument {name} is {printable(kept[name])}, not a usable number")
    return kept


def _arguments(static: dict[str, Any], known: dict[str, str]) -> dict[str, Any]:
    """sg3's constructor arguments: `known` says where each goes, "a.b" being entry b of the dictionary a."""
    arguments: dict[str, Any] = {}
    for name, value in static.items():
        *groups, last = known[name].split(".")
        target = arguments
        for group in groups:
            target = target.setdefault(group, {})
        target[last] = value * 2 if name == "fmap_base" else value
    arguments.setdefault("mapping_kwargs", {})
    if known is DISCRIMINATOR:
        arguments.setdefault("epilogue_kwargs", {})
    return arguments


def _variables(network: NetworkState, where: str) -> dict[str, np.ndarray]:
    """All variables of a network and its components: "component/name" -> array."""
    found: dict[str, np.ndarray] = {}
    pending = [("", network)]
    count = 0
    while pending:
        prefix, part = pending.pop()
        count += 1
        variables, components = part.state.get("variables"), part.state.get("components", {})
        if not isinstance(variables, list) or not isinstance(components, dict) or count > MAX_COMPONENTS:
            raise DataError(f"{where}: is a TensorFlow network without a list of variables")
        for entry in variables:
            match entry:
                case (str(name), np.ndarray() | int() | float() as value) if len(name) <= limits.NAME:
                    array = np.asarray(value)
                    if array.size > 1 and array.dtype.kind != "f":  # they would grow as they become float32
                        raise DataError(f"{where}: variable {printable(name)} holds {array.dtype}, not real numbers")
                    found[prefix + name] = array
                case _:
                    raise DataError(f"{where}: has a variable that is not a name and an array")
        pending += [(f"{prefix}{name}/", c) for name, c in components.items() if isinstance(c, NetworkState)]
    return found


# ---- names of variables

Change = Callable[[torch.Tensor], torch.Tensor]
IMPLIED = frozenset({"resample_filter"})


def _dense(x: torch.Tensor) -> torch.Tensor:
    """[in, out] -> [out, in]."""
    return x.t()


def _conv(x: torch.Tensor) -> torch.Tensor:
    """[kh, kw, in, out] -> [out, in, kh, kw]."""
    return x.permute(3, 2, 0, 1)


def _upsampling_conv(x: torch.Tensor) -> torch.Tensor:
    """The same for layers that upsample, whose kernels TensorFlow keeps the other way round."""
    return x.permute(3, 2, 0, 1).flip(2, 3)


# Module in TensorFlow -> sg3's, and how its `weight` changes. {0} is what the pattern's group caught, or else the
# network's resolution.
Module = tuple[str, str, Change]
GENERATOR_MODULES: list[Module] = [
    (r"mapping/LabelEmbed", "mapping.embed", _dense),
    (r"mapping/Dense(\d+)", "mapping.fc{0}", _dense),
    (r"synthesis/4x4/Conv", "synthesis.b4.conv1", _conv),
    (r"synthesis/(\d+)x\d+/Conv0_up", "synthesis.b{0}.conv0", _upsampling_conv),
    (r"synthesis/(\d+)x\d+/Conv1", "synthesis.b{0}.conv1", _conv),
    (r"synthesis/(\d+)x\d+/ToRGB", "synthesis.b{0}.torgb", _conv),
    (r"synthesis/ToRGB_lod0", "synthesis.b{0}.torgb", _conv),
    (r"synthesis/(\d+)x\d+/Skip", "synthesis.b{0}.skip", _upsampling_conv),
]
DISCRIMINATOR_MODULES: list[Module] = [
    (r"(\d+)x\d+/FromRGB", "b{0}.fromrgb", _conv),
    (r"FromRGB_lod0", "b{0}.fromrgb", _conv),
    (r"(\d+)x\d+/Conv0", "b{0}.conv0", _conv),
    (r"(\d+)x\d+/Conv1_down", "b{0}.conv1", _conv),
    (r"(\d+)x\d+/Skip", "b{0}.skip", _conv),
    (r"4x4/Conv", "b4.conv", _conv),
    (r"4x4/Dense0", "b4.fc", _dense),
    (r"Output", "b4.out", _dense),
    (r"LabelEmbed", "mapping.embed", _dense),
    (r"Mapping(\d+)", "mapping.fc{0}", _dense),
]
# Left over from progressive growing: image layers of lower resolutions, and how far it had come.
UNUSED = r"(synthesis/)?((To|From)RGB_lod[1-9]\d*/.*|lod)"


def _renamed(
    variables: dict[str, np.ndarray], modules: list[Module], resolution: int, where: str
) -> dict[str, torch.Tensor]:
    """Variables as sg3's state_dict has them. A name without a rule stays, to be reported as unexpected."""
    tensors: dict[str, torch.Tensor] = {}
    for name, array in variables.items():
        if re.fullmatch(UNUSED, name):
            continue
        ours, change = _rule(name, modules, resolution)
        try:
            tensors[ours] = change(torch.from_numpy(array.astype(np.float32))).contiguous()
        except (RuntimeError, IndexError, ValueError, TypeError):
            shape = printable(list(array.shape))
            raise DataError(f"{where}: variable {printable(name)} has an unexpected shape {shape}") from None
    return tensors


def _rule(name: str, modules: list[Module], resolution: int) -> tuple[str, Change]:
    """sg3's name of a variable, and how its values change."""
    if name == "dlatent_avg":
        return "mapping.w_avg", _same
    if name == "synthesis/4x4/Const/const":
        return "synthesis.b4.const", lambda x: x[0]
    if found := re.fullmatch(r"synthesis/noise(\d{1,2})", name):
        k = int(found[1])  # 0 at 4 x 4, then two at each resolution
        return f"synthesis.b{2 ** ((k + 5) // 2)}.conv{(k + 1) % 2}.noise_const", lambda x: x[0, 0]
    module, _, leaf = name.rpartition("/")
    for pattern, ours, weight in modules:
        if found := re.fullmatch(pattern, module):
            leaves: dict[str, tuple[str, Change]] = {
                "weight": ("weight", weight),
                "bias": ("bias", _same),
                "noise_strength": ("noise_strength", _same),
                "mod_weight": ("affine.weight", _dense),
                "mod_bias": ("affine.bias", lambda x: x + 1),  # TensorFlow's layers add it when they run
            }
            if leaf in leaves:
                tail, change = leaves[leaf]
                return f"{ours.format(*found.groups(), resolution)}.{tail}", change
    return name, _same


def _same(x: torch.Tensor) -> torch.Tensor:
    return x
