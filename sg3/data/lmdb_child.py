"""The program that has an LMDB database open: run by `lmdb_source`, and expected to be killed by a damaged database.

LMDB maps the file into memory and follows what it says; a damaged page number is a bus error or worse. So this runs in
a process of its own, which has nothing but the database, and limits on memory and time.

    lmdb_child.py LIMITS FOLDER FOLDER_OF_PACKAGE       asked on stdin, answers on stdout, in records [length, bytes]

An empty request is answered by all keys, in order, each behind "+", and an empty record. Any other is a key, answered
by the value behind "+", or a reason behind "-". On an error of the database as a whole it gives the reason behind "!"
and ends. LIMITS are numbers: bytes of memory beyond the database's own, seconds for the keys, for one value, and bytes
of a value.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from typing import BinaryIO

KEY_ROOM = 10  # bytes that LMDB needs for an entry, besides key and value


def write(out: BinaryIO, data: bytes) -> None:
    out.write(struct.pack("<Q", len(data)) + data)


def limit_memory(most: int) -> None:
    """So many bytes from now on, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open("/proc/self/statm") as file:
            most += int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def limit_time(seconds: int) -> None:
    """Of processor time from now on, where the system can."""
    try:
        import resource
    except ImportError:
        return
    with contextlib.suppress(OSError, ValueError):
        used = resource.getrusage(resource.RUSAGE_SELF)
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + seconds, hard))


def main(limits: list[int], folder: str, package: str) -> None:
    memory, seconds, value_seconds, most = limits
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.path.append(package)
    import lmdb

    try:
        size = os.path.getsize(os.path.join(folder, "data.mdb"))
        limit_memory(size + memory)
        limit_time(seconds + size // 2**26)
        environment = lmdb.open(folder, readonly=True, lock=False, readahead=False, max_dbs=0, create=False)
        with environment.begin() as transaction:
            while len(head := requests.read(8)) == 8:
                key = requests.read(struct.unpack("<Q", head)[0])
                if not key:
                    keys = transaction.cursor().iternext(keys=True, values=False)
                    for count, key in enumerate(keys):
                        if count > size // KEY_ROOM:  # pages that follow one another in a circle
                            raise lmdb.Error("it has more keys than there is room for in its file")
                        write(answers, b"+" + key)
                    write(answers, b"")
                else:
                    limit_time(value_seconds)
                    try:
                        value = transaction.get(key, default=None)
                        if value is None or len(value) > most:
                            write(answers, b"-missing, or too large for an image")
                        else:
                            write(answers, b"+" + value)
                    except lmdb.Error as error:
                        write(answers, b"-unreadable (" + str(error).encode() + b")")
                answers.flush()
    except (lmdb.Error, OSError, MemoryError) as error:
        write(answers, b"!" + (str(error) or type(error).__name__).encode())
        answers.flush()


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1].split(",")], *sys.argv[2:])
