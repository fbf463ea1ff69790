"""`python -m sg3.compat SCRIPT.py ARGS...` runs a script as `python SCRIPT.py ARGS...` would, on sg3's ops."""

from __future__ import annotations

import argparse
import builtins
import io
import os
import re
import runpy
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, TracebackType

from sg3.compat import install, installed_options
from sg3.errors import DataError, MissingInputError, Sg3Error
from sg3.terminal import say

USAGE = "python -m sg3.compat [OPTIONS] (SCRIPT.py | -m MODULE) [ARGS...]"
EXAMPLES = """Examples:
  python -m sg3.compat train.py --outdir=runs --cfg=stylegan3-t --data=a.zip --gpus=8 --batch=32 --gamma=8.2
  python -m sg3.compat gen_images.py --network=a.pkl --seeds=0-7 --outdir=out
  python -m sg3.compat --device=cpu gen_images.py --network=a.pkl --seeds=0-7 --outdir=out
  torchrun --nproc-per-node=8 -m sg3.compat train.py ...

The script and the network pickles that it opens are executed as they would be without sg3."""


# What torch says, in one place or another, where it has no CUDA.
WANTS_CUDA = re.compile(
    "Torch not compiled with CUDA|PyTorch was compiled without CUDA|No CUDA GPUs are available|Found no NVIDIA driver|"
    "CUDA device but torch.cuda.is_available|without ATen_cuda|requires a CUDA|requires CUDA|_cuda_|NCCL|"
    "dummy base class|access accelerator device when none"
)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m sg3.compat", usage=USAGE, epilog=EXAMPLES,
        description="Run a script of the official StyleGAN repositories or of a fork on sg3's ops, without a build.",
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--modules", choices=["missing", "always", "never"], default="missing",
                        help="when sg3's own torch_utils, dnnlib and legacy are used (default: where there are none)")
    parser.add_argument("--device", choices=["cpu"], help="run a script that wants CUDA without it, on the CPU")
    parser.add_argument("--no-ops", action="store_true", help="leave torch_utils.ops to the checkout")
    parser.add_argument("--no-patches", action="store_true", help="do not give back what newer packages removed")
    parser.add_argument("--execute-source", action="store_true",
                        help="sg3's own torch_utils.persistence executes the source inside pickles")
    own = 0  # how many words are ours: those up to the script, or to -m; all others are the script's
    while own < len(argv) and argv[own].startswith("-") and argv[own] != "-m":
        own += 2 if argv[own] in ("--modules", "--device") else 1
    options = parser.parse_args(argv[:own])
    is_module = argv[own : own + 1] == ["-m"]
    words = argv[own + is_module :]
    if not words:
        parser.error("the module to run is missing" if is_module else "the script to run is missing")

    installing = {"ops": not options.no_ops, "patches": not options.no_patches, "modules": options.modules,
                  "execute_source": options.execute_source, "device": options.device}  # fmt: skip
    sys.excepthook = _from_the_script_on
    sys.argv = words
    try:
        if is_module:
            install(**installing)
            _check_module(words[0])
        else:
            path = _existing(words[0])
            if not sys.flags.safe_path:
                sys.path[0] = str(path.resolve().parent)  # instead of the working directory, which -m puts there
            install(**installing)
    except Sg3Error as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    if is_module:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    else:
        run_script(path)


def _check_module(name: str) -> None:
    try:
        found = find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise
        found = None
    if found is None:
        raise MissingInputError(f"-m {name}: there is no such module")


def _existing(script: str) -> Path:
    path = Path(script)
    if path.is_dir():
        raise DataError(f"{script}: is a folder, expected a Python script")
    if not path.is_file():
        raise MissingInputError(f"{script}: there is no such script")
    return path


def run_script(path: Path) -> None:
    """Execute a file as the module `__main__`, which it stays: pickling and spawned processes look there."""
    absolute = os.path.abspath(path)  # Python's own value of __file__; links stay as they are
    main_module = ModuleType("__main__")
    main_module.__dict__.update(
        __file__=absolute, __builtins__=builtins, __cached__=None, __loader__=SourceFileLoader("__main__", absolute)
    )
    sys.modules["__main__"] = main_module
    with io.open_code(absolute) as file:
        source = file.read()
    exec(compile(source, absolute, "exec", dont_inherit=True), main_module.__dict__)


def _from_the_script_on(kind: type[BaseException], error: BaseException, tb: TracebackType | None) -> None:
    """Show a traceback without the frames of this file and of runpy, which lie above the script's own."""
    here = tb
    while here is not None and here.tb_frame.f_code.co_filename in (__file__, "<frozen runpy>"):
        here = here.tb_next
    if here is None and not issubclass(kind, SyntaxError):  # those have no frame in the script
        here = tb
    if WANTS_CUDA.search(str(error)) and _has_no_cuda():
        script = Path(sys.argv[0]).name
        cause = str(error).strip().splitlines()[-1]  # of a child process's traceback
        say(f"error: {script}: asks for CUDA, which is not here ({cause}); `python -m sg3.compat --device=cpu "
            f"{script} ...` runs it on the CPU")  # fmt: skip
        return
    sys.__excepthook__(kind, error.with_traceback(here), here)


def _has_no_cuda() -> bool:
    torch = sys.modules.get("torch")
    is_on_cpu = (installed_options() or {}).get("device") == "cpu"
    return torch is not None and not is_on_cpu and not torch.cuda.is_available()


if __name__ == "__main__":
    main(sys.argv[1:])
