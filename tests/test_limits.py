"""Files that ask for more than they are worth: each costs two seconds and 512 MB at most, and one line says why."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers import costly_arguments, costly_data, costly_networks
from tests.helpers.costly import Cost, measure

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured by /proc")

Prepare = Callable[[Path], list[str]]
HEAVY = "million", "GB", "MB", "GiB", "endless", "4096", "8192", "2048", "200,000", "line without", "bytes", "deflated"
OF_PIXELS = 2**28  # bytes of the largest images, decoded


def network(make: Callable[[], bytes]) -> Prepare:
    def prepare(folder: Path) -> list[str]:
        (folder / "net.pkl").write_bytes(make())
        return ["info", str(folder / "net.pkl")]

    return prepare


def all_cases() -> dict[str, Prepare]:
    networks = costly_networks.cases() | costly_arguments.cases()
    return {name: network(make) for name, make in networks.items()} | costly_data.cases()


def costs(cases: dict[str, Prepare], folder: Path) -> dict[str, tuple[Cost, int]]:
    """What each case costs, and how many bytes the files have that it reads."""
    sizes: list[int] = []

    def prepared() -> Iterator[list[str]]:
        for number, prepare in enumerate(cases.values()):
            place = folder / f"{number}"
            place.mkdir()
            words = prepare(place)
            sizes.append(sum(path.stat().st_size for path in place.rglob("*") if path.is_file()))
            yield words
            shutil.rmtree(place)

    found = measure(folder, prepared())
    return dict(zip(cases, zip(found, sizes, strict=True), strict=True))


def check(cases: dict[str, Prepare], folder: Path) -> None:
    wrong = {}
    for name, (cost, size) in costs(cases, folder).items():
        own = max(size, OF_PIXELS if "of 64 million" in name or "of 32 million" in name else 0)
        well_said = "more memory" not in cost.message and "a bug in sg3" not in cost.message
        if cost.code not in (0, 65) or not cost.is_within(own) or not well_said:
            wrong[name] = cost
    assert not wrong


def test_costs_of_some_files(tmp_path: Path) -> None:
    cases = [(name, prepare) for name, prepare in all_cases().items() if not any(word in name for word in HEAVY)]
    check(dict(cases[::8]), tmp_path)


@pytest.mark.slow
def test_costs_of_all_files(tmp_path: Path) -> None:
    cases = all_cases()
    assert len(cases) > 450
    check(cases, tmp_path)
