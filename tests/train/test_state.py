"""State files: complete or not there, damage noticed, two good ones kept."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import torch

import sg3.atomic
import sg3.train.state
from sg3.errors import DataError, MissingInputError, StorageError
from sg3.formats.digest import sha256_of
from sg3.run_folder import state_path
from sg3.train.state import is_intact, load_state, save_state


def state(nimg: int) -> dict:
    return {"nimg": nimg, "weights": torch.full([64], float(nimg))}


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_round_trip_and_two_kept(tmp_path: Path) -> None:
    for nimg in (10, 20, 30):
        save_state(tmp_path, state(nimg))
    assert names(tmp_path) == [
        f"training-state-{n:010d}.pt{suffix}" for n in (20, 30) for suffix in ("", ".sha256")
    ]
    loaded = load_state(tmp_path, pytest.fail)
    assert loaded["nimg"] == 30
    assert torch.equal(loaded["weights"], state(30)["weights"])


def test_every_truncation_and_bit_flip_is_noticed(tmp_path: Path) -> None:
    save_state(tmp_path, state(10))
    newest = save_state(tmp_path, state(20))
    good = newest.read_bytes()
    rng = random.Random(0)
    for case in range(100):
        damaged = bytearray(good)
        if case % 2:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        else:
            del damaged[rng.randrange(len(damaged)) :]
        newest.write_bytes(damaged)
        warnings: list[str] = []
        assert load_state(tmp_path, warnings.append)["nimg"] == 10
        assert warnings == [f"{newest}: damaged or incomplete (its SHA-256 does not match); trying the one before"]


def test_damaged_states_do_not_count_as_kept(tmp_path: Path) -> None:
    first, second = save_state(tmp_path, state(10)), save_state(tmp_path, state(20))
    second.write_bytes(b"x")
    save_state(tmp_path, state(30))
    assert is_intact(first), "the second good state must stay while another is damaged"
    save_state(tmp_path, state(40))
    assert not first.exists()
    assert [p.name for p in tmp_path.glob("*.pt")]


def test_states_beyond_the_one_continued_from_do_not_push_it_out(tmp_path: Path) -> None:
    """After falling back past a damaged newer state, the states written next are older than it by number."""
    save_state(tmp_path, state(10))
    ahead = save_state(tmp_path, state(100))
    ahead.write_bytes(b"x")
    save_state(tmp_path, state(20))
    save_state(tmp_path, state(30))
    assert state_path(tmp_path, 30).exists()
    assert state_path(tmp_path, 20).exists()


def test_nothing_to_continue_from(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="has no training-state"):
        load_state(tmp_path, pytest.fail)
    save_state(tmp_path, state(10)).write_bytes(b"")
    with pytest.raises(DataError, match="none of its 1 training states is intact"):
        load_state(tmp_path, lambda _: None)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_the_previous_state(tmp_path: Path, monkeypatch, failing: str) -> None:
    save_state(tmp_path, state(10))
    before = names(tmp_path)

    def fail(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sg3.atomic.os, failing, fail)
    with pytest.raises(StorageError, match=r"training-state-0000000020\.pt(\.new)?: cannot be written: No space left"):
        save_state(tmp_path, state(20))
    monkeypatch.undo()
    assert names(tmp_path) == before
    assert load_state(tmp_path, pytest.fail)["nimg"] == 10


def test_a_byte_that_changes_on_the_way_to_the_disk_is_noticed(tmp_path: Path, monkeypatch) -> None:
    real = torch.save

    def save_badly(content, file) -> None:
        real(content, file)
        file._file.seek(100)
        file._file.write(b"\xff\x00\xff")  # beside the checksum

    monkeypatch.setattr(torch, "save", save_badly)
    with pytest.raises(StorageError, match="reads back differently"):
        save_state(tmp_path, state(20))
    assert not list(tmp_path.glob("training-state-*.pt"))


def test_a_crash_between_state_and_checksum_loses_nothing(tmp_path: Path, monkeypatch) -> None:
    save_state(tmp_path, state(10))
    save_state(tmp_path, state(10))  # asked for twice: written once

    def crash(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(sg3.train.state.os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        save_state(tmp_path, state(20))
    monkeypatch.undo()
    assert load_state(tmp_path, pytest.fail)["nimg"] == 10
    save_state(tmp_path, state(20))
    assert load_state(tmp_path, pytest.fail)["nimg"] == 20


def test_state_is_loaded_without_executing_anything(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'executed'}",))

    path = state_path(tmp_path, 5)
    torch.save({"format": 1, "nimg": 5, "evil": Evil()}, path)
    path.with_name(path.name + ".sha256").write_text(f"{sha256_of(path)}  {path.name}\n")
    with pytest.raises(DataError, match="is no training state"):
        load_state(tmp_path, pytest.fail)
    assert not (tmp_path / "executed").exists()
