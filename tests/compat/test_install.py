"""install, uninstall, and who answers which import."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import sg3.compat
from sg3.errors import UsageError
from tests.compat.conftest import LAYOUT

ON_CPU = "numba and torch" if find_spec("numba") else "torch"


def state() -> tuple[object, ...]:
    import numpy
    import torch

    return list(sys.meta_path), torch.load, dict(vars(numpy)), torch.optim.Adam.__init__, set(sys.modules)


def test_importing_changes_nothing() -> None:
    code = (
        "import sys; before = list(sys.meta_path); import sg3.compat; "
        "assert sys.meta_path == before and 'torch' not in sys.modules and 'numpy' not in sys.modules; "
        "import collections; assert not hasattr(collections, 'Mapping')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=LAYOUT.parents[2])


def test_install_is_idempotent_and_taken_back() -> None:
    import torch.utils.data  # noqa: F401 - nothing that install changes is imported in between

    before = state()
    with sg3.compat.install(quiet=True) as first:
        finders = list(sys.meta_path)
        with sg3.compat.install(quiet=True) as again:
            assert again.options == first.options
            assert sys.meta_path == finders
        assert sys.meta_path == finders  # the inner block had nothing to undo
        assert sg3.compat.installed_options()["ops"] is True
        importlib.import_module("torch_utils.ops.fma")
        assert state() != before
    assert sg3.compat.installed_options() is None
    assert [a == b for a, b in zip(state(), before, strict=True)] == [True] * len(before)
    sg3.compat.uninstall()  # does nothing


def test_other_options_are_refused() -> None:
    with sg3.compat.install(quiet=True):
        sg3.compat.install(quiet=False)  # is no other option
        for other in ({"patches": False}, {"modules": "always"}):
            with pytest.raises(UsageError, match=r"call sg3\.compat\.uninstall\(\) first"):
                sg3.compat.install(**other)
    with pytest.raises(UsageError, match="modules='some': expected missing, always or never"):
        sg3.compat.install(modules="some")


def test_ops_imported_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(LAYOUT))
    with pytest.raises(RuntimeError, match="tripwire"):
        importlib.import_module("torch_utils.ops.fma")
    monkeypatch.setitem(sys.modules, "torch_utils.ops.fma", type(sys)("torch_utils.ops.fma"))
    with pytest.raises(UsageError, match=r"torch_utils.ops.fma was imported already; call .* before"):
        sg3.compat.install()
    assert sg3.compat.installed_options() is None
    forget_checkout()


def origin(name: str) -> Path:
    return Path(importlib.import_module(name).__file__).resolve()


OURS = Path(sg3.compat.__file__).resolve().parent / "modules"
CHECKOUT = ("dnnlib", "dnnlib.util", "torch_utils", "torch_utils.misc", "torch_utils.persistence")


def forget_checkout() -> None:
    for name in [n for n in sys.modules if n.split(".")[0] in ("torch_utils", "dnnlib", "legacy")]:
        del sys.modules[name]


@pytest.mark.parametrize("modules", ["missing", "never"])
def test_a_checkout_is_used_as_found_but_for_the_ops(modules: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(LAYOUT))
    with sg3.compat.install(modules=modules, quiet=True):
        assert origin("torch_utils.ops.bias_act").is_relative_to(OURS)
        assert origin("torch_utils.custom_ops").is_relative_to(OURS)
        for name in (*CHECKOUT, "torch_utils.ops", "torch_utils.ops.own_op"):
            assert origin(name).is_relative_to(LAYOUT), name
        own_op = importlib.import_module("torch_utils.ops.own_op")
        with pytest.raises(ImportError, match="own_plugin"):
            own_op.build()
        if modules == "missing":  # the layout has none
            assert origin("legacy").is_relative_to(OURS)
        else:
            with pytest.raises(ModuleNotFoundError):
                importlib.import_module("legacy")
    forget_checkout()


def test_always_comes_before_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(LAYOUT))
    with sg3.compat.install(modules="always", quiet=True):
        for name in (*CHECKOUT, "torch_utils.ops", "legacy"):
            assert origin(name).is_relative_to(OURS), name
        # What only the checkout has is still found beside them.
        assert origin("torch_utils.ops.own_op").is_relative_to(LAYOUT)
    forget_checkout()


def test_without_a_checkout() -> None:
    with sg3.compat.install(quiet=True):
        for name in (*CHECKOUT, "torch_utils.training_stats", "torch_utils.ops.fma", "legacy"):
            assert origin(name).is_relative_to(OURS), name
        dnnlib = importlib.import_module("dnnlib")
        assert dnnlib.EasyDict is importlib.import_module("dnnlib.util").EasyDict
        assert dnnlib.EasyDict.__module__ == "dnnlib.util"
    with sg3.compat.install(modules="never", quiet=True):
        assert origin("torch_utils.ops.fma").is_relative_to(OURS)
        for name in ("dnnlib", "legacy", "torch_utils.persistence"):
            with pytest.raises(ModuleNotFoundError):
                importlib.import_module(name)


def test_without_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(LAYOUT))
    with sg3.compat.install(ops=False, quiet=True), pytest.raises(RuntimeError, match="tripwire"):
        importlib.import_module("torch_utils.ops.bias_act")
    forget_checkout()


def test_ops_inside_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some tools carry torch_utils in a package of their own; its flags are its own too."""
    folder = tmp_path / "carrier_pkg" / "torch_utils" / "ops"
    folder.mkdir(parents=True)
    for parent in (folder, folder.parent, folder.parent.parent):
        (parent / "__init__.py").write_text("")
    (folder / "conv2d_gradfix.py").write_text("raise RuntimeError('tripwire')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with sg3.compat.install(quiet=True):
        inner = importlib.import_module("carrier_pkg.torch_utils.ops.conv2d_gradfix")
        outer = importlib.import_module("torch_utils.ops.conv2d_gradfix")
        assert Path(inner.__file__).is_relative_to(OURS)
        inner.enabled = True
        assert outer.enabled is False
        resample = importlib.import_module("carrier_pkg.torch_utils.ops.conv2d_resample")
        assert resample.conv2d_gradfix is inner
    assert "carrier_pkg.torch_utils.ops.conv2d_gradfix" not in sys.modules
    for name in [name for name in sys.modules if name.startswith("carrier_pkg")]:
        del sys.modules[name]


def test_one_line_on_stderr(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SG3_COMPAT_QUIET", raising=False)
    for variables, expected in (
        ({}, f"sg3.compat: torch_utils.ops -> sg3.kernels ({ON_CPU})\n"),
        ({"SG3_IMPL": "ref"}, "sg3.compat: torch_utils.ops -> sg3.kernels (ref)\n"),
        ({"SG3_COMPAT_QUIET": "1"}, ""),
        ({"LOCAL_RANK": "1"}, ""),
    ):
        with monkeypatch.context() as patch:
            patch.setattr("torch.cuda.device_count", lambda: 0)
            for name, value in variables.items():
                patch.setenv(name, value)
            with sg3.compat.install():
                importlib.import_module("torch_utils.ops.fma")
                importlib.import_module("torch_utils.ops.bias_act")
        captured = capfd.readouterr()
        assert captured.err == expected
        assert captured.out == ""
