"""First of three gates for pickles: read the instructions without running them, and refuse what is dangerous.

The second gate, an unpickler such as `formats.safe_pickle`, decides which names a pickle may refer to, so nothing it
names ever runs; the third, `pickle_size`, how much may be made of what it has decoded. What is left are pickles that
hurt merely by being decoded: a length field that makes the decoder allocate gigabytes, a memo slot with a huge number,
keys that take forever to hash. They are found here, in one cheap pass.
"""

from __future__ import annotations

import pickletools
from typing import Any, BinaryIO

from sg3 import limits

# What pickle protocols 2 to 5 write for plain data and calls. Left out, because no network file needs them:
# text instructions of protocol 0, the extension registry (EXT1...), INST and OBJ, DUP, buffers outside the
# file, 8-byte lengths of text, integers of more than 255 bytes. BINPERSID is for streams that expect it
# (persistent_ids).
INSTRUCTIONS = frozenset({
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK",
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
    "SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES", "BYTEARRAY8",
    "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_SET", "ADDITEMS",
    "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET",
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "NEWOBJ",
})  # fmt: skip
PYTHON_2 = frozenset({"SHORT_BINSTRING", "BINSTRING"})  # its strings, for streams that were written by it
MAX_KEY = 2**60  # an integer below this is its own hash, so equal hashes cannot be chosen

_BY_CODE = {instruction.code.encode("latin-1"): instruction for instruction in pickletools.opcodes}
_MARK = pickletools.markobject
_TEXT = pickletools.pyunicode
_LONG_TEXT = pickletools.StackObject("long str", str, "Text too long for a key.")
_INTEGER_KEY = pickletools.StackObject("int key", int, "An integer below MAX_KEY.")
_KEYS = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "SHORT_BINUNICODE", "BINUNICODE"}) | PYTHON_2
_CONTAINERS = {  # instruction -> what it may add to
    "APPEND": {pickletools.pylist, pickletools.anyobject},  # anyobject: a deque
    "APPENDS": {pickletools.pylist, pickletools.anyobject},
    "ADDITEMS": {pickletools.pyset},
    "SETITEM": {pickletools.pydict, pickletools.anyobject},  # anyobject: an OrderedDict made by a call
    "SETITEMS": {pickletools.pydict, pickletools.anyobject},
}


class Refused(Exception):
    """Why a pickle is not loaded, as a phrase that follows the file's name."""


class BoundedReader:
    """A binary file from which no read asks for more than it holds.

    A length field may claim 2^63 bytes, and a buffered file allocates what it is asked for before it looks.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self.tell = file.tell

    def readline(self) -> bytes:
        """The rest of a line that is a name; cut off where no name goes on."""
        return self._file.readline(2 * limits.NAME)

    def left(self) -> int:
        """Bytes from the current position to the end."""
        return max(self._size - self._file.tell(), 0)

    def read(self, n: int = -1) -> bytes:
        if n == 1:
            return self._file.read(1)
        return self._file.read(self.left() if n < 0 else min(n, self.left()))


def scan(
    reader: BoundedReader,
    most: int = limits.PICKLE_INSTRUCTIONS,
    persistent_ids: bool = False,
    integer_keys: bool = False,
    python_2: bool = False,
) -> None:
    """Check one pickle of at most so many instructions, from the reader's position to its STOP.

    Keeps track of what kind of object each place of the stack and memo holds, as `pickletools.dis` does, to
    know what is used as a key: only text may be one, of limits.NAME characters, and integers of less than 60 bits
    where a stream is expected to have them (`integer_keys`). A tuple is hashed recursively, without a depth limit and
    again for every reference to it (40 levels of pairs take hours), and longer integers can be chosen to collide.
    `python_2` lets strings be written as Python 2 does.

    Raises Refused, and for damaged pickles what pickletools raises.
    """
    stack: list[pickletools.StackObject] = []
    memo: dict[int, pickletools.StackObject] = {}
    marks: list[int] = []  # positions of the marks on the stack
    frame_end = 0  # position in the file; 0 outside frames

    for count in range(most):
        instruction = _BY_CODE.get(reader.read(1))
        if instruction is None:
            raise Refused("is cut short or not a valid pickle")
        name = instruction.name
        if not (name in INSTRUCTIONS or (persistent_ids and name == "BINPERSID") or (python_2 and name in PYTHON_2)):
            raise Refused(f"uses the pickle instruction {name}, which network files never need")
        argument = _argument(instruction, reader)
        # (Python 2's strings are bytes, the pixels among them, and of bytes there are as many as in the file.)
        if isinstance(argument, str) and len(argument) > limits.PICKLE_TEXT and name not in PYTHON_2:
            raise Refused(f"holds a string of {len(argument)} characters")
        if name == "FRAME" and isinstance(argument, int) and argument > reader.left():
            raise Refused("is cut short")
        # Where an instruction goes beyond its frame, the decoder forgets what it has of it and reads on behind the
        # frame: it would see other instructions than this scan.
        position = reader.tell() if frame_end or name == "FRAME" else 0
        if frame_end and (name == "FRAME" or position > frame_end or (name == "STOP" and position < frame_end)):
            raise Refused("is not a valid pickle (a frame ends inside an instruction)")
        if name == "FRAME" and isinstance(argument, int):
            frame_end = position + argument
        if position == frame_end:
            frame_end = 0

        # Operands: `pops` below the mark, and all that lies above it.
        above: list[pickletools.StackObject] = []
        pops = len(instruction.stack_before)
        if _MARK in instruction.stack_before:
            if not marks:
                raise Refused("is not a valid pickle (no mark)")
            above = stack[marks[-1] + 1 :]
            del stack[marks.pop() :]
            pops = instruction.stack_before.index(_MARK)
        elif name == "POP" and marks and marks[-1] == len(stack) - 1:
            marks.pop()
        if len(stack) - pops < (marks[-1] + 1 if marks else 0):
            raise Refused("is not a valid pickle (stack underflow)")

        if name in _CONTAINERS:
            if name in ("APPEND", "SETITEM"):  # their items are not above a mark
                above = stack[1 - pops :]
                del stack[1 - pops :]
            if stack[-1] not in _CONTAINERS[name]:
                raise Refused(f"uses the pickle instruction {name} on something else than a container")
            keys = above[::2] if name.startswith("SETITEM") else above if name == "ADDITEMS" else []
            if _LONG_TEXT in keys:
                raise Refused(f"has a name of more than {limits.NAME} characters")
            if any(key is not _TEXT and not (integer_keys and key is _INTEGER_KEY) for key in keys):
                raise Refused("has a dictionary key or set member that is not text")
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            if not stack or stack[-1] is _MARK:
                raise Refused("is not a valid pickle (nothing to remember)")
            slot = argument if isinstance(argument, int) else len(memo)
            if slot > count:  # the decoder allocates all slots up to this one
                raise Refused(f"uses memo slot {slot} after {count} instructions")
            memo[slot] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            if argument not in memo:
                raise Refused(f"is not a valid pickle (memo slot {argument} is empty)")
            stack.append(memo[argument])
        else:
            del stack[len(stack) - pops :]
            if name == "MARK":
                marks.append(len(stack))
            stack.extend([_as_key(name, argument)] if name in _KEYS else instruction.stack_after)
        if name == "STOP":
            return
    raise Refused(f"has a part of more than {most} pickle instructions, which no network needs")


def _as_key(name: str, argument: Any) -> pickletools.StackObject:
    """What a number or text is as a key."""
    if isinstance(argument, str):
        return _TEXT if len(argument) <= limits.NAME else _LONG_TEXT
    return _INTEGER_KEY if isinstance(argument, int) and abs(argument) < MAX_KEY else pickletools.pyint


def _argument(instruction: pickletools.OpcodeInfo, reader: BoundedReader) -> Any:
    """What follows the instruction in the stream: a length's worth of text or bytes, a number, or nothing."""
    if instruction.name == "GLOBAL":  # two lines: names, which the second gate checks
        if not all(reader.readline().endswith(b"\n") for _ in range(2)):
            raise Refused("is cut short")
        return None
    return instruction.arg.reader(reader) if instruction.arg else None  # type: ignore[arg-type]
