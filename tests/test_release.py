"""What a release consists of agrees with itself."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import sg3

ROOT = Path(__file__).parent.parent


def test_the_version_is_the_same_everywhere() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## (\S+)", changes, flags=re.MULTILINE)[1] == sg3.__version__
    assert f"\nversion: {sg3.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_publishing_is_inert_and_needs_no_secret() -> None:
    text = (ROOT / ".github" / "workflows" / "publish.yml").read_text()
    assert "if: vars.RELEASE == 'yes'" in text
    assert re.findall(r"^on:\n((?:  .*\n)+)", text, flags=re.MULTILINE)[0].lstrip().startswith("workflow_dispatch:")
    assert "secrets." not in text
    assert not re.search(r"^  (push|release|schedule|pull_request)", text, flags=re.MULTILINE)


def test_extras_are_known_to_the_doctor() -> None:
    from sg3.cli.doctor import EXTRAS

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(EXTRAS) == set(extras) - {"test", "bench", "docs", "dev"}


def test_the_source_archive_has_what_its_tests_and_documents_name() -> None:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a checkout")
    top = {name.split("/")[0] for name in listing.stdout.splitlines()}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = settings["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert {name.lstrip("/") for name in included} == top - {".gitignore"}  # which hatch adds


@pytest.mark.slow
def test_a_wheel_holds_the_package_alone_and_its_types(tmp_path) -> None:
    pytest.importorskip("build")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"sg3", f"sg3-{sg3.__version__}.dist-info"}
    assert {"sg3/py.typed", "sg3/viewer/static/index.html"} <= set(names)
    assert not [name for name in names if name.endswith((".nbc", ".nbi", ".pyc"))]
