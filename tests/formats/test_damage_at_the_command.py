"""What `sg3 info` and `sg3 generate` say about network files that are damaged, incomplete or not there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import sg3.cli
from tests.helpers import tiny_networks as tiny
from tests.helpers.webserver import SUM, Server, Step, broken, status, whole

COMMANDS: dict[str, Callable[[str, Path], list[str]]] = {
    "info": lambda source, _: ["info", source],
    "generate": lambda source, folder: [
        "generate", f"--network={source}", "--seeds=0", f"--outdir={folder / 'out'}", "--device=cpu",
    ],
}  # fmt: skip

Change = Callable[[bytes], bytes]
FILES: dict[str, tuple[Change, int, str]] = {  # what was done to the file -> exit code, what the message says
    "cut short": (lambda c: c[: len(c) // 2], 65, r"is cut short|is damaged"),
    "empty": (lambda c: b"", 65, "looks like an empty file"),
    "a flipped bit in a name": (lambda c: c.replace(b"_reconstruct", b"_recons4ruct", 1), 65, "_recons4ruct_"),
    "a flipped bit in an instruction": (lambda c: c.replace(b"\x93", b"\x92", 1), 65, "NEWOBJ_EX"),
    "a flipped bit in a length": (lambda c: c[:3] + bytes([c[3] ^ 64]) + c[4:], 65, "is not|is cut|is damaged"),
    "a page": (lambda c: b"<!DOCTYPE html>", 65, "looks like a web page; the download failed"),
}
ANSWERS: dict[str, tuple[Callable[[bytes], Step], str, int, str]] = {  # server, address, exit code, message
    "half-downloaded": (lambda c: broken(len(c) // 2, content=c), "", 74, "the download failed: .*; try again later"),
    "ends early": (lambda c: broken(9, "silence", c), "", 74, "the connection ended after 9 of"),
    "wrong hash": (whole, f"#sha256={SUM}", 65, f"has sha256 [0-9a-f]*, expected {SUM}"),
    "no hash": (whole, "#sha256=7", 2, "'7' is not a sha256"),
    "not there": (lambda c: status(404), "", 66, r"the server has no such file \(HTTP 404\); check the address"),
    "a page": (lambda c: status(200, b"<html>"), "", 65, "is a web page, not a network file"),
    "cut short there": (lambda c: whole(c[: len(c) // 2]), "", 65, "is cut short|is damaged"),
}


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    sg3.save(sg3.Snapshot(G_ema=tiny.stylegan3_generator()), tmp_path / "net.pkl")
    return (tmp_path / "net.pkl").read_bytes()


@pytest.fixture
def fails(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., None]:
    def check(command: str, source: str, code: int, message: str) -> None:
        """The command ends with the code, one line that names the source, and nothing else done."""
        capfd.readouterr()
        assert sg3.cli._run(COMMANDS[command](source, tmp_path), debug=False) == code
        out, err = capfd.readouterr()
        assert out == ""
        (line,) = (line for line in err.splitlines() if line.startswith("error: "))
        assert err.endswith(f"{line}\n")
        assert "Traceback" not in err
        assert re.search(message, line), line
        assert Path(source.partition("#")[0]).name in line
        assert not (tmp_path / "out").exists()

    return check


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("damage", FILES)
def test_damaged_file(command: str, damage: str, content: bytes, fails: Callable[..., None], tmp_path: Path) -> None:
    change, code, message = FILES[damage]
    (tmp_path / "net.pkl").write_bytes(change(content))
    fails(command, str(tmp_path / "net.pkl"), code, message)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_damaged_download(
    command: str, answer: str, content: bytes, fails: Callable[..., None], server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    make, fragment, code, message = ANSWERS[answer]
    server.steps = [make(content)]
    monkeypatch.setattr("time.sleep", lambda _: None)
    fails(command, server.url + fragment, code, message)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_file(command: str, fails: Callable[..., None], tmp_path: Path) -> None:
    fails(command, str(tmp_path / "net.pkl"), 66, "no such file")


def test_a_good_download(content: bytes, server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    server.steps = [whole(content)]
    for _ in range(2):
        assert sg3.cli._run(COMMANDS["generate"](server.url, tmp_path), debug=False) == 0
    assert (tmp_path / "out" / "seed0000.png").is_file()
    assert len(server.requests) == 1
    assert str(tmp_path / "out" / "seed0000.png") in capfd.readouterr().out
