"""Networks from constructor arguments and tensors out of a file, which are not to be trusted.

Every file format ends here: it finds out the family, translates names, and calls `build`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from sg3 import limits
from sg3.errors import DataError, UsageError
from sg3.models import (
    augment,
    discriminator,
    fastgan,
    layers,
    projected,
    projected_heads,
    r3gan,
    spectral,
    stylegan2,
    stylegan3,
)
from sg3.terminal import printable


@dataclass(frozen=True)
class Family:
    """A kind of network, and the classes that its constructor arguments go to.

    `takes` has those of the top level under "", and one entry for each argument that is a dictionary of
    arguments.
    """

    title: str
    network: type[nn.Module]
    takes: dict[str, tuple[type[nn.Module], ...]]
    always: dict[str, Any] = field(default_factory=dict)  # arguments that are ours to give, whatever the file says

    def knows(self, name: str, group: str = "") -> bool:
        """Whether the constructor has this argument, at the top level or in a keyword dictionary."""
        return self._parameter(name, group) is not None

    def default(self, name: str, group: str = "") -> Any:
        """sg3's default of an argument."""
        parameter = self._parameter(name, group)
        assert parameter is not None
        return parameter.default

    def _parameter(self, name: str, group: str) -> inspect.Parameter | None:
        for cls in self.takes[group]:
            parameter = inspect.signature(cls).parameters.get(name)
            if parameter is not None and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                return parameter
        return None


STYLEGAN3_GENERATOR = Family(
    "StyleGAN3 generator",
    stylegan3.Generator,
    {"": (stylegan3.Generator, stylegan3.SynthesisNetwork), "mapping_kwargs": (layers.MappingNetwork,)},
)
STYLEGAN2_GENERATOR = Family(
    "StyleGAN2 generator",
    stylegan2.Generator,
    {"": (stylegan2.Generator, stylegan2.SynthesisNetwork), "mapping_kwargs": (layers.MappingNetwork,)},
)
STYLEGAN2_DISCRIMINATOR = Family(
    "StyleGAN2 discriminator",
    discriminator.Discriminator,
    {
        "": (discriminator.Discriminator,),
        "mapping_kwargs": (layers.MappingNetwork,),
        "block_kwargs": (discriminator.DiscriminatorBlock,),
        "epilogue_kwargs": (discriminator.DiscriminatorEpilogue,),
    },
)
FASTGAN_GENERATOR = Family(
    "FastGAN generator",
    fastgan.Generator,
    {"": (fastgan.Generator,), "synthesis_kwargs": (fastgan.FastganSynthesis,)},
)
PROJECTED_DISCRIMINATOR = Family(
    "projected discriminator",
    projected.ProjectedDiscriminator,
    {
        "": (projected.ProjectedDiscriminator,),
        "backbone_kwargs": (projected.RandomProjection, projected_heads.MultiScaleD),
    },
    {"pretrained": False},
)
R3GAN_GENERATOR = Family("R3GAN generator", r3gan.Generator, {"": (r3gan.Generator,)})
R3GAN_DISCRIMINATOR = Family("R3GAN discriminator", r3gan.Discriminator, {"": (r3gan.Discriminator,)})
AUGMENT_PIPE = Family("augmentation pipeline", augment.AugmentPipe, {"": (augment.AugmentPipe,)})

GENERATORS = (STYLEGAN3_GENERATOR, STYLEGAN2_GENERATOR, FASTGAN_GENERATOR, R3GAN_GENERATOR)
DISCRIMINATORS = (STYLEGAN2_DISCRIMINATOR, PROJECTED_DISCRIMINATOR, R3GAN_DISCRIMINATOR)

# Arguments of forks that set up training and change nothing of what a network computes, whatever their value.
WITHOUT_EFFECT = frozenset({"mapping_kwargs.freeze_layers", "mapping_kwargs.freeze_embed"})
STYLEGAN_XL = {"head_layer_names", "head_layers", "up_factor", "mapping_kwargs.rand_embedding"}


def build(
    family: Family,
    arguments: dict[str, Any],
    tensors: dict[str, torch.Tensor],
    where: str,
    implied: frozenset[str] = frozenset(),
) -> nn.Module:
    """The network with these constructor arguments, filled with these tensors, on the CPU; see `frozen`.

    Its state_dict must have exactly these names and shapes; only tensors with a last name in `implied`, which
    the constructor makes from its arguments, may be absent. Raises DataError, beginning with `where`, if it
    has not, or if the constructor does not take the arguments.
    """
    _check_arguments(family, arguments, where)
    if len(tensors) > limits.TENSORS:
        raise DataError(f"{where}: has {len(tensors)} tensors, more than any network")
    # Counted by storage: a file may let many tensors show the same one.
    storages = {t.untyped_storage().data_ptr(): t for t in tensors.values() if t.is_floating_point()}
    elements = sum(t.untyped_storage().nbytes() // t.element_size() for t in storages.values())
    try:
        with torch.device("cpu"), _BlankTensors(elements, len(tensors)):
            network = family.network(**arguments | family.always)
    except _TooLarge:
        raise DataError(f"{where}: its arguments describe a larger network than its tensors") from None
    except Exception as error:  # constructors need not foresee every combination that a damaged file may hold
        cause = f"{type(error).__name__}: {printable(error)}"
        raise DataError(f"{where}: a {family.title} cannot be made from its arguments ({cause})") from error

    expected = network.state_dict()
    required = [name for name in expected if name.rpartition(".")[2] not in implied]
    problems = [f"{name} missing" for name in required if name not in tensors]
    problems += [f"{printable(name)} unexpected" for name in tensors if name not in expected]
    for name, tensor in tensors.items():
        if name in expected and tensor.shape != expected[name].shape:
            problems.append(f"{name} has shape {list(tensor.shape)} instead of {list(expected[name].shape)}")
        elif name in expected and tensor.is_floating_point() != expected[name].is_floating_point():
            kind = "real numbers" if expected[name].is_floating_point() else "integers"
            problems.append(f"{name} holds {tensor.dtype} instead of {kind}")
    if problems:
        rest = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise DataError(f"{where}: does not fit a {family.title}: {', '.join(problems[:3])}{rest}")
    network.load_state_dict({**expected, **tensors})
    return network


def without_effect(family: Family, arguments: dict[str, Any]) -> list[str]:
    """Take the arguments out that the constructor does not know and that change nothing: those of WITHOUT_EFFECT, and
    any that is switched off (None, False, 0, nothing). Returns them, as "name = value"."""
    left_out: list[str] = []
    for group in family.takes:
        values = arguments.get(group) if group else arguments
        if not isinstance(values, dict):
            continue
        for name, value in list(values.items()):
            full = f"{group}.{name}" if group else name
            if family.knows(name, group) or full in STYLEGAN_XL:
                continue
            if full in WITHOUT_EFFECT or not value:
                left_out.append(printable(f"{full} = {value}"))
                del values[name]
    return left_out


def frozen(network: nn.Module, device: torch.device | str) -> nn.Module:
    """The network itself, ready to use rather than to train: on `device`, eval mode, without gradients."""
    return network.eval().requires_grad_(False).to(device)


def reverse_colours(network: nn.Module, where: str) -> None:
    """Make a network for images in the order blue, green, red one for red, green, blue, or the other way round.

    Raises UsageError if its images have not three channels.
    """
    if network.img_channels != 3:
        raise UsageError(f"{where}: has images of {network.img_channels} channels; only three have an order of colours")
    with torch.no_grad():
        for name, layer in network.named_modules():
            is_last = isinstance(layer, stylegan3.SynthesisLayer) and layer.spec.is_torgb
            if is_last or isinstance(layer, stylegan2.ToRGBLayer):
                layer.weight.copy_(layer.weight.flip(0))
                layer.bias.copy_(layer.bias.flip(0))
            elif isinstance(layer, layers.Conv2dLayer) and name.endswith("fromrgb"):
                layer.weight.copy_(layer.weight.flip(1))
            elif isinstance(layer, spectral.SpectralConv2d) and name == "synthesis.to_big":
                for tensor in (layer.weight_orig, layer.bias, layer.weight_u):
                    assert tensor is not None
                    tensor.copy_(tensor.flip(0))
            elif isinstance(layer, r3gan.Convolution) and name == "Model.AggregationLayer":
                layer.Layer.weight.copy_(layer.Layer.weight.flip(0))
            elif isinstance(layer, r3gan.Convolution) and name == "Model.ExtractionLayer":
                layer.Layer.weight.copy_(layer.Layer.weight.flip(1))
            elif isinstance(layer, nn.Conv2d) and name == "feature_network.pretrained.layer0.0":
                layer.weight.copy_(layer.weight.flip(1))


def _check_arguments(family: Family, arguments: dict[str, Any], where: str) -> None:
    unknown = [name for name in arguments if not family.knows(name)]
    for group in filter(None, family.takes):
        inner = arguments.get(group)
        if not isinstance(inner, dict | None):
            raise DataError(f"{where}: constructor argument {group} is not a dictionary")
        unknown += [f"{group}.{name}" for name in inner or {} if not family.knows(name, group)]
    if unknown:
        names = printable(", ".join(unknown))
        hint = "; this looks like StyleGAN-XL, which sg3 does not read" if STYLEGAN_XL & set(unknown) else ""
        raise DataError(f"{where}: a {family.title} of this version of sg3 has no argument {names}{hint}")
    for name, value in _numbers("", arguments):
        low, high = limits.ARGUMENTS.get(name, (-limits.OTHER_ARGUMENTS, limits.OTHER_ARGUMENTS))
        if not low <= value <= high:  # also true for NaN
            raise DataError(
                f"{where}: constructor argument {name} = {printable(value)} is out of range ({low:g} to {high:g})"
            )


def _numbers(name: str, value: Any) -> Iterator[tuple[str, int | float]]:
    """All numbers in nested plain data, each with the name of the argument that it belongs to; first the length of
    lists, which are filters or have an entry for each resolution."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(key, inner)
    elif isinstance(value, (list, tuple)):
        yield f"length of {name}", len(value)
        for inner in value:
            yield from _numbers(name, inner)
    elif isinstance(value, (int, float)):
        yield name, value


class _TooLarge(Exception):
    pass


class _BlankTensors(TorchFunctionMode):
    """While active, new tensors are zeros instead of random, and there may be little more of them than are in the
    file: so many elements, so many tensors.

    Constructors draw random weights that are about to be overwritten. Zeros cost nothing and leave the
    caller's random generator alone. The limits stop arguments that ask for gigabytes before they get them.
    """

    def __init__(self, elements: int, tensors: int = limits.TENSORS) -> None:
        super().__init__()
        self._left = elements + limits.SPARE_ELEMENTS
        self._tensors_left = 8 * tensors + limits.SPARE_TENSORS

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (nn.init.kaiming_uniform_, nn.init.uniform_, nn.init.normal_):  # by torch's own layers
            return args[0] if args else kwargs["tensor"]
        if func in (torch.randn, torch.rand, torch.zeros, torch.ones, torch.empty, torch.full):
            shape = kwargs.get("size", args[0] if args and not isinstance(args[0], int) else args)
            self._left -= prod(shape)
            self._tensors_left -= 1
            if self._left < 0 or self._tensors_left < 0:
                raise _TooLarge
            if func in (torch.randn, torch.rand):
                kwargs.pop("generator", None)
                func = torch.zeros
        return func(*args, **kwargs)
