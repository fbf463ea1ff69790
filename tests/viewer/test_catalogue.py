"""Which networks may be opened: those that were named, and no others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from sg3.errors import MissingInputError
from sg3.viewer.catalogue import Catalogue
from sg3.viewer.library import MOST_OPEN, Library, Unread
from sg3.viewer.pictures import Painter
from sg3.viewer.shelf import Shelf
from sg3.viewer.state import State
from tests.helpers.for_tools import saved, tiny2, tiny3


def run_of(folder: Path, *kimgs: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "training_options.json").write_text("{}")
    for kimg in kimgs:
        saved(tiny3(), folder / f"network-snapshot-{kimg:06d}.pkl")
    return folder


def test_files_runs_and_folders(tmp_path: Path) -> None:
    alone = saved(tiny3(), tmp_path / "alone.pkl")
    folder = tmp_path / "nets"
    run_of(folder / "00000-t", 0, 4)
    saved(tiny2(), folder / "b.pkl")
    (folder / "c.txt").write_text("")
    (folder / "deeper").mkdir()
    saved(tiny2(), folder / "deeper" / "hidden.pkl")
    (tmp_path / "elsewhere").mkdir()
    saved(tiny2(), tmp_path / "elsewhere" / "secret.pkl")
    os.symlink(tmp_path / "elsewhere" / "secret.pkl", folder / "link.pkl")
    os.symlink(tmp_path / "elsewhere", folder / "folder")
    found = Catalogue([alone], [folder, tmp_path / "gone"]).entries()
    assert list(found) == [
        "alone.pkl", "00000-t", "00000-t/network-snapshot-000000.pkl", "00000-t/network-snapshot-000004.pkl",
        "nets/b.pkl",
    ]  # fmt: skip
    assert found["00000-t/network-snapshot-000004.pkl"].kimg == 4
    assert found["00000-t"].path == folder / "00000-t"


def test_equal_names_are_told_apart(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        saved(tiny3(), tmp_path / name / "net.pkl")
    catalogue = Catalogue([tmp_path / "a" / "net.pkl", tmp_path / "b" / "net.pkl"], [])
    assert list(catalogue.entries()) == ["net.pkl", "net.pkl (2)"]
    assert catalogue.find("net.pkl (2)").path == tmp_path / "b" / "net.pkl"
    assert catalogue.find("").path == tmp_path / "a" / "net.pkl"


@pytest.mark.parametrize("name", ["b.pkl", "../a.pkl", "/etc/passwd", "a.pkl/", "./a.pkl", "https://a.example/a.pkl"])
def test_other_names(tmp_path: Path, name: str) -> None:
    catalogue = Catalogue([saved(tiny3(), tmp_path / "a.pkl")], [])
    with pytest.raises(MissingInputError, match="there is none of that name"):
        catalogue.find(name)


def test_looking_up_a_name_does_not_list_the_folders_each_time(tmp_path: Path, monkeypatch) -> None:
    saved(tiny3(), tmp_path / "a.pkl")
    catalogue = Catalogue([], [tmp_path])
    name = next(iter(catalogue.entries()))
    with monkeypatch.context() as patch:
        patch.setattr(Catalogue, "_all", lambda _: pytest.fail("it lists them again"))
        assert catalogue.find(name).path == catalogue.find("").path == tmp_path / "a.pkl"
    (tmp_path / "a.pkl").rename(tmp_path / "b.pkl")
    with pytest.raises(MissingInputError, match="there is none of that name"):
        catalogue.find(name)
    assert catalogue.find("").path == tmp_path / "b.pkl"


def opened(library: Library, name: str) -> Painter:
    """The network, which is read if it has to be."""
    try:
        return library.painter(name)
    except Unread:
        library.keep(library.read(name))
    return library.painter(name)


def test_a_run_stands_for_its_newest_and_files_are_read_again(tmp_path: Path) -> None:
    run = run_of(tmp_path / "00000-t", 0)
    library = Library(Catalogue([run], []), torch.device("cpu"), Shelf())
    first = opened(library, "00000-t")
    assert opened(library, "00000-t") is first
    assert opened(library, "00000-t/network-snapshot-000000.pkl").picture(State()).shape == (16, 16, 3)
    saved(tiny2(), run / "network-snapshot-000004.pkl")
    newest = opened(library, "00000-t")
    assert type(newest.G) is not type(first.G)
    (run / "network-snapshot-000009.pkl").symlink_to(run / "network-snapshot-000000.pkl")
    assert opened(library, "00000-t") is newest  # a link could lead anywhere
    again = run / "network-snapshot-000004.pkl"
    again.unlink()
    with pytest.raises(MissingInputError, match="there is none"):
        opened(library, "00000-t/network-snapshot-000004.pkl")
    for n in range(2 * MOST_OPEN):
        saved(tiny3(), run / f"network-snapshot-{n:06d}.pkl")
        opened(library, f"00000-t/network-snapshot-{n:06d}.pkl")
    assert len(library._open) == MOST_OPEN
