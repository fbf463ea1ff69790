"""LMDB databases: what is in them comes out; whatever is damaged in one is a line and exit code 65, never a signal."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest

import sg3.cli
from sg3.data import lmdb_source
from sg3.data.lmdb_source import LmdbImages
from sg3.errors import DataError
from tests.helpers.image_files import encoded, pixels

lmdb = pytest.importorskip("lmdb", reason="the lmdb package is not installed")

PAGE = 4096


def database(folder: Path, values: dict[bytes, bytes]) -> Path:
    with lmdb.open(str(folder), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key, value)
    return folder


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database of images on pages of their own, and of a hundred small ones in a tree of pages."""
    images = {f"{i:03d}".encode() * 5: encoded(pixels(i), "PNG") for i in range(100)}
    images |= {b"large%d" % i: encoded(pixels(i, 64), "BMP") for i in range(5)}
    folder = database(tmp_path_factory.mktemp("lmdb") / "a_lmdb", images)
    return (folder / "data.mdb").read_bytes()


def test_keys_and_values(tmp_path: Path) -> None:
    values = {b"!": b"a", b"-": b"b", b"+x": b"", "é".encode(): b"c" * 100_000, b"\xff\x00": b"d", b"k" * 511: b"e"}
    images = LmdbImages(database(tmp_path / "a_lmdb", values))
    assert list(images.keys.values()) == sorted(values)
    assert {images.keys[key]: images.read(key) for key in images.keys} == values
    process = images._process
    assert process is not None
    images.close()
    assert process.poll() is not None
    assert images.read("!") == b"a"  # again, in another process
    images.close()


@pytest.mark.timeout(60)
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "a_lmdb").mkdir()
    os.mkfifo(tmp_path / "a_lmdb" / "data.mdb")
    with pytest.raises(DataError, match=r"data\.mdb: is no file, but a device or a pipe; copy it again"):
        LmdbImages(tmp_path / "a_lmdb")


def test_values_that_are_too_large_or_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sg3.limits.IMAGE_BYTES", 10)
    images = LmdbImages(database(tmp_path / "a_lmdb", {b"small": b"x", b"large": b"x" * 11}))
    with pytest.raises(DataError, match=r"a_lmdb: large: missing, or too large for an image"):
        images.read("large")
    assert images.read("small") == b"x"
    images.keys["gone"] = b"gone"
    with pytest.raises(DataError, match=r"a_lmdb: gone: missing"):
        images.read("gone")
    images.close()


@pytest.mark.parametrize("end", [
    "os.kill(os.getpid(), 7)", "os.abort()", "sys.exit(0)", "os.write(1, b'abcdefgh')", "1 / 0",
])
def test_a_process_that_ends(end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it ends, the message names the value, and the next one comes from another process."""
    whole = lmdb_source._CHILD.read_text()
    child = tmp_path / "child.py"
    child.write_text(whole.replace("limit_time(value_seconds)", f"key == b'bad' and {end}"))
    monkeypatch.setattr(lmdb_source, "_CHILD", child)
    images = LmdbImages(database(tmp_path / "a_lmdb", {b"bad": b"x", b"good": b"y"}))
    for _ in range(2):
        with pytest.raises(DataError, match=r"a_lmdb: bad: not a readable LMDB .*; copy it again"):
            images.read("bad")
        assert images.read("good") == b"y"
    monkeypatch.setattr(images, "_restarts_left", 0)
    with pytest.raises(DataError, match="bad: not a readable LMDB"):
        images.read("bad")
    with pytest.raises(DataError, match="good: not read, the database is damaged in many places"):
        images.read("good")


def test_a_value_that_takes_forever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = tmp_path / "child.py"
    whole = lmdb_source._CHILD.read_text()
    child.write_text(whole.replace("value = transaction", "\n                        while True: pass\n#"))
    monkeypatch.setattr(lmdb_source, "_CHILD", child)
    monkeypatch.setattr("sg3.limits.LMDB_VALUE_SECONDS", 0)
    images = LmdbImages(database(tmp_path / "a_lmdb", {b"a": b"x"}))
    with pytest.raises(DataError, match="a: not a readable LMDB"):
        images.read("a")


def damaged(content: bytes, number: int) -> bytes:
    """Number 0, 1, 2, ... of endlessly many: flipped bits, extreme numbers, exchanged and missing pages."""
    rng = np.random.default_rng(number)
    result = bytearray(content)
    pages = len(content) // PAGE

    def place() -> int:
        """Mostly in the head of a page, where its numbers are."""
        return int(rng.integers(pages)) * PAGE + int(rng.integers(PAGE if rng.integers(3) == 0 else 150))

    match number % 6:
        case 0:
            for _ in range(int(rng.integers(1, 30))):
                result[place()] ^= 1 << int(rng.integers(8))
        case 1:
            for _ in range(int(rng.integers(1, 6))):
                at = place() // 2 * 2
                form, values = (("<H", (0, 1, 2**15, 2**16 - 1)), ("<I", (0, 2**20, 2**31, 2**32 - 1)),
                                ("<Q", (0, 3, 2**40, 2**64 - 1)))[int(rng.integers(3))]  # fmt: skip
                struct.pack_into(form, result, min(at, len(result) - 8), values[int(rng.integers(4))])
        case 2:
            a, b = (int(page) * PAGE for page in rng.integers(pages, size=2))
            result[a : a + PAGE], result[b : b + PAGE] = result[b : b + PAGE], result[a : a + PAGE]
        case 3:
            del result[int(rng.integers(len(result))) :]
        case 4:  # the two pages that describe the database
            for _ in range(3):
                at = int(rng.integers(2)) * PAGE + int(rng.integers(16, 150))
                result[at] = int(rng.integers(256))
        case 5:
            at = int(rng.integers(2, pages)) * PAGE
            result[at : at + PAGE] = rng.bytes(PAGE)
    return bytes(result)


def try_damage(content: bytes, numbers: range, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = folder / "a_lmdb"
    source.mkdir()
    codes = []
    for number in numbers:
        (source / "data.mdb").write_bytes(damaged(content, number))
        command = ["dataset", f"--source={source}", f"--dest={folder / 'a.zip'}", "--force", "--resolution=16x16",
                   "--convert=rgb"]  # fmt: skip
        capfd.readouterr()
        codes.append(sg3.cli._run(command, debug=False))
        err = capfd.readouterr().err
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert codes[-1] in (0, 65), (number, err)
        assert len(lines) == (codes[-1] == 65), (number, err)
        assert all("a_lmdb" in line for line in lines)
        assert "bug in sg3" not in err
    assert 65 in codes


def test_damaged_databases(content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    try_damage(content, range(12), tmp_path, capfd)


@pytest.mark.slow
def test_many_damaged_databases(content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    try_damage(content, range(200), tmp_path, capfd)
