"""What Triton's interpreter does not notice: accesses out of bounds, and programs that store to one another's places.

While `checked_memory` is entered, every interpreted kernel is watched. An active lane of a load or a store must lie
within the tensor that its pointer was given for, from its first element to its last, and no byte may be stored by two
programs of one launch. What does not hold raises `MemoryFault` (which Triton wraps in its `InterpreterError`) with the
argument, the place in it and the program.

An address uses 48 of a pointer's 64 bits. The others get the number of the argument, which arithmetic on the pointer
leaves alone: so a step out of one tensor is found even where it ends in another one's memory.

Written against the interpreters of Triton 3.6 to 3.9, of which it replaces six functions.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from triton.runtime import interpreter

ADDRESS_BITS = 48
ADDRESS = np.uint64(2**ADDRESS_BITS - 1)


class MemoryFault(AssertionError):
    """An interpreted kernel did what spoils memory or depends on chance on a GPU."""


@dataclass(frozen=True)
class Argument:
    """A tensor that a kernel was given: pointers to its first byte and past its last, the argument's number in them."""

    name: str
    tensor: torch.Tensor
    first: int
    end: int

    @classmethod
    def of(cls, name: str, tensor: torch.Tensor, number: int) -> Argument:
        elements = 0
        if tensor.numel():
            elements = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
        first = tensor.data_ptr() + (number << ADDRESS_BITS)
        return cls(name, tensor, first, first + elements * tensor.element_size())

    def place(self, address: int) -> str:
        """Where an address is, in words."""
        element = (address - self.first) / self.tensor.element_size()
        shape, strides = list(self.tensor.shape), list(self.tensor.stride())
        return f"element {element:.15g} of {self.name}, which has {shape} elements with strides {strides}"


class MemoryChecks:
    """Takes the place of the interpreter's own functions; knows the tensors and the stores of the launch under way."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}                       # tensor objects -> names
        self.arguments: dict[int, Argument] = {}              # by number, from 1 on
        self.writers: dict[tuple[int, int], np.ndarray] = {}  # storage, unit in bytes -> program + 1 for every unit
        self._load = interpreter.InterpreterBuilder.create_masked_load
        self._store = interpreter.InterpreterBuilder.create_masked_store
        self._plain_convert = interpreter._implicit_cvt
        self._plain_begin = interpreter.GridExecutor._init_args_hst

    def replacements(self) -> dict[tuple[object, str], object]:
        """(owner, name) -> what to put there."""
        checks = self

        def begin(executor: Any, *args: Any) -> Any:
            positional, named = checks._plain_begin(executor, *args)
            checks.begin(inspect.getcallargs(executor.fn, *positional, **named))
            return positional, named

        def load(builder: Any, pointers: Any, mask: Any, *rest: Any, **named: Any) -> Any:
            checks.check(builder, "load from", pointers, mask)
            return checks._load(builder, plain(pointers), mask, *rest, **named)

        def store(builder: Any, pointers: Any, value: Any, mask: Any, *rest: Any, **named: Any) -> Any:
            argument, addresses = checks.check(builder, "store to", pointers, mask)
            if argument is not None:
                checks.own(builder, argument, addresses, width(pointers))
            return checks._store(builder, plain(pointers), value, mask, *rest, **named)

        def refuse(*_: Any) -> None:
            raise MemoryFault("an atomic operation, which is not checked here and has no place in these kernels")

        builder = interpreter.InterpreterBuilder
        return {
            (interpreter.GridExecutor, "_init_args_hst"): begin,
            (interpreter, "_implicit_cvt"): self.convert,
            (builder, "create_masked_load"): load,
            (builder, "create_masked_store"): store,
            (builder, "create_atomic_cas"): refuse,
            (builder, "create_atomic_rmw"): refuse,
        }

    def begin(self, arguments: dict[str, Any]) -> None:
        """A launch with these arguments begins."""
        self.names = {id(value): name for name, value in arguments.items()}
        self.arguments.clear()
        self.writers.clear()

    def convert(self, value: Any) -> Any:
        """The interpreter's conversion of an argument; a pointer gets its number."""
        converted = self._plain_convert(value)
        if isinstance(value, torch.Tensor):
            number = len(self.arguments) + 1
            self.arguments[number] = Argument.of(self.names.get(id(value), "an argument"), value, number)
            converted.handle.data += np.uint64(number << ADDRESS_BITS)
        return converted

    def check(self, builder: Any, what: str, pointers: Any, mask: Any) -> tuple[Argument | None, np.ndarray]:
        """The argument, None if no lane is active, and the addresses of the active lanes. Raises MemoryFault."""
        addresses = pointers.data[mask.data]
        if not addresses.size:
            return None, addresses
        lowest, highest = int(addresses.min()), int(addresses.max())
        argument = self.arguments.get(lowest >> ADDRESS_BITS)
        if argument is None or argument.first > lowest or highest + width(pointers) > argument.end:
            raise MemoryFault(self.fault(builder, what, addresses, width(pointers)))
        return argument, addresses

    def fault(self, builder: Any, what: str, addresses: np.ndarray, width: int) -> str:
        """Describe the first lane that is out of bounds."""
        for address in map(int, addresses):
            argument = self.arguments.get(address >> ADDRESS_BITS)
            if argument is None:
                return f"{what} no argument's memory, by program {builder.grid_idx}"
            if address < argument.first or address + width > argument.end:
                return f"{what} {argument.place(address)}, by program {builder.grid_idx}"
        return f"{what} several arguments by one set of pointers, by program {builder.grid_idx}"

    def own(self, builder: Any, argument: Argument, addresses: np.ndarray, width: int) -> None:
        """Note that this program has stored there. Raises MemoryFault if another one has, too."""
        unit, storage = argument.tensor.element_size(), argument.tensor.untyped_storage()
        key = storage.data_ptr(), unit
        if key not in self.writers:  # pages of it that no program touches take no memory
            self.writers[key] = np.zeros(storage.nbytes() // unit + 1, np.uint32)
        writers = self.writers[key]
        x, y, z = builder.grid_idx
        program = 1 + x + builder.grid_dim[0] * (y + builder.grid_dim[1] * z)
        units = ((addresses & ADDRESS) - np.uint64(storage.data_ptr())) // np.uint64(unit)
        for _ in range(max(width // unit, 1)):
            before = writers[units]
            other = (before != 0) & (before != program)
            if other.any():
                lane = int(other.argmax())
                raise MemoryFault(
                    f"store to {argument.place(int(addresses[lane]))}, by program {builder.grid_idx} and, before it, "
                    f"by program number {int(before[lane]) - 1}"
                )
            writers[units] = program
            units = units + np.uint64(1)


def width(pointers: Any) -> int:
    """Bytes of an access."""
    return max(pointers.get_element_ty().primitive_bitwidth // 8, 1)


def plain(pointers: Any) -> Any:
    """Pointers without their argument's number."""
    return interpreter.TensorHandle(pointers.data & ADDRESS, pointers.dtype)


@contextmanager
def checked_memory() -> Iterator[None]:
    """Within it, interpreted kernels raise MemoryFault."""
    with pytest.MonkeyPatch.context() as patch:
        for (owner, name), replacement in MemoryChecks().replacements().items():
            patch.setattr(owner, name, replacement)
        yield
