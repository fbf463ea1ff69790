"""The environment variables that are sg3's own, and a check of them: one that is misspelt changes nothing, unseen.

What a variable does is with the code that reads it; here are its name and the values that it takes.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from sg3.errors import UsageError

PREFIX = "SG3_"
# Name -> the values it takes; None: names, folders and numbers that its reader checks.
OURS: dict[str, tuple[str, ...] | None] = {
    "SG3_IMPL": None,
    "SG3_FLOAT32": ("ieee",),
    "SG3_THREADS": ("all",),
    "SG3_CACHE": None,
    "SG3_DETECTORS": None,
    "SG3_COMPAT_QUIET": None,
    "SG3_COMMAND": None,
    "SG3_LAUNCHER": None,
    "SG3_RUN_DIR_FILE": None,
    "SG3_CHOSEN": None,
}
ALIKE = 0.85  # a letter or two are missing, wrong or too many
INSTEAD = {"SG3_THREADS": "; the option --threads sets their number"}


def check(environment: Mapping[str, str]) -> list[str]:
    """A line for each variable whose name is nearly that of one of sg3's, which may have been meant.

    Raises UsageError for one of sg3's that has a value it does not take.
    """
    for name, values in OURS.items():
        said = environment.get(name)
        if said and values is not None and said not in values:
            raise UsageError(f"{name}={said}: expected {' or '.join(values)}{INSTEAD.get(name, '')}")
    lines = []
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in OURS:
            lines += [f"{name}: sg3 has no such variable; did you mean {meant}?"
                      for meant in difflib.get_close_matches(name, OURS, n=1, cutoff=ALIKE)]
    return lines
