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
from typing import Any, BinaryIO

from sg3.formats.pickle_scan import MAX_INSTRUCTIONS, BoundedReader, Refused, scan

Name = tuple[str, str]  # module, name


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


class Mapping(dict[str, Any]):
    """Stands for OrderedDict and EasyDict, which are filled after they are made. Attributes are ignored."""

    __slots__ = ()

    def __init__(self) -> None:  # no initial items: they would be hashed unchecked
        super().__init__()

    def __setstate__(self, state: object) -> None:
        pass


MAPPINGS: frozenset[Name] = frozenset({("collections", "OrderedDict"), ("dnnlib.util", "EasyDict")})


class SafeUnpickler(pickle.Unpickler):
    """Unpickler for exactly the given names (and the mappings); persistent ids only if asked for, as
    `Call`s."""

    def __init__(self, file: BoundedReader, names: frozenset[Name], persistent_ids: bool = False) -> None:
        super().__init__(file)
        self._names = names
        self._persistent_ids = persistent_ids

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in MAPPINGS:
            return Mapping
        if (module, name) in self._names:
            return Global(module, name)
        if (module, name) == ("dnnlib.tflib.network", "Network"):
            raise Refused("is a TensorFlow StyleGAN2 pickle, a format that sg3 does not read yet")
        raise Refused(f"refers to {printable(f'{module}.{name}')}, which network files never need")

    def persistent_load(self, pid: Any) -> Any:
        if not self._persistent_ids or not isinstance(pid, tuple):
            raise Refused("refers to an object outside the file")
        return Call(Global("", "persistent_id"), pid)


def unpickle(
    file: BinaryIO,
    size: int,
    names: frozenset[Name],
    most_instructions: int = MAX_INSTRUCTIONS,
    persistent_ids: bool = False,
) -> Any:
    """Decode the pickle at the file's position into inert data and leave the position after it.

    `size` is the file's length in bytes. Raises Refused, and for damaged pickles anything that pickle raises.
    """
    start = file.tell()
    reader = BoundedReader(file, size)
    scan(reader, most_instructions, persistent_ids)
    file.seek(start)
    return SafeUnpickler(reader, names, persistent_ids).load()


def printable(text: object, limit: int = 100) -> str:
    """Text from a file, made safe to show in one line."""
    line = "".join(ch if ch.isprintable() else "?" for ch in " ".join(str(text).split())[: limit + 1])
    return line if len(line) <= limit else line[:limit] + "..."
