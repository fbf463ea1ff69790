"""`sg3.load` and `sg3.save` before any format is involved: finding, recognising and replacing files."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import sg3
from sg3.atomic import write_atomic
from sg3.errors import DataError, MissingInputError, StorageError, UsageError
from sg3.formats import averaged_generator, download, official_write
from tests.helpers import other_names
from tests.helpers import tiny_networks as tiny


def test_run_folder_is_its_newest_snapshot(tmp_path: Path) -> None:
    for number, resolution in (("000200", 16), ("1000", 8)):
        make = tiny.stylegan3_generator if resolution == 16 else tiny.stylegan2_generator
        sg3.save(sg3.Snapshot(G_ema=make()), tmp_path / f"network-snapshot-{number}.pkl")
    os.utime(tmp_path / "network-snapshot-1000.pkl", (0, 0))
    (tmp_path / "network-snapshot-latest.pkl").write_bytes(b"")
    assert sg3.load(str(tmp_path)).G_ema.img_resolution == 8


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="there is no such file"):
        sg3.load(tmp_path / "a.pkl")
    with pytest.raises(MissingInputError, match=r"holds no network-snapshot-\*.pkl"):
        sg3.load(tmp_path)
    with pytest.raises(MissingInputError, match="did you mean the published network stylegan3-t-ffhq-1024x1024"):
        sg3.load("stylegan3-t-ffhq-1024")
    with pytest.raises(MissingInputError, match="there is no such folder"):
        sg3.save(sg3.Snapshot(D=tiny.discriminator()), tmp_path / "folder" / "a.pkl")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "net.pkl")
    with pytest.raises(DataError, match=r"net\.pkl: is no file, but a device or a pipe"):
        sg3.load(tmp_path / "net.pkl")


def test_addresses_and_short_names_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sg3.save(sg3.Snapshot(G_ema=tiny.stylegan2_generator()), tmp_path / "a.pkl")
    fetched: list[str] = []

    def fetch(source: str) -> Path:
        fetched.append(source)
        return tmp_path / "a.pkl"

    monkeypatch.setattr(download, "fetch", fetch)
    for source in ("https://example.com/b.pkl", "file:///b.pkl", "stylegan3-r-afhqv2-512x512"):
        assert sg3.load(source).G_ema.img_resolution == 8
    address = "https://api.ngc.nvidia.com/v2/models/nvidia/research/stylegan3/versions/1/files/"
    assert fetched[:2] == ["https://example.com/b.pkl", "file:///b.pkl"]
    assert fetched[2] == f"{address}stylegan3-r-afhqv2-512x512.pkl"
    monkeypatch.chdir(tmp_path)  # a file of that name comes first
    (tmp_path / "a.pkl").rename(tmp_path / "stylegan3-r-afhqv2-512x512")
    assert sg3.load("stylegan3-r-afhqv2-512x512").G_ema.img_resolution == 8
    assert len(fetched) == 3


def test_local_addresses(tmp_path: Path) -> None:
    sg3.save(sg3.Snapshot(G_ema=tiny.stylegan2_generator()), tmp_path / "a.pkl")
    assert sg3.load((tmp_path / "a.pkl").as_uri()).G_ema.img_resolution == 8


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (b"(dp0\n.", "no kind of network file"),
        (b"\x80", "no kind of network file"),
    ],
)
def test_unknown_formats_are_described(content: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(DataError, match=kind) as caught:
        sg3.load(tmp_path / "a.pkl")
    assert "sg3 reads official StyleGAN3" in str(caught.value)


@pytest.mark.parametrize(
    ("suffix", "origin"),
    [
        (".pkl", "official snapshot (.pkl)"),
        (".safetensors", "sg3 safetensors"),
        (".pt", "rosinality StyleGAN2 checkpoint (.pt)"),
    ],
)
def test_content_counts_not_the_name(suffix: str, origin: str, tmp_path: Path) -> None:
    sg3.save(sg3.Snapshot(G=other_names.generator()), tmp_path / f"a{suffix}")
    (tmp_path / f"a{suffix}").rename(tmp_path / "a.bin")
    loaded = sg3.load(tmp_path / "a.bin")
    assert loaded.G is not None
    assert loaded.origin == origin


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"sg3 writes .pkl, .safetensors, .pt files, not .pth"):
        sg3.save(sg3.Snapshot(D=tiny.discriminator()), tmp_path / "a.pth")
    with pytest.raises(UsageError, match="not files without a suffix"):
        sg3.save(sg3.Snapshot(D=tiny.discriminator()), tmp_path / "a")
    with pytest.raises(UsageError, match="nothing to save"):
        sg3.save(sg3.Snapshot(), tmp_path / "a.pkl")


# ---- faults while writing


def failing(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("fault", ["tensor", "os.fsync", "os.replace", "interrupt"])
def test_a_failed_save_leaves_the_old_file(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(b"old")
    written: list[int] = []
    error: type[BaseException] = StorageError
    if fault.startswith("os."):
        monkeypatch.setattr(fault, failing)
    else:
        write = official_write.write_storage

        def fail_later(tensor: Any) -> bytes:
            written.append(len(list(tmp_path.iterdir())))
            if len(written) < 5:
                return write(tensor)
            raise KeyboardInterrupt if fault == "interrupt" else OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(official_write, "write_storage", fail_later)
        error = KeyboardInterrupt if fault == "interrupt" else StorageError
    with pytest.raises(error) as caught:
        sg3.save(sg3.Snapshot(D=tiny.discriminator()), path)
    if error is StorageError:
        assert str(caught.value) == f"{path}: cannot be written: No space left on device"
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    assert not written or written[-1] == 2  # the temporary file was beside the old one


def test_a_save_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(b"old")
    sg3.save(sg3.Snapshot(D=tiny.discriminator()), path)
    assert sg3.load(path).D is not None
    assert list(tmp_path.iterdir()) == [path]


def test_folder_and_file_are_flushed_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr("os.fsync", lambda handle: (events.append("fsync"), fsync(handle)))
    monkeypatch.setattr("os.replace", lambda old, new: (events.append("replace"), replace(old, new)))
    write_atomic(tmp_path / "a", lambda file: None)
    assert events == ["fsync", "replace", "fsync"]


def test_unwritable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathlib.Path.open", failing)
    with pytest.raises(StorageError, match=r"a.pkl: cannot be written: No space"):
        sg3.save(sg3.Snapshot(D=tiny.discriminator()), tmp_path / "a.pkl")


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04N.")
    monkeypatch.setattr("pathlib.Path.open", failing)
    with pytest.raises(StorageError, match=r"a.pkl: cannot be read: No space"):
        sg3.load(tmp_path / "a.pkl")


def test_a_generator_alone_makes_images(tmp_path: Path, capfd) -> None:
    """What was saved as {'G': ..., 'D': ...} has no average."""
    G = tiny.stylegan2_generator()
    path = tmp_path / "g.safetensors"
    sg3.save(sg3.Snapshot(G=G), path)
    found = averaged_generator(sg3.load(path), path)
    assert capfd.readouterr().err == \
        f"note: {path}: holds no averaged generator (G_ema); G is used, whose images are worse\n"
    assert all(torch.equal(a, b) for a, b in zip(found.state_dict().values(), G.state_dict().values(), strict=True))
    with pytest.raises(DataError, match="holds no averaged generator"):
        averaged_generator(sg3.Snapshot(), path)
