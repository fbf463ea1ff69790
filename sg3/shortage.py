"""Errors that say no more than that the machine has too little of something: which, and what helps.

Python, the system and PyTorch each have their own words for it, and none of them names an option.
"""

from __future__ import annotations

import errno
import re
from traceback import walk_tb

from sg3.errors import MachineError, StorageError

# What messages of PyTorch and of the system contain -> what there is too little of, and what helps.
WORDS = (
    (
        r"shared memory|unable to (open|write to|mmap|resize).*(/torch_|shm)|/dev/shm|Bus error",
        "shared memory (/dev/shm) is full; use --workers=0, or give the container more (docker run --shm-size=2g)",
    ),
    (
        r"Too many open files|received 0 items of ancdata|Please increase the limit using `ulimit -n`",
        "too few file handles; raise the limit (ulimit -n 4096) or use fewer --workers",
    ),
    (
        r"can't start new thread|Resource temporarily unavailable|pthread_create failed",
        "no further process or thread can be started; raise the limit (ulimit -u) or use fewer --workers",
    ),
    (
        r"DefaultCPUAllocator|can't allocate memory|Cannot allocate memory|not enough memory|std::bad_alloc",
        "out of memory; fewer images at a time need less (--batch-gpu in training, --batch elsewhere)",
    ),
)
NUMBERS = {
    errno.EMFILE: WORDS[1][1], errno.ENFILE: WORDS[1][1], errno.ENOMEM: WORDS[3][1], errno.EAGAIN: WORDS[2][1],
}  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory is what there is too little of, a GPU's included."""
    if isinstance(error, RuntimeError) and "out of memory" in str(error).lower() and not hasattr(error, "exit_code"):
        return True
    known = shortage(error)
    return known is not None and str(known) == WORDS[3][1]


def shortage(error: BaseException) -> MachineError | None:
    """What the error means, if the machine has run out of something."""
    if isinstance(error, MemoryError):
        return MachineError(WORDS[3][1])
    if not isinstance(error, (OSError, RuntimeError)) or hasattr(error, "exit_code"):
        return None
    text = str(error)
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        if error.errno in NUMBERS:
            return MachineError(NUMBERS[error.errno])
        is_shared = re.search(r"/torch_|/dev/shm|shm", f"{error.filename} {text}") or _is_of_a_semaphore(error)
        if error.errno != errno.ENOSPC or not is_shared:
            return None
        return MachineError(WORDS[0][1])
    return next((MachineError(meaning) for words, meaning in WORDS if re.search(words, text)), None)


def _is_of_a_semaphore(error: BaseException) -> bool:
    """Those of multiprocessing lie in /dev/shm, which their error does not say."""
    frames = (frame for frame, _ in walk_tb(error.__traceback__))
    return any(frame.f_globals.get("__name__") == "multiprocessing.synchronize" for frame in frames)


def shortage_behind(error: BaseException) -> MachineError | None:
    """The same for a file that could not be read or written because of it: the file's line, with what helps."""
    if not isinstance(error, StorageError) or error.__cause__ is None:
        return None
    known = shortage(error.__cause__)
    return None if known is None else MachineError(f"{error}; {str(known).partition('; ')[2]}")
