"""What Triton's first launch needs of the host: a C compiler and Python's headers.

Triton brings its own assembler, but compiles a small launcher stub with the host's compiler. Slim containers have none.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Status:
    """Whether Triton's or Numba's kernels can run on a device; if not, what stands in the way and how to remove it."""

    usable: bool
    reason: str
    fix: str | None = None


def c_compiler() -> tuple[str, ...] | None:
    """The command to compile Triton's launcher stub: CC, gcc, clang (Triton's order), else zig, else None."""
    if "CC" in os.environ:
        named = shutil.which(os.environ["CC"])  # Triton runs CC as one word: no arguments in it
        return (named,) if named else None
    found = shutil.which("gcc") or shutil.which("clang")
    if found:
        return (found,)
    if importlib.util.find_spec("ziglang"):
        return (sys.executable, "-m", "ziglang", "cc")
    return None


def prepare_c_compiler(cache: Path, environ: MutableMapping[str, str] = os.environ) -> None:
    """Make the compiler of `c_compiler` the one Triton uses; to be called before the first kernel launch.

    gcc and clang it finds by itself. Zig's takes four words where Triton allows one, so a two-line script is
    written to the folder `cache` and named in CC.
    """
    command = c_compiler()
    if command is None or len(command) == 1:
        return
    text = '#!/bin/sh\nexec "{}" {} "$@"\n'.format(command[0], " ".join(command[1:]))
    name = f"zig-cc-{hashlib.sha256(text.encode()).hexdigest()[:8]}"  # one for each Python that has ziglang
    script = cache / name
    if not script.exists():
        cache.mkdir(parents=True, exist_ok=True)
        draft = cache / f"{name}.{os.getpid()}"
        draft.write_text(text)
        draft.chmod(0o755)
        draft.replace(script)  # other processes see the whole script or none
    environ["CC"] = str(script)


def python_headers() -> Path:
    """The folder in which Triton's build looks for Python.h."""
    scheme = sysconfig.get_default_scheme()
    if scheme == "posix_local":  # Debian's own scheme for packages; headers are never there
        scheme = "posix_prefix"
    return Path(sysconfig.get_paths(scheme=scheme)["include"])


def host_status() -> Status:
    """Triton's launcher stub is compiled on this machine at the first launch: is there what that takes?

    The Debian packages named are enough in a slim container; gcc only recommends the C library's headers.
    """
    compiler, headers = c_compiler(), python_headers()
    if compiler is None and "CC" in os.environ:
        return Status(False, f"CC={os.environ['CC']!r} is not a program (one word, without arguments)",
                      "unset CC or name a C compiler")
    missing, packages = [], []
    if compiler is None:
        missing.append("a C compiler")
        packages += ["gcc", "libc6-dev"]
    if not (headers / "Python.h").is_file():
        missing.append(f"{headers / 'Python.h'}")
        packages.append(f"python{sys.version_info[0]}.{sys.version_info[1]}-dev")
    if missing:
        fix = f"apt-get install {' '.join(packages)}"
        if compiler is None:
            fix += " (for the compiler, pip install 'sg3[cc]' does as well)"
        return Status(False, f"Triton's first launch needs {' and '.join(missing)}", fix)
    assert compiler is not None
    return Status(True, f"C compiler {' '.join(compiler)}")
