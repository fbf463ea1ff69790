"""Every option and argument that names a file or folder, of every command, given what is none: one line before any
work begins. The tables are compared with the commands, so that a new option cannot be forgotten."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import rich_click as click

import sg3
from sg3.cli import COMMANDS, cli, options
from sg3.errors import DataError, StorageError, UsageError
from sg3.named_paths import Kind, is_address, nothing_at, to_read, to_write
from tests.helpers import tiny_networks

# What each names: i, what is read; o, what is written; n, a network, run or dataset, which has other names, too.
PLACES = {
    "train": {"--outdir": "o folder", "--config": "i file", "--continue": "n", "--data": "n", "--resume": "n",
              "--detector-dir": "n"},
    "generate": {"--network": "n", "--outdir": "o folder", "--latents": "i file"},
    "video": {"--network": "n", "--output": "o either", "--latents": "i file"},
    "equivariance-video": {"--network": "n", "--outdir": "o folder", "--output": "o either"},
    "style-mix": {"--network": "n", "--outdir": "o folder"},
    "project": {"--network": "n", "--outdir": "o folder", "--target": "i either", "--detector-dir": "i folder"},
    "directions": {"--network": "n", "--outdir": "o folder"},
    "spectra stats": {"--source": "n"},
    "spectra calc": {"--source": "n", "--dest": "o file"},
    "spectra heatmap": {"npz": "i file", "--save": "o file"},
    "spectra slices": {"npz": "i file", "--save": "o file"},
    "metrics": {"--network": "n", "--data": "i either", "--test-data": "i either", "--sheet": "o file",
                "--detector-dir": "i folder", "--against": "n", "--plot": "o file"},
    "dataset": {"--source": "n", "--dest": "o either"},
    "convert": {"source": "n", "dest": "o file"},
    "export": {"--network": "n", "--output": "o file"},
    "view": {"--network": "n", "--network-b": "n", "--folder": "i folder"},
    "ema": {"run": "i folder", "--output": "o file"},
    "push": {"network": "n"},
    "pull": {"source": "n", "--output": "o file"},
    "info": {"path": "n"},
    "tune": {"--network": "n", "--output": "o file"},
    "doctor": {"--outdir": "o folder"},
}  # fmt: skip
# What has the word for a place in its help, and is none: a reason for each.
NO_PLACES = {
    "metrics --detector": "NAME=FILE is split first; test_detector_files",
    "push repo": "OWNER/NAME; tests/tools/test_hub.py",
}
LOOKS_AFTER_ITSELF = {"doctor --outdir"}  # tells, as a result, that nothing can be written there
CASES = [(command, name, kind) for command, names in PLACES.items() for name, kind in names.items()]


def all_commands() -> Iterator[tuple[str, click.Command]]:
    with click.Context(cli) as ctx:
        for name in COMMANDS:
            command = cli.resolve_command(ctx, [name])[1]
            assert command is not None
            if isinstance(command, click.Group):
                yield from ((f"{name} {part}", command.commands[part]) for part in command.commands)
            else:
                yield name, command


def test_the_tables_have_every_option_that_names_a_place() -> None:
    words = ("PATH", "FILE", "DIR", "ZIP", "NPZ", "RUN", "PKL", "NETWORK", "SOURCE", "DEST", "FOLDER", "OWNER/NAME")
    missing, unchecked = [], []
    for name, command in all_commands():
        for param in command.params:
            spelled = param.opts[0]
            names = isinstance(param.type, click.Path) or any(
                part in words for part in (param.metavar or "").replace("=", "|").split("|"))  # fmt: skip
            if names and spelled not in PLACES.get(name, {}) and f"{name} {spelled}" not in NO_PLACES:
                missing.append(f"{name} {spelled}")
            if isinstance(param.type, click.Path) and not isinstance(param.type, options.NamedPath):
                unchecked.append(f"{name} {spelled}")
    assert missing == []
    assert unchecked == []
    found = {f"{name} {param.opts[0]}" for name, command in all_commands() for param in command.params}
    assert {f"{command} {name}" for command, name, _ in CASES} - found == set()


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Names of what a file or folder is not, in an empty folder that nothing must be written to."""
    inside = tmp_path / "here"
    inside.mkdir()
    monkeypatch.chdir(inside)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    yield {kind: str(tmp_path / kind) for kind in ("folder", "file", "pipe")}
    assert list(inside.iterdir()) == []


@pytest.mark.parametrize("name", [name for name, command in all_commands() if any(p.required for p in command.params)])
def test_a_command_by_itself(name: str, run) -> None:
    """Nothing that works on words may take for granted that there are some."""
    outcome = run(*name.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: Missing ")
    assert outcome.err.count("\n") == 1


def refused(run, command: str, name: str, value: str) -> tuple[int, str]:
    """Exit code and error of `sg3 COMMAND`, where all that it needs besides may be missing."""
    parts = command.split()
    words = [f"{name}={value}"] if name.startswith("-") else ["x.pkl", value] if name == "dest" else [value, "x.pkl"]
    result = run(*parts, *words)
    return result.code, result.error_line()


@pytest.mark.parametrize(("command", "name", "kind"), CASES)
def test_a_name_of_nothing(command: str, name: str, kind: str, run, places) -> None:
    code, line = refused(run, command, name, "")
    assert code == 2
    assert "names nothing" in line
    spelled = name if name.startswith("-") else r"''|PATH|SOURCE|NETWORK"
    assert re.match(rf"error: ((Invalid value for ')?{spelled})", line)


@pytest.mark.parametrize(("command", "name", "kind"), [case for case in CASES if case[2] != "n"])
def test_an_address(command: str, name: str, kind: str, run, places) -> None:
    code, line = refused(run, command, name, "hf://me/cats")
    assert (code, "is an address; expected a" in line) == (2, True), line
    assert "on this machine" in line


@pytest.mark.parametrize(("command", "name", "kind"), [case for case in CASES if case[2] != "n"])
def test_something_of_another_kind(command: str, name: str, kind: str, run, places) -> None:
    if f"{command} {name}" in LOOKS_AFTER_ITSELF:
        return
    way, wanted = kind.split()
    for found in {"file": ["folder", "pipe"], "folder": ["file", "pipe"], "either": ["pipe"]}[wanted]:
        code, line = refused(run, command, name, places[found])
        expected = "a file or folder" if wanted == "either" else f"a {wanted}"
        what = "a device or a pipe" if found == "pipe" else f"a {found}"
        assert f"{places[found]}: is {what}; expected {expected}" in line
        assert code == (65 if way == "i" else 2)


@pytest.mark.skipif(not hasattr(os, "seteuid") or os.getuid() != 0, reason="only root may become somebody else")
def test_what_may_not_be_read_or_written(tmp_path: Path) -> None:
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    (tmp_path / "closed").mkdir(mode=0o700)
    for name in ("secret", "closed/x"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o600)
    os.seteuid(65534)
    try:
        for name, kind in (("secret", Kind.FILE), ("closed", Kind.FOLDER), ("closed/x", Kind.EITHER)):
            with pytest.raises(StorageError, match=rf"^--it=.*{name}: cannot be read: Permission denied$"):
                to_read(tmp_path / name, kind, "--it")
        for name in ("new.png", "closed/new.png", "new/deeper/new.png"):
            with pytest.raises(StorageError, match=rf"^--it=.*{name}: cannot be written: .*Permission denied$"):
                to_write(tmp_path / name, Kind.FILE, "--it")
    finally:
        os.seteuid(0)


def test_a_file_system_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No permission helps there, so none is asked for."""
    monkeypatch.setattr(os, "access", lambda *_args, **_options: False)
    with pytest.raises(StorageError, match=r"^--outdir=.*x: cannot be written: .*: Permission denied$"):
        to_write(tmp_path / "x", Kind.FOLDER, "--outdir")
    monkeypatch.setattr(os, "statvfs", lambda _folder: SimpleNamespace(f_flag=os.ST_RDONLY))
    with pytest.raises(StorageError, match=r"^--outdir=.*x: cannot be written: .*: Read-only file system$"):
        to_write(tmp_path / "x", Kind.FOLDER, "--outdir")


def test_what_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "hf:").mkdir()
    (tmp_path / "file").write_text("x")
    assert not is_address(tmp_path / "hf:")
    assert not is_address("C:/photos")
    assert not is_address("openmoji:faces")
    assert to_read(tmp_path / "none", Kind.FILE) == tmp_path / "none"  # the caller says what was meant
    assert to_read(str(tmp_path / "file"), Kind.EITHER) == tmp_path / "file"
    assert to_read(tmp_path, Kind.FOLDER) == tmp_path
    assert to_write(tmp_path / "file", Kind.FILE) == tmp_path / "file"
    assert to_write(tmp_path / "a" / "b" / "c", Kind.FOLDER) == tmp_path / "a" / "b" / "c"
    with pytest.raises(StorageError, match=r"file/x\.png: nothing was written: .*file is no folder"):
        to_write(tmp_path / "file" / "x.png", Kind.FILE)
    assert str(nothing_at("a/b", Kind.FOLDER, "--it")) == "--it=a/b: there is no such folder"
    assert str(nothing_at(Path("hf://a/b"))) == "hf://a/b: is an address; expected a file or folder on this machine"


@pytest.mark.parametrize("value", ["", "hf://me/cats.safetensors"])
def test_functions_too(value: str, places: dict[str, str]) -> None:
    G = tiny_networks.generator3()
    why = "names nothing" if not value else "is an address"
    for call in (
        lambda: sg3.fit(places["folder"], outdir=value),
        lambda: sg3.fit(value, outdir=places["folder"], device="cpu"),
        lambda: sg3.fit(places["folder"], outdir=places["folder"], config=value),
        lambda: sg3.open_run(value),
        lambda: sg3.export(G, value),
        lambda: sg3.save(sg3.Snapshot(G_ema=G), value),
        lambda: sg3.generate(G, latents=value),
        lambda: sg3.evaluate(G, "fwd5k_full", data=value),
        lambda: sg3.evaluate(G, "fwd5k_full", detector_dir=value),
        lambda: sg3.evaluate(G, "fwd5k_full", test_data=value),
        lambda: sg3.evaluate(G, "auth_lite1", sheet=value),
    ):
        with pytest.raises(UsageError, match=why):
            call()


def test_functions_want_files_where_files_are(places: dict[str, str]) -> None:
    G = tiny_networks.generator3()
    with pytest.raises(DataError, match=r"config=.*folder: is a folder; expected a file"):
        sg3.fit(outdir=places["folder"], config=places["folder"])
    with pytest.raises(DataError, match=r"latents=.*folder: is a folder; expected a file"):
        sg3.generate(G, latents=places["folder"])
    with pytest.raises(DataError, match=r"path=.*file: is a file; expected a folder"):
        sg3.open_run(places["file"])
    with pytest.raises(UsageError, match="folder: is a folder; expected a file"):
        sg3.save(sg3.Snapshot(G_ema=G), places["folder"])
