"""Each patch: what fails without it, works with it, and is gone after uninstall."""

from __future__ import annotations

import collections
import importlib
import inspect
import io
import subprocess
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageFont
import pytest
import scipy.linalg
import scipy.signal
import torch

import sg3.compat
from sg3.compat import patches, patches_torch
from sg3.compat.changes import Changes
from sg3.compat.finder import DROPPED, LastFinder
from tests.conftest import ROOT

W = torch.zeros(2, requires_grad=True)


def cm() -> Any:
    return importlib.import_module("matplotlib.cm")


class OldSampler(torch.utils.data.Sampler):
    def __init__(self, dataset: Any) -> None:
        super().__init__(dataset)


def meshgrid_quietly() -> Any:
    with warnings.catch_warnings():
        # The filters in force, but for those that repeat a warning only once.
        warnings.filters[:] = [entry for entry in warnings.filters if entry[0] in ("ignore", "error")]
        warnings.filterwarnings("error", message="torch.meshgrid", append=True)
        torch.set_warn_always(True)  # not only the first time
        try:
            return torch.meshgrid(torch.arange(2), torch.arange(3))
        finally:
            torch.set_warn_always(False)


BROKEN: dict[str, tuple[Callable[[], Any], Any]] = {  # an old call, and what it gave
    "Adam with integer betas": (lambda: torch.optim.Adam([W], lr=1e-3, betas=[0, 0.99]).defaults["betas"], (0.0, 0.99)),
    "AdamW with integer betas": (lambda: torch.optim.AdamW([W], 1e-3, (0, 0.99)).defaults["betas"], (0.0, 0.99)),
    "Sampler takes a dataset": (lambda: len(list(vars(OldSampler([1])))), 0),
    "meshgrid does not warn": (lambda: meshgrid_quietly()[1].tolist(), [[0, 1, 2], [0, 1, 2]]),
    "percentile": (lambda: np.percentile([1.0, 2, 3, 4], 40, interpolation="lower"), 2.0),
    "percentile higher": (lambda: np.percentile([1.0, 2, 3, 4], 40, interpolation="higher"), 3.0),
    "quantile": (lambda: np.quantile([1.0, 2], 0.4, interpolation="nearest"), 1.0),
    "nanquantile": (lambda: np.nanquantile([1.0, np.nan, 2], 0.4, interpolation="nearest"), 1.0),
    "nanpercentile": (lambda: np.nanpercentile([1.0, np.nan, 2], 40, interpolation="nearest"), 1.0),
    "np.float": (lambda: np.zeros(1, np.float).dtype, np.dtype("f8")),  # noqa: NPY001
    "np.int": (lambda: np.array([1.7]).astype(np.int).tolist(), [1]),  # noqa: NPY001
    "np.object": (lambda: np.object, object),  # noqa: NPY001
    "np.float_": (lambda: np.float_, np.float64),  # noqa: NPY201
    "np.Inf": (lambda: (np.Inf, np.NINF), (np.inf, -np.inf)),  # noqa: NPY201
    "np.product": (lambda: np.product([2, 3]), 6),  # noqa: NPY003, NPY201
    "np.alltrue": (lambda: np.alltrue([1, 0]), False),  # noqa: NPY003, NPY201
    "np.in1d": (lambda: np.in1d([[1, 2]], [2]).tolist(), [False, True]),  # noqa: NPY201
    "np.trapz": (lambda: np.trapz([1.0, 3]), 2.0),  # noqa: NPY201
    "np.asfarray": (lambda: np.asfarray([1]).dtype, np.dtype("f8")),  # noqa: NPY201
    "np.mat": (lambda: np.mat([[1]]).shape, (1, 1)),  # noqa: NPY201
    "scipy.signal.kaiser": (lambda: scipy.signal.kaiser(3, 0.0).tolist(), [1.0, 1.0, 1.0]),
    "Image.ANTIALIAS": (lambda: PIL.Image.new("L", (4, 4)).resize((2, 2), PIL.Image.ANTIALIAS).size, (2, 2)),
    "font.getsize": (lambda: PIL.ImageFont.load_default().getsize("text")[1] > 5, True),
    "cm.get_cmap": (lambda: cm().get_cmap("jet", 5).N, 5),
    "cm.get_cmap()": (lambda: cm().get_cmap().name, "viridis"),
    "collections.Mapping": (lambda: isinstance({}, collections.Mapping), True),
    "inspect.getargspec": (lambda: inspect.getargspec(lambda a, *b, c=1: 0).args, ["a"]),
}


@pytest.mark.filterwarnings("ignore:In the future:FutureWarning", "ignore:the matrix subclass")
@pytest.mark.parametrize("name", BROKEN)
def test_old_call(name: str) -> None:
    if name.startswith("cm."):
        pytest.importorskip("matplotlib")
    call, expected = BROKEN[name]
    with pytest.raises((AttributeError, TypeError, ValueError, UserWarning)):
        call()
    with sg3.compat.install(quiet=True):
        assert call() == expected
    with pytest.raises((AttributeError, TypeError, ValueError, UserWarning)):
        call()


def test_no_patches() -> None:
    with sg3.compat.install(patches=False, quiet=True):
        assert not hasattr(collections, "Mapping")
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("torch._six")


def test_new_calls_still_work() -> None:
    with sg3.compat.install(quiet=True):
        assert np.percentile([1.0, 2], 40, method="nearest") == 1
        assert torch.optim.Adam([W], betas=(0.5, 0.9)).defaults["betas"] == (0.5, 0.9)
        betas = torch.tensor(0.5), torch.tensor(0.9)
        assert torch.optim.AdamW([W], betas=betas, foreach=False).defaults["betas"] == betas
        assert list(torch.utils.data.SequentialSampler([5, 6])) == [0, 1]
        assert torch.meshgrid(torch.arange(2), torch.arange(3), indexing="xy")[0].shape == (3, 2)
        assert np.bool is np.bool_
        scipy.linalg.sqrtm(np.eye(2))


def test_pillow_needs_no_patch() -> None:
    """fromarray(mode) is no warning in the versions that sg3 requires."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert PIL.Image.fromarray(np.zeros((2, 3, 3), np.uint8), "RGB").size == (3, 2)


# ---- torch.load


class Thing:
    """Not weights."""


def saved() -> io.BytesIO:
    file = io.BytesIO()
    torch.save({"thing": Thing()}, file)
    file.seek(0)
    return file


def test_torch_load_of_objects() -> None:
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(saved())
    with sg3.compat.install(quiet=True):
        assert isinstance(torch.load(saved())["thing"], Thing)
        with pytest.raises(Exception, match="Weights only load failed"):  # what is said explicitly counts
            torch.load(saved(), weights_only=True)
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(saved())


def test_torch_load_called_by_an_installed_package(tmp_path: Path) -> None:
    """The default of other people's calls is not ours to change."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "installed.py").write_text("")
    code = compile("load = lambda file: torch.load(file)", str(folder / "installed.py"), "exec")
    module = types.ModuleType("installed")
    module.__dict__["torch"] = torch
    exec(code, module.__dict__)
    assert patches_torch._is_installed(torch.__file__)
    assert patches_torch._is_installed(io.__file__)
    assert not patches_torch._is_installed(__file__)
    with sg3.compat.install(quiet=True), pytest.raises(Exception, match="Weights only load failed"):
        module.load(saved())


def test_torch_load_can_be_ruled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    with sg3.compat.install(quiet=True), pytest.raises(Exception, match="Weights only load failed"):
        torch.load(saved())


# ---- what this machine's versions still have, or have not: with stand-ins


def test_sqrtm_without_disp(monkeypatch: pytest.MonkeyPatch) -> None:
    """As SciPy 1.18 is to be."""
    linalg = types.ModuleType("scipy.linalg")
    linalg.sqrtm = lambda A: np.asarray(A) ** 0.5  # for a diagonal
    changes = Changes()
    with pytest.raises(TypeError, match="disp"):
        linalg.sqrtm(np.diag([4.0, 9.0]), disp=False)
    patches.sqrtm_disp(linalg, changes)
    root, error = linalg.sqrtm(np.diag([4.0, 9.0]), disp=False)
    assert root.tolist() == [[2, 0], [0, 3]]
    assert error == 0
    _, error = linalg.sqrtm(np.array([[0.0, 1.0], [1.0, 0.0]]), disp=False)  # wrong on purpose: its square is no root
    assert error == pytest.approx(np.linalg.norm(np.eye(2) - [[0, 1], [1, 0]]) / np.sqrt(2))
    assert linalg.sqrtm(np.eye(2)).tolist() == [[1, 0], [0, 1]]
    changes.undo()
    with pytest.raises(TypeError, match="disp"):
        linalg.sqrtm(np.eye(2), disp=False)


def test_frames_per_second_of_gifs() -> None:
    def writer(uri: Any, *args: Any, **kwargs: Any) -> Any:
        if str(uri).endswith(".gif") and "fps" in kwargs:
            raise TypeError("The keyword `fps` is no longer supported. Use `duration`(in ms) instead")
        return kwargs

    imageio = types.ModuleType("imageio")
    imageio.__version__ = "2.37.0"
    imageio.get_writer = imageio.mimsave = writer
    imageio.v2 = types.ModuleType("imageio.v2")
    imageio.v2.mimsave = writer
    changes = Changes()
    patches.gif_fps(imageio, changes)
    for function in (imageio.get_writer, imageio.mimsave, imageio.v2.mimsave):
        assert function("a.gif", fps=20) == {"duration": 50.0}
        assert function("a.mp4", fps=60, codec="libx264") == {"fps": 60, "codec": "libx264"}
    changes.undo()
    with pytest.raises(TypeError, match="fps"):
        imageio.mimsave("a.gif", fps=20)
    imageio.__version__ = "2.9.0"  # there it is as the scripts expect
    patches.gif_fps(imageio, changes)
    assert imageio.get_writer is writer


def test_names_of_torch_that_may_go() -> None:
    amp, testing, changes = types.ModuleType("torch.cuda.amp"), types.ModuleType("torch.testing"), Changes()
    testing.assert_close = torch.testing.assert_close
    patches_torch.cuda_amp(amp, changes)
    patches_torch.assert_allclose(testing, changes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is no GPU
        with amp.autocast(enabled=False):
            pass
        amp.GradScaler(enabled=False)
    assert amp.custom_fwd.keywords == amp.custom_bwd.keywords == {"device_type": "cuda"}
    testing.assert_allclose(torch.ones(2), [1.0, 1.0], rtol=1e-6, atol=0)
    with pytest.raises(AssertionError):
        testing.assert_allclose(torch.ones(2), torch.tensor([1.0, 1.1]))
    changes.undo()
    assert not hasattr(amp, "autocast")
    assert not hasattr(testing, "assert_allclose")


def test_a_patch_that_does_not_fit_is_reported_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def unfit(module: Any, changes: Changes) -> None:
        raise AttributeError("no such thing any more")

    monkeypatch.setattr("sg3.compat.finder.PATCHES", {"collections": (unfit, patches.abstract_base_classes)})
    with (
        pytest.warns(UserWarning, match=r"cannot patch collections: unfit: no such thing"),
        sg3.compat.install(quiet=True),
    ):
        assert collections.Mapping


# ---- modules that are gone


def test_modules_that_python_and_torch_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read from our files, whether or not this machine has the originals."""
    with sg3.compat.install(quiet=True):
        finder = next(finder for finder in sys.meta_path if isinstance(finder, LastFinder))
        modules = {}
        for name in DROPPED:
            if name.startswith(("moviepy.", "torchvision.")):
                continue  # these need the package that they are of: test_rot.py
            spec = finder.find_spec(name, None)
            modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(modules[name])
    version = modules["distutils.version"].LooseVersion
    assert version("1.10.0") > version("1.9.1")
    assert version("1.7") == "1.7"
    assert version("2.0.0a1") < "2.0.0.1"
    assert str(modules["distutils.version"].StrictVersion("1.2")) == "1.2"
    assert max("1.9", "1.10", key=version) == "1.10"
    assert [modules["distutils.util"].strtobool(word) for word in ("Yes", "off", "1", "F")] == [1, 0, 1, 0]
    with pytest.raises(ValueError, match="maybe"):
        modules["distutils.util"].strtobool("maybe")
    parse = modules["pkg_resources"].parse_version
    assert parse("1.10.0+cu113") > parse("1.9")
    assert parse(torch.__version__) >= parse("1.7.0")
    assert modules["pkg_resources"].get_distribution("numpy").version == np.__version__
    assert Path(modules["pkg_resources"].resource_filename("numpy", "__init__.py")).is_file()
    assert b"numpy" in modules["pkg_resources"].resource_string("numpy", "__init__.py")
    assert (modules["torch._six"].inf, modules["torch._six"].string_classes) == (float("inf"), (str, bytes))
    assert modules["torch._six"].container_abcs is collections.abc


def test_dropped_modules_by_import() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("torch._six")
    with sg3.compat.install(quiet=True):
        assert importlib.import_module("torch._six").inf == float("inf")
    assert "torch._six" not in sys.modules
    assert not hasattr(torch, "_six")


LATER = """
import sys, sg3.compat
sg3.compat.install(quiet=True)
assert not {"numpy", "torch", "matplotlib", "scipy", "PIL"} & set(sys.modules), "install imports nothing"
import numpy as np
assert np.float is float and type(np.__loader__).__name__ == type(np.__spec__.loader).__name__ == "SourceFileLoader"
assert np.percentile([1, 2, 3], 50, interpolation="nearest") == 2
assert "matplotlib" not in sys.modules
import matplotlib.cm, PIL.Image
assert matplotlib.cm.get_cmap("viridis") and PIL.Image.ANTIALIAS == PIL.Image.LANCZOS
sg3.compat.uninstall()
assert "float" not in vars(np) and not hasattr(matplotlib.cm, "get_cmap") and not hasattr(PIL.Image, "ANTIALIAS")
import scipy.signal
assert not hasattr(scipy.signal, "kaiser"), "uninstalled: later imports stay as they are"
"""


def test_patches_wait_for_the_import() -> None:
    """A package that the script does not import is not imported for it."""
    pytest.importorskip("matplotlib")
    subprocess.run([sys.executable, "-W", "error::FutureWarning", "-c", LATER], check=True, cwd=ROOT, timeout=120)
