"""What newer releases took away from scripts written for torch 1.9 and its time, given back.

One function for each change, named after it, with the release that broke the scripts. A function gets the module that
it patches right after its import (or at once, if it is imported already), so that nothing is imported on its account;
it changes nothing where the old behaviour still exists. Modules that are gone as a whole are in `finder.DROPPED`.

Not here, because it works with the versions that sg3 needs: `PIL.Image.fromarray(x, mode)`, deprecated in Pillow 11.3
and restored in 12.0.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from sg3.compat import patches_moviepy, patches_torch
from sg3.compat.changes import Changes

Patch = Callable[[ModuleType, Changes], None]


def abstract_base_classes(module: ModuleType, changes: Changes) -> None:
    """`collections.Mapping` and the others live in collections.abc only since Python 3.10."""
    for name in collections.abc.__all__:
        changes.set_missing(module, name, getattr(collections.abc, name))


def getargspec(module: ModuleType, changes: Changes) -> None:
    """`inspect.getargspec` left in Python 3.11. Its result was the first four fields of getfullargspec's."""
    ArgSpec = collections.namedtuple("ArgSpec", ["args", "varargs", "keywords", "defaults"])
    changes.set_missing(module, "getargspec", lambda function: ArgSpec(*inspect.getfullargspec(function)[:4]))


def numpy_aliases(numpy: ModuleType, changes: Changes) -> None:
    """Other names for what has kept one: Python's own types (gone in NumPy 1.24), number types, constants and
    functions (2.0), more functions (2.4)."""
    aliases = {
        "bool": bool, "int": int, "float": float, "complex": complex, "object": object, "str": str, "long": int,
        "unicode": str,
        "bool8": "bool_", "float_": "float64", "complex_": "complex128", "cfloat": "complex128",
        "longfloat": "longdouble", "string_": "bytes_", "unicode_": "str_", "int0": "intp", "uint0": "uintp",
        "Inf": "inf", "Infinity": "inf", "infty": "inf", "PINF": "inf", "NaN": "nan", "NAN": "nan",
        "product": "prod", "cumproduct": "cumprod", "sometrue": "any", "alltrue": "all", "round_": "round",
        "trapz": "trapezoid", "row_stack": "vstack",
    }  # fmt: skip
    for name, new in aliases.items():
        if not isinstance(new, str):
            changes.set_missing(numpy, name, new)
        elif hasattr(numpy, new):
            changes.set_missing(numpy, name, getattr(numpy, new))
    changes.set_missing(numpy, "in1d", lambda a, *args, **kwargs: numpy.isin(numpy.ravel(a), *args, **kwargs))
    changes.set_missing(numpy, "NINF", -numpy.inf)
    changes.set_missing(numpy, "asfarray", lambda a, dtype=float: numpy.asarray(a, dtype))
    changes.set_missing(numpy, "mat", numpy.asmatrix)


def percentile_interpolation(numpy: ModuleType, changes: Changes) -> None:
    """`interpolation=` of np.percentile and its relatives is `method=` since NumPy 1.22, and gone in 2.4."""
    for name in ("percentile", "nanpercentile", "quantile", "nanquantile"):
        changes.set(numpy, name, _renamed(getattr(numpy, name), "interpolation", "method"))


def sqrtm_disp(linalg: ModuleType, changes: Changes) -> None:
    """`scipy.linalg.sqrtm(A, disp=False)` returned an error estimate too, until SciPy 1.18 dropped `disp`."""
    original = linalg.sqrtm
    if "disp" in inspect.signature(original).parameters:
        return

    @functools.wraps(original)
    def sqrtm(A: Any, disp: bool = True, blocksize: int = 64) -> Any:
        from numpy.linalg import norm

        if disp:
            return original(A)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=getattr(linalg, "LinAlgWarning", RuntimeWarning))
            root = original(A)
        size = norm(A)
        return root, norm(root @ root - A) / size if size else size

    changes.set(linalg, "sqrtm", sqrtm)


def signal_windows(signal: ModuleType, changes: Changes) -> None:
    """Windows are in `scipy.signal.windows` only since SciPy 1.13."""
    for name in ("blackman", "boxcar", "cosine", "gaussian", "hamming", "hann", "kaiser", "triang", "tukey"):
        changes.set_missing(signal, name, getattr(signal.windows, name))


def integration_names(integrate: ModuleType, changes: Changes) -> None:
    """Older names of quadrature rules, gone in SciPy 1.14."""
    for name, new in {"trapz": "trapezoid", "cumtrapz": "cumulative_trapezoid", "simps": "simpson"}.items():
        if hasattr(integrate, new):
            changes.set_missing(integrate, name, getattr(integrate, new))


def efficientnet_activations(efficientnet: ModuleType, changes: Changes) -> None:
    """timm's EfficientNet had its activations as modules `act1` and `act2`, until 0.6 made them parts of the batch
    norms before them. What is left to do after those is nothing."""

    def activation(norm: str) -> property:
        def get(network: Any) -> Any:
            from torch.nn import Identity

            if not hasattr(getattr(network, norm), "act"):  # as `__getattr__` of a module would say
                raise AttributeError(f"{type(network).__name__!r} object has no attribute 'act' beside {norm!r}")
            return Identity()

        return property(get)

    if hasattr(efficientnet, "BatchNormAct2d") or hasattr(efficientnet, "get_norm_act_layer"):
        for name in ("EfficientNet", "EfficientNetFeatures"):
            for number in (1, 2):
                changes.set_missing(getattr(efficientnet, name), f"act{number}", activation(f"bn{number}"))


def resampling_names(image: ModuleType, changes: Changes) -> None:
    """Second names of PIL's resampling filters, gone in Pillow 10."""
    for name, new in {"ANTIALIAS": "LANCZOS", "LINEAR": "BILINEAR", "CUBIC": "BICUBIC"}.items():
        changes.set_missing(image, name, getattr(image.Resampling, new))


def font_getsize(font: ModuleType, changes: Changes) -> None:
    """`font.getsize(text)` is `getbbox` since Pillow 10."""

    def getsize(self: Any, text: str, *args: Any, **kwargs: Any) -> tuple[int, int]:
        _, _, right, bottom = self.getbbox(text, *args, **kwargs)
        return int(right), int(bottom)

    for name in ("FreeTypeFont", "ImageFont", "TransposedFont"):
        changes.set_missing(getattr(font, name), "getsize", getsize)


def colormap_by_name(cm: ModuleType, changes: Changes) -> None:
    """`matplotlib.cm.get_cmap` left in Matplotlib 3.9."""

    def get_cmap(name: Any = None, lut: int | None = None) -> Any:
        import matplotlib

        wanted = matplotlib.rcParams["image.cmap"] if name is None else name
        cmap = matplotlib.colormaps[wanted] if isinstance(wanted, str) else wanted
        return cmap if lut is None else cmap.resampled(lut)

    changes.set_missing(cm, "get_cmap", get_cmap)


def gif_fps(imageio: ModuleType, changes: Changes) -> None:
    """For .gif, imageio 2.28 refuses `fps`, frames in a second, and wants `duration`, milliseconds of each frame."""

    def adapted(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(uri: Any, *args: Any, **kwargs: Any) -> Any:
            is_gif = str(uri).lower().endswith(".gif") or str(kwargs.get("format", "")).lower().startswith("gif")
            if is_gif and "fps" in kwargs:
                kwargs["duration"] = 1000 / kwargs.pop("fps")
            return function(uri, *args, **kwargs)

        return call

    version = tuple(int(part) for part in imageio.__version__.split(".")[:2])
    for owner in (imageio, getattr(imageio, "v2", None)):
        for name in ("get_writer", "mimsave", "mimwrite"):
            if owner is not None and version >= (2, 28) and hasattr(owner, name):
                changes.set(owner, name, adapted(getattr(owner, name)))


def _renamed(function: Callable[..., Any], old: str, new: str) -> Callable[..., Any]:
    """The function, also taking argument `new` by its old name."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if old in kwargs:
            kwargs[new] = kwargs.pop(old)
        return function(*args, **kwargs)

    return call


PATCHES: Mapping[str, tuple[Patch, ...]] = {  # module, by full name -> what to do after its import
    "collections": (abstract_base_classes,),
    "inspect": (getargspec,),
    "numpy": (numpy_aliases, percentile_interpolation),
    "scipy.linalg": (sqrtm_disp,),
    "scipy.signal": (signal_windows,),
    "scipy.integrate": (integration_names,),
    "timm.models.efficientnet": (efficientnet_activations,),
    "moviepy": (patches_moviepy.first_version,),
    "PIL.Image": (resampling_names,),
    "PIL.ImageFont": (font_getsize,),
    "matplotlib.cm": (colormap_by_name,),
    "imageio": (gif_fps,),
    "torch": (
        patches_torch.integer_betas,
        patches_torch.load_with_objects,
        patches_torch.meshgrid_warning,
    ),
    "torch.utils.data.sampler": (patches_torch.sampler_of_data,),
    "torch.cuda.amp": (patches_torch.cuda_amp,),
    "torch.testing": (patches_torch.assert_allclose,),
}
