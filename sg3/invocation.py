"""How `sg3` is started from this shell: for the commands that messages print, to be copied and run."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

COMMAND = "SG3_COMMAND"  # variable: what a process that was started by another sg3 says instead of itself


def sg3_command() -> str:
    """The words that start this sg3, quoted: 'sg3' where that is it, else its path, or Python's and '-m sg3'."""
    if said := os.environ.get(COMMAND):
        return said
    script = Path(sys.argv[0])
    if script.stem != "sg3":  # python -m sg3, or a program that uses the package
        script = Path(sys.executable).with_name("sg3")
        if not is_on_path(script):
            return shlex.join([sys.executable, "-m", "sg3"])
    return "sg3" if is_on_path(script) else shlex.quote(str(script))


def is_on_path(script: Path) -> bool:
    """Whether its name alone starts this script and no other."""
    found = shutil.which(script.name)
    return found is not None and script.exists() and os.path.samefile(found, script)
