"""What operating systems have under different names, or not at all. The rest of sg3 does not ask which one this is.

On Linux all of it is tested, on macOS and Windows nothing is: there is no such machine to test on. What Windows lacks
is tested by taking it away.
"""

from __future__ import annotations

import signal
import socket
import sys
from typing import IO

BEYOND = 2**30  # where Windows locks a byte: nobody can read what it has locked, and there is nothing to read there


def signals(*names: str) -> tuple[signal.Signals, ...]:
    """Those of these signals that there are."""
    return tuple(signal.Signals[name] for name in names if hasattr(signal, name))


def loopback() -> str | None:
    """The name of the network interface that is this machine's own; None where it is not known."""
    known = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    return known if known in [name for _, name in socket.if_nameindex()] else None


def peak_memory() -> int | None:
    """Bytes of memory that this process has had at most; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def lock_for_this_process(file: IO[bytes]) -> bool:
    """Take the file for this process alone, not for its children; False if another one has it. The system lets go of it
    however the process ends. Raises OSError where files cannot be locked."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        file.seek(BEYOND)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        except OSError:
            return False
        finally:
            file.seek(0)
        return True
    try:
        # Not flock, whose lock would pass on to the loader's processes, which outlive this one by seconds.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
