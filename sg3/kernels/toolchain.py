"""What Triton's first launch needs of the host: a C compiler and Python's headers.

Triton brings its own assembler, but compiles a small launcher stub with the host's compiler. Slim containers have none.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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


def library_builder() -> Callable[..., str] | None:
    """How Triton is to build its launcher stub, for `triton.knobs.build.impl`; None where it finds a compiler itself.

    gcc and clang it finds, and what CC names. Zig's compiler takes four words, where CC may have one. CC is not set to
    a script of them, for every other build of this process, and of those it starts, would follow it.
    """
    command = c_compiler()
    return None if command is None or len(command) == 1 else partial(_build_library, command)


def _build_library(
    command: Sequence[str], name: str, source: str, folder: str, library_dirs: Sequence[str],
    include_dirs: Sequence[str], libraries: Sequence[str],
) -> str:  # fmt: skip
    """Compile a C file to a Python module FOLDER/NAME.*.so, with the options of Triton's own build; its path."""
    result = os.path.join(folder, f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}")
    subprocess.run(
        [
            *command, source, "-O3", "-shared", "-fPIC", "-Wno-psabi", "-o", result,
            *(f"-l:{library}" if ".so" in library else f"-l{library}" for library in libraries),
            *(f"-L{place}" for place in library_dirs),
            *(f"-I{place}" for place in (*include_dirs, folder, python_headers())),
        ], check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return result


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
            fix += " (for the compiler, pip install ziglang does as well)"
        return Status(False, f"Triton's first launch needs {' and '.join(missing)}", fix)
    assert compiler is not None
    return Status(True, f"C compiler {' '.join(compiler)}")
