"""`distutils.util`."""

from __future__ import annotations


def strtobool(val: str) -> int:
    """1 for yes, true, on and the like, 0 for their opposites. Raises ValueError for anything else."""
    word = val.lower()
    if word in ("y", "yes", "t", "true", "on", "1"):
        return 1
    if word in ("n", "no", "f", "false", "off", "0"):
        return 0
    raise ValueError(f"{val!r}: expected yes or no")
