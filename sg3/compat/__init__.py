"""Scripts of the official StyleGAN3 and StyleGAN2-ADA repositories, and of their forks, on sg3's ops.

    python -m sg3.compat train.py --outdir=... --cfg=stylegan3-t ...      the script as it is, no plugin build
    torchrun --nproc-per-node=8 -m sg3.compat train.py ...                several processes, under torch's launcher
    python -m sg3.compat --device=cpu gen_images.py --network=... ...     without a GPU

or from code, before the first import of `torch_utils`:

    sg3.compat.install()                     until sg3.compat.uninstall()
    with sg3.compat.install(): ...           until the end of the block

Three things happen, each an option of `install`. Imports of `torch_utils.ops.*` and `torch_utils.custom_ops` are
answered by sg3; what else a checkout has (training, metrics, persistence, dnnlib, ...) is used as found there. Where a
tool comes without `torch_utils`, `dnnlib` or `legacy`, small versions of sg3's own are offered. And what newer releases
of torch, numpy and others took away from these scripts is given back (see `sg3.compat.patches`). Nothing is written to
the checkout, and processes started with multiprocessing get the same. Importing `sg3.compat` alone changes nothing.

Safety: a script is code, and runs as such. So is a network pickle for the original's own `legacy.py` and
`torch_utils/persistence.py`: they execute the source text inside it, with or without sg3, and `torch.load` called by
the script reads pickles without the restriction to weights, as it did when the script was written. Only sg3's own
`legacy.load_network_pkl` (offered where a tool has none) executes nothing.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from types import TracebackType
from typing import Any

from sg3.compat.changes import Changes
from sg3.compat.finder import FirstFinder, LastFinder, Options, Shim
from sg3.errors import UsageError

__all__ = ["Installation", "install", "installed_options", "uninstall"]


class Installation:
    """What `install` returns; as a context manager it is undone at the end of the block, if this call installed it."""

    def __init__(self, options: Options, is_new: bool) -> None:
        self.options = options
        self._is_new = is_new

    def __enter__(self) -> Installation:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._is_new:
            uninstall()


def install(
    ops: bool = True, patches: bool = True, modules: str = "missing", execute_source: bool = False,
    quiet: bool = False, device: str | None = None,
) -> Installation:  # fmt: skip
    """Answer imports of this process and of those that it starts with multiprocessing.

    `ops`: `torch_utils.ops.*` and `torch_utils.custom_ops` are sg3's, also inside a package (`x.torch_utils.ops.*`).
    `patches`: give back what newer torch, numpy, ... removed. `modules`: sg3's own `torch_utils`, `dnnlib` and
    `legacy` are used where there are none ('missing'), in place of any others ('always'), or not ('never').
    `execute_source`: with sg3's own `torch_utils.persistence`, plain `pickle.load` of an official pickle executes the
    source text in it, as the original does; without, known networks are built as sg3's and nothing in the text runs.
    (`pickle.load` itself executes whatever a file says, in any case.) `quiet`: no line on stderr, which the variable
    SG3_COMPAT_QUIET=1 does as well. `device`: with 'cpu' all that the script wants from CUDA is had from the CPU (see
    `sg3.compat.cpu_devices`), in this thread and in those that start after it.

    Calling it again with the same options does nothing. Raises UsageError for other options than those installed, an
    unknown `modules` or `device`, or ops that were imported before and would stay in use.
    """
    options = Options(ops, patches, modules, execute_source, quiet, device)
    if modules not in ("missing", "always", "never"):
        raise UsageError(f"modules={modules!r}: expected missing, always or never")
    if device not in (None, "cpu"):
        raise UsageError(f"device={device!r}: expected 'cpu', or None for what the script says")
    installed = _installed()
    if installed is not None:
        if installed.options != options:
            raise UsageError(f"sg3.compat is installed with {installed.options}; call sg3.compat.uninstall() first")
        return Installation(options, is_new=False)
    first = FirstFinder(options, Changes())
    early = [name for name, module in sys.modules.items() if first.answers(name) and not Shim.made(module)]
    if early:
        raise UsageError(f"{min(early)} was imported already; call sg3.compat.install() before any import of it")
    first.patch_imported()
    sys.meta_path[:] = [first, *sys.meta_path, LastFinder(options)]
    return Installation(options, is_new=True)


def uninstall() -> None:
    """Undo `install`: patches are taken back and sg3's modules leave sys.modules. Objects that the script took from
    them keep working. Does nothing if nothing is installed."""
    installed = _installed()
    if installed is None:
        return
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, FirstFinder | LastFinder)]
    installed.changes.undo()
    for name, module in list(sys.modules.items()):
        if Shim.made(module):
            del sys.modules[name]
            parent, _, child = name.rpartition(".")
            if vars(sys.modules.get(parent, object)).get(child) is module:
                with suppress(AttributeError):
                    delattr(sys.modules[parent], child)


def installed_options() -> dict[str, Any] | None:
    """The arguments of the `install` in effect, if any."""
    installed = _installed()
    return None if installed is None else dict(vars(installed.options))


def _installed() -> FirstFinder | None:
    return next((finder for finder in sys.meta_path if isinstance(finder, FirstFinder)), None)
