"""Which imports sg3 answers, and with which file of `sg3/compat/modules`.

    FirstFinder, before all others    the ops; with modules='always' the other shims too; patches on import
    LastFinder, after all others      what nobody else has found: the other shims, modules that Python or torch dropped

A shim is executed from its file under the name it is imported by, so that `torch_utils.ops.bias_act` and a nested
`stylegan.torch_utils.ops.bias_act` are two modules with flags of their own, as two copies of the original would be.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from sg3.compat.changes import Changes
from sg3.compat.child import start_children_alike
from sg3.compat.cpu_cuda import answers_without_a_gpu
from sg3.compat.cpu_devices import cuda_means_cpu
from sg3.compat.patches import PATCHES, Patch
from sg3.terminal import say

MODULES = Path(__file__).parent / "modules"
OPS = "bias_act|upfirdn2d|filtered_lrelu|conv2d_gradfix|conv2d_resample|grid_sample_gradfix|fma"
IS_OP = re.compile(rf"(?:.*\.)?(torch_utils\.(?:custom_ops|ops\.(?:{OPS})))")

PACKAGES = ("torch_utils", "torch_utils.ops")  # what the ops need above them
OFFERED = (*PACKAGES, "torch_utils.persistence", "torch_utils.misc", "torch_utils.training_stats",
           "dnnlib", "dnnlib.util", "legacy")  # fmt: skip
DROPPED = {  # name -> file; by the release that no longer has it
    "distutils": "distutils/__init__.py",  # Python 3.12
    "distutils.util": "distutils/util.py",
    "distutils.version": "distutils/version.py",
    "imp": "imp.py",
    "pkg_resources": "pkg_resources.py",  # setuptools 82
    "torch._six": "torch_six.py",  # torch 2.0
    "torchvision.models.utils": "torchvision_models_utils.py",  # torchvision 0.13
    "torchvision.transforms.functional_tensor": "torchvision_functional_tensor.py",  # 0.17
    "moviepy.editor": "moviepy_editor.py",  # MoviePy 2
    "moviepy.video.fx.all": "moviepy_fx_all.py",
    "moviepy.audio.fx.all": "moviepy_fx_all.py",
}


@dataclass(frozen=True)
class Options:
    """The arguments of `sg3.compat.install`."""

    ops: bool
    patches: bool
    modules: str
    execute_source: bool
    quiet: bool = field(compare=False)  # of no consequence for what is installed
    device: str | None = None


class Shim(SourceFileLoader):
    """Loads a file of `sg3/compat/modules`. The flag of `torch_utils.persistence` is set from the options."""

    def __init__(self, name: str, path: str, options: Options, finder: FirstFinder | None) -> None:
        super().__init__(name, path)
        self._options = options
        self._finder = finder

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        if module.__name__ == "torch_utils.persistence":
            module.__dict__["execute_source"] = self._options.execute_source
        if self._finder is not None:
            self._finder.announce()

    @staticmethod
    def made(module: ModuleType | None) -> bool:
        """Whether a module comes from here."""
        return isinstance(getattr(getattr(module, "__spec__", None), "loader", None), Shim)


def shim(
    name: str, file: str, path: Sequence[str] | None, options: Options, finder: FirstFinder | None = None
) -> ModuleSpec:
    """A spec for importing a file of the modules folder as `name`; `path` is the parent package's.

    A package also looks where the one that it stands in for would have: a fork's `torch_utils/gen_utils.py` stays
    importable beside ours.
    """
    source = MODULES / file
    spec = spec_from_file_location(name, source, loader=Shim(name, str(source), options, finder))
    assert spec is not None
    if source.name == "__init__.py":
        hidden = PathFinder.find_spec(name, path)
        spec.submodule_search_locations = list(hidden.submodule_search_locations or ()) if hidden else []
    return spec


class FirstFinder(MetaPathFinder):
    """The ops, whatever the checkout has of them; holds what `uninstall` must undo."""

    def __init__(self, options: Options, changes: Changes) -> None:
        self.options = options
        self.changes = changes
        self._patches: dict[str, tuple[Patch, ...]] = dict(PATCHES) if options.patches else {}
        if options.device == "cpu":  # first, for `load_with_objects` looks at who calls it
            self._patches["torch"] = (answers_without_a_gpu, cuda_means_cpu, *self._patches.get("torch", ()))
        self._patches["multiprocessing.spawn"] = (start_children_alike(vars(options)),)
        self._announced = options.quiet or os.environ.get("SG3_COMPAT_QUIET", "") not in ("", "0")

    def answers(self, name: str) -> bool:
        """Whether an import of `name` is answered here."""
        return self._file(name) is not None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = self._file(fullname)
        if file is not None:
            return shim(fullname, file, path, self.options, self if IS_OP.fullmatch(fullname) else None)
        return self._watched(fullname, path, target) if fullname in self._patches else None

    def _file(self, name: str) -> str | None:
        op = IS_OP.fullmatch(name)
        if op is not None and self.options.ops and not name.startswith("sg3."):
            return op[1].replace(".", "/") + ".py"
        if self.options.modules == "always" and name in OFFERED:
            return _offered_file(name)
        return None

    def _watched(self, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        """What the other finders say, with a loader that applies the patches afterwards."""
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                    spec.loader = _Patching(spec.loader, self)
                return spec
        return None

    def patch_imported(self) -> None:
        """Patch what is imported already."""
        for name in self._patches:
            if name in sys.modules:
                self.patch(sys.modules[name])

    def patch(self, module: ModuleType) -> None:
        """A patch that does not fit is reported and left out: the script may not need it."""
        for patch in self._patches[module.__name__]:
            try:
                patch(module, self.changes)
            except Exception as error:
                warnings.warn(f"sg3.compat: cannot patch {module.__name__}: {patch.__name__}: {error}", stacklevel=2)

    def announce(self) -> None:
        """Say once who answers. Looking at the GPU itself would start CUDA, which a script that forks must not have;
        `sg3.kernels` looks at it when an op first runs, and says so if Triton cannot."""
        if self._announced or os.environ.get("LOCAL_RANK", "0") != "0":
            return
        self._announced = True
        import torch

        impl = os.environ.get("SG3_IMPL") or "auto"
        if impl in ("auto", "cuda"):
            on_gpu = torch.version.cuda is not None and torch.cuda.device_count() > 0
            if on_gpu:
                impl = "triton" if find_spec("triton") is not None else "torch"
            else:
                impl = "numba and torch" if find_spec("numba") is not None else "torch"
        say(f"sg3.compat: torch_utils.ops -> sg3.kernels ({impl})")


class LastFinder(MetaPathFinder):
    """What no other finder has."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        offered = self.options.modules != "never" and fullname in OFFERED
        if offered or (self.options.ops and fullname in PACKAGES):
            return shim(fullname, _offered_file(fullname), path, self.options)
        if self.options.patches and fullname in DROPPED:
            return shim(fullname, DROPPED[fullname], path, self.options)
        return None


class _Patching(Loader):
    """Stands in for a module's loader during the import, and applies its patches at the end."""

    def __init__(self, loader: Loader, finder: FirstFinder) -> None:
        self._loader = loader
        self._finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader  # the module never sees the stand-in
        self._loader.exec_module(module)
        if self._finder in sys.meta_path:
            self._finder.patch(module)


def _offered_file(name: str) -> str:
    path = name.replace(".", "/")
    return f"{path}/__init__.py" if (MODULES / path).is_dir() else f"{path}.py"
