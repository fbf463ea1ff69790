"""Decode pickles without running anything they name.

Unpickling normally calls what the file tells it to call. Here every name is looked up in an exact list, and
stands for an inert `Global`; calling it only notes down a `Call`. The result is a tree of plain Python
data, `Call`s and `Global`s, in which nothing has been executed, imported or allocated beyond the file's own
bytes. `pickle_values` then interprets the few calls that network files consist of.

Real objects would not do, not even harmless ones. A pickle may set attributes of anything it got hold of
(BUILD), say the default arguments of an allowed function; a numpy dtype accepts flags that make an array
take bytes for object pointers; `torch.storage._load_from_bytes` is a second, unrestricted unpickler.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from math import prod
from typing import Any, BinaryIO

from sg3 import limits
from sg3.pickle_scan import BoundedReader, Refused, scan
from sg3.pickle_size import check_unfolded
from sg3.terminal import printable

Name = tuple[str, str]  # module, name
TENSORS: frozenset[Name] = frozenset({("torch._utils", "_rebuild_tensor"), ("torch._utils", "_rebuild_tensor_v2")})


class Global:
    """A name that the pickle refers to; calling it notes the call."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name

    def __call__(self, *args: Any) -> Call:
        return Call(self, args)

    def __setstate__(self, state: object) -> None:
        raise Refused(f"changes attributes of {self.module}.{self.name}")


class Call:
    """A call that the pickle asks for: `function(*args)`, and the state it wants to set on the result."""

    __slots__ = ("args", "function", "state")

    def __init__(self, function: Global, args: tuple[Any, ...]) -> None:
        self.function = function
        self.args = args
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    @property
    def elements(self) -> int | None:
        """How many elements the tensor claims that this call makes; None for other calls."""
        if (self.function.module, self.function.name) not in TENSORS or len(self.args) < 3:
            return None
        size = self.args[2]
        if not isinstance(size, tuple) or not all(isinstance(n, int) and 0 <= n < 2**63 for n in size):
            return 0
        return prod(size[: limits.DIMENSIONS])


class Mapping(dict[str, Any]):
    """Stands for OrderedDict and EasyDict, which are filled after they are made, or by Python 2 with a list of pairs.
    Attributes are ignored."""

    __slots__ = ()

    def __init__(self, pairs: object = ()) -> None:
        super().__init__()
        for pair in pairs if isinstance(pairs, (list, tuple)) else (pairs,):
            # No other keys, as `scan` sees to elsewhere: there are some that take forever to hash.
            if type(pair) is not list or len(pair) != 2 or type(pair[0]) is not str or len(pair[0]) > limits.NAME:
                raise Refused("holds a dictionary that is made of something else than names and values")
            self[pair[0]] = pair[1]

    def __setstate__(self, state: object) -> None:
        pass


class TensorflowNetwork:
    """Stands for the class of StyleGAN2's networks in TensorFlow, which pickles as an attribute dictionary."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class PlainModule:
    """Stands for a module that pickles as Python objects do: a class and the attributes of the instance."""

    __slots__ = ("state",)
    class_name = ""

    def __init__(self) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class Inert:
    """Stands for whatever a stream may carry beside the networks: optimizers, logs, settings. Takes any call, state
    and items, and keeps nothing."""

    __slots__ = ()

    def __new__(cls, *args: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        """What the decoder fills lists and deques with."""


class Overlooked(Inert):
    """Stands for something within a network that reading it does without, rather than for what is beside networks."""

    __slots__ = ()


CLASSES: dict[Name, type] = {
    ("collections", "OrderedDict"): Mapping,
    ("dnnlib.util", "EasyDict"): Mapping,
    ("dnnlib.tflib.network", "Network"): TensorflowNetwork,
    # What sg3's own layers hold that follows from their constructor's arguments, or is not theirs to keep.
    ("sg3.models.stylegan3", "LayerSpec"): Overlooked,
    ("sg3.kernels.kept", "Kept"): Overlooked,
}
# Python modules all of whose classes are layers and networks, or parts of them: Projected GAN's, its variant's in
# Maua's repository, R3GAN's under its two names, and those of torch and timm that they are made of.
MODULES_OF_LAYERS = frozenset({
    "pg_modules.blocks", "pg_modules.discriminator", "pg_modules.networks_fastgan", "pg_modules.projector",
    "networks.fastgan", "networks.projected.discriminator", "networks.projected.layers",
    "networks.projected.projector",
    "training.networks", "training.networks_baseline",
    *(f"{package}.{part}" for package in ("R3GAN", "BaselineGAN")
      for part in ("FusedOperators", "Networks", "Resamplers")),
    *(f"torch.nn.modules.{part}" for part in (
        "activation", "batchnorm", "container", "conv", "linear", "module", "pooling", "sparse", "upsampling",
    )),
    "torch.nn.utils.spectral_norm",  # hooks, which keep nothing that layers have not
    "torch.nn.quantized.modules.functional_modules", "torch.ao.nn.quantized.modules.functional_modules",
    "timm.models.efficientnet_blocks", "timm.models.layers.conv2d_same",
    "sg3.models.stylegan3", "sg3.models.stylegan2", "sg3.models.discriminator", "sg3.models.layers",
})  # fmt: skip
IsInert = Callable[[str, str], bool]


class SafeUnpickler(pickle.Unpickler):
    """Unpickler for exactly the given names (and CLASSES); persistent ids only if asked for, as `Call`s; names that
    `is_inert` accepts as `Inert`; with `layers` classes of MODULES_OF_LAYERS as `PlainModule`s."""

    def __init__(
        self,
        file: BoundedReader,
        names: frozenset[Name],
        persistent_ids: bool = False,
        is_inert: IsInert | None = None,
        layers: bool = False,
    ) -> None:
        super().__init__(file)
        self._layers = layers
        self._classes: dict[str, type[PlainModule]] = {}
        self._names = names
        self._persistent_ids = persistent_ids
        self._is_inert = is_inert

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in CLASSES:
            return CLASSES[module, name]
        if (module, name) in self._names:
            return Global(module, name)
        if self._layers and module in MODULES_OF_LAYERS and name.isidentifier():
            return self._layer(name)
        if self._is_inert is not None and self._is_inert(module, name):
            return Inert
        raise Refused(f"refers to {printable(f'{module}.{name}')}, which network files never need")

    def _layer(self, name: str) -> type[PlainModule]:
        """A class of its own for each name: the decoder makes instances of classes only."""
        if name not in self._classes:
            if len(self._classes) >= limits.CLASSES:
                raise Refused(f"names more than {limits.CLASSES} classes of layers")
            self._classes[name] = type("PlainModule", (PlainModule,), {"__slots__": (), "class_name": name})
        return self._classes[name]

    def persistent_load(self, pid: Any) -> Any:
        if not self._persistent_ids or not isinstance(pid, tuple):
            raise Refused("refers to an object outside the file")
        return Call(Global("", "persistent_id"), pid)


def unpickle(
    file: BinaryIO,
    size: int,
    names: frozenset[Name],
    most_instructions: int = limits.PICKLE_INSTRUCTIONS,
    persistent_ids: bool = False,
    integer_keys: bool = False,
    is_inert: IsInert | None = None,
    layers: bool = False,
    outside: int = 0,
    unpickler: type[SafeUnpickler] | None = None,
) -> Any:
    """Decode the pickle at the file's position into inert data and leave the position after it.

    `size` is the file's length in bytes, `outside` that of the data beside it that the pickle may refer to. Whatever
    is shared in the result, it is small also when written out in full, see `pickle_size`. Raises Refused, and for
    damaged pickles anything that pickle raises.
    """
    start = file.tell()
    reader = BoundedReader(file, size)
    # Files of torch.save may be old enough to be Python 2's: LPIPS's own linear layers are.
    scan(reader, most_instructions, persistent_ids, integer_keys, python_2=persistent_ids)
    file.seek(start)
    content = (unpickler or SafeUnpickler)(reader, names, persistent_ids, is_inert, layers).load()
    check_unfolded(content, size + outside)
    return content
