"""Files that are complete or not there, whatever hides the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sg3.atomic import write_atomic, write_json
from sg3.errors import StorageError


class Full:
    """A file on a full disk."""

    def write(self, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        pass


def test_torch_does_not_hide_a_full_disk(tmp_path: Path) -> None:
    """torch.save answers an OSError with a RuntimeError of its own."""
    path = tmp_path / "a.pt"
    path.write_bytes(b"before")
    with pytest.raises(StorageError, match=r"a\.pt: cannot be written: No space left on device"):
        write_atomic(path, lambda _file: torch.save({"w": torch.ones(1000)}, Full()))
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.pt", b"before")]
    with pytest.raises(RuntimeError, match=r"^mine$"):
        write_atomic(path, lambda _file: (_ for _ in ()).throw(RuntimeError("mine")))


def test_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1, None]})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"b": [1, None]}
    assert text.endswith("}\n")
