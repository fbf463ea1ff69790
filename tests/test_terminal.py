"""Nothing that a file says gets to the terminal as it is: one module writes there, and what it writes is visible."""

from __future__ import annotations

import ast
import io
import json
import logging
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import sg3
import sg3.cli
from sg3 import terminal
from tests.helpers import costly_networks as networks
from tests.helpers import hostile_parts as h
from tests.helpers import tiny_networks
from tests.helpers.image_files import encoded, pixels

SG3 = Path(sg3.__file__).parent
# Escape sequences, their 8-bit form, controls, a line of its own, text that runs backwards, half a character.
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\x08\x7f\r\nerror: forged\u2028\u202e\u200b\udcff"


# ---- no other way

ELSEWHERE = {
    "sg3/compat/modules": "functions of the original for the scripts of others, which print what those ask for",
    "sg3/kernels/triton_aot.py": "a program of its own, for developers; it reads no files",
    "sg3/terminal.py": "the one way",
}
PRINTS = {"print", "pprint", "breakpoint"}
ATTRIBUTES = {"echo", "secho", "style", "print_exc", "print_exception", "print_stack", "displayhook", "excepthook"}


def ways_to_print(tree: ast.AST) -> list[str]:
    """Calls that write to the terminal, or make what does."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            last = name.rpartition(".")[2]
            if name in PRINTS or last in ATTRIBUTES or last == "Console":
                found.append(ast.unparse(node))
            if last in ("write", "writelines") and ("stdout" in name or "stderr" in name):
                found.append(ast.unparse(node))
        if isinstance(node, ast.ImportFrom) and node.module == "rich.console":
            found += [f"{alias.name} of rich" for alias in node.names if alias.name == "Console"]
        if isinstance(node, ast.ImportFrom | ast.Import):
            found += [alias.name for alias in node.names if alias.name in ("rich.print", "readline", "curses")]
    return found


def test_nothing_else_prints() -> None:
    found = {}
    for path in SG3.rglob("*.py"):
        name = path.relative_to(SG3.parent).as_posix()
        if not any(name.startswith(place) for place in ELSEWHERE):
            found[name] = ways_to_print(ast.parse(path.read_text()))
    assert {name: ways for name, ways in found.items() if ways} == {
        "sg3/cli/__init__.py": ["click.echo(error.format_message())"],  # the help, which is ours, in colours
    }
    assert ways_to_print(ast.parse("sys.stdout.write('a'); print(1); rich.console.Console(); click.secho('')"))


# ---- what it writes


def test_clean() -> None:
    assert terminal.clean("a b\tc é 漢 🙂") == "a b\tc é 漢 🙂"
    cleaned = terminal.clean(EVIL)
    assert cleaned.isprintable()
    assert len(cleaned) == len(EVIL)
    assert terminal.clean(Path("a\x1b")) == "a?"


def visible(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252"])
def test_streams_of_every_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, write in (("stdout", terminal.show), ("stderr", terminal.say)):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, name, io.TextIOWrapper(raw, encoding, newline="\n"))
        write("é 漢", EVIL)
        first, second, rest = raw.getvalue().decode(encoding).split("\n")
        assert first in ("é 漢", "é ?", "? ?")
        assert second.isprintable()
        assert rest == ""
        monkeypatch.setattr(sys, name, None)  # it was closed
        if name == "stderr":
            write("a")
        else:
            with pytest.raises(OSError, match="is closed"):
                write("a")


def test_tables_and_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.progress import Progress, TextColumn
    from rich.table import Table

    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    console = terminal.console(width=100)
    table = Table("option", "value")
    table.add_row(EVIL, "[bold]not bold[/] :smile: [link=https://a]b[/link]")
    console.print(table)
    console.print(EVIL)
    with Progress(TextColumn("{task.description}"), console=console) as bar:
        bar.add_task(EVIL, total=1)
    assert "[bold]not bold[/] :smile: [link=https://a]b[/link]" in stream.getvalue()
    assert visible(stream.getvalue())


def test_colours_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, Rich's own sequences are there, and only those."""
    from rich.text import Text

    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Tty()
    monkeypatch.setattr(sys, "stdout", stream)
    terminal.console(width=100).print(Text("a\x1b]0;x\x07b", style="bold"))
    assert stream.getvalue() == "\x1b[1ma?]0;xb\x1b[0m\n"  # Rich leaves the bell out by itself


def test_warnings_and_logs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    terminal.take_over()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        terminal.take_over()
        warnings.warn(EVIL, stacklevel=1)
    logger = logging.getLogger("sg3.test")
    logger.propagate = False
    logger.warning(EVIL)
    err = capsys.readouterr().err
    assert err.count("\n") == 2
    assert visible(err)


# ---- what commands say of evil files


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in files.items():
            file.writestr(name.encode("utf8", "surrogateescape").decode("utf8", "replace"), content)
    return path


def safetensors(config: object, tensors: str = "") -> bytes:
    text = config if isinstance(config, str) else json.dumps(config)
    return h.safetensors(json.dumps({"__metadata__": {"sg3": text}}).encode() if not tensors else json.dumps({
        "__metadata__": {"sg3": text}, tensors: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode())


TEXT = EVIL[:-1]  # without the half character, which JSON and UTF-8 have no place for


def network(content: bytes) -> Callable[[Path], list[str]]:
    def prepare(folder: Path) -> list[str]:
        (folder / "net").write_bytes(content)
        return ["info", str(folder / "net")]

    return prepare


def saved(folder: Path, *more: str) -> list[str]:
    settings = {"path": TEXT, TEXT: 1}
    snapshot = sg3.Snapshot(G_ema=tiny_networks.generator3(), training_set_kwargs=settings, licence=TEXT)
    sg3.save(snapshot, folder / "a.safetensors")
    return ["info", str(folder / "a.safetensors"), *more]


def manifest(folder: Path, content: object, *words: str) -> list[str]:
    path = archive(folder / "a.zip", {"a.png": encoded(pixels(0)), "dataset.json": json.dumps(content).encode()})
    return [*words, str(path)] if words else ["dataset", f"--source={path}", f"--dest={folder / 'b.zip'}"]


def folder_of(folder: Path, files: dict[str, bytes], *more: str) -> list[str]:
    (folder / "images").mkdir()
    for name, content in files.items():
        (folder / "images" / name).write_bytes(content)
    return ["dataset", f"--source={folder / 'images'}", f"--dest={folder / 'b.zip'}", *more]


def run(folder: Path, name: str, content: str) -> list[str]:
    (folder / "training_options.json").write_text('{"config": {}}')
    (folder / name).write_text(content)
    return ["info", str(folder)]


def option_file(folder: Path, content: str, name: str = "a.json") -> list[str]:
    (folder / name).write_text(content)
    return ["train", f"--config={folder / name}", f"--outdir={folder}", "--dry-run"]


def latents(folder: Path, arrays: dict[str, np.ndarray]) -> list[str]:
    sg3.save(sg3.Snapshot(G_ema=tiny_networks.generator3()), folder / "net.pkl")
    np.savez(folder / "a.npz", **arrays)
    return ["video", f"--network={folder / 'net.pkl'}", f"--latents={folder / 'a.npz'}", f"--output={folder / 'b'}"]


NAME = EVIL.replace("/", "").replace("\n", "")
CASES: dict[str, Callable[[Path], list[str]]] = {
    "a licence and settings": saved,
    "a licence and settings as JSON": lambda folder: saved(folder, "--json"),
    "converting such a file": lambda folder: ["convert", saved(folder)[1], str(folder / "b.pkl")],
    "a name in a pickle": network(h.pickled(h.stack_named("os" + TEXT, "system" + TEXT))),
    "a line in a pickle": network(h.pickled(b"cos\x1b]0;x\x07\nsystem\x9b\n")),
    "a class": network(h.tree({"G_ema": h.record(TEXT, {})})),
    "a class alone": network(h.tree(h.record(TEXT, {}))),
    "an argument": network(h.generator({TEXT: 1})),
    "a value of an argument": network(h.generator(h.sizes(architecture=TEXT))),
    "a tensor's name": network(h.generator(h.sizes(), {TEXT: h.tensor(2, (2,), (1,))})),
    "a module's name": network(networks.modules_with_long_names(2, 5).replace(b"aaaaa", b"\x1b[2J\x07")),
    "a TensorFlow argument": network(networks.tensorflow(4, 1).replace(b"vvvv", b"\x1b[2J")),
    "entries of a torch.save file": network(networks.torch_saved({TEXT: 1})),
    "tensors of a torch.save file": network(
        networks.torch_saved({name: torch.ones(1) for name in ("input.input", TEXT)})),
    "a header's tensor": network(safetensors({"version": 1, "networks": {"G": {}}}, TEXT)),
    "a header's version": network(safetensors({"version": TEXT})),
    "a header's network": network(safetensors({"version": 1, "networks": {TEXT: 1}})),
    "a header's argument": network(safetensors({"version": 1, "networks": {"G": {
        "family": "stylegan3-generator", "arguments": {TEXT: TEXT}}}})),
    "a header that is no JSON": network(safetensors("{" + TEXT)),
    "no file of any kind": network(TEXT.encode()),
    "a dataset's origin": lambda folder: manifest(
        folder, {"labels": None, "sg3": {TEXT: TEXT, "licence": TEXT}}, "info"),
    "a dataset's label": lambda folder: manifest(folder, {"labels": [[TEXT, TEXT]]}),
    "a dataset's label twice": lambda folder: manifest(folder, {"labels": [[TEXT, 1], [TEXT, 1]]}),
    "a dataset's label, described": lambda folder: manifest(folder, {"labels": [[TEXT, 1]]}, "info"),
    "a dataset.json that is none": lambda folder: [
        "info", str(archive(folder / "a.zip", {"a.png": encoded(pixels(0)), "dataset.json": TEXT.encode()}))],
    "names in a zip": lambda folder: ["info", str(archive(folder / "a.zip", {f"a{TEXT}.png": b"x"}))],
    "unsafe names in a zip": lambda folder: ["info", str(archive(folder / "a.zip", {f"../{TEXT}.png": b"x"}))],
    "names in a folder": lambda folder: folder_of(folder, {f"{NAME}.png": b"x", "b.png": encoded(pixels(0))}),
    "sizes in a folder": lambda folder: folder_of(
        folder, {f"{NAME}.png": encoded(pixels(0)), "b.png": encoded(pixels(0, 16))}),
    "skipped names in a folder": lambda folder: folder_of(
        folder, {f"{NAME}.png": b"x", "b.png": encoded(pixels(0))}, "--on-error=skip"),
    "a name of another kind": lambda folder: folder_of(folder, {f"{NAME}.gif": b"x"}),
    "names of classes": lambda folder: [*folder_of(folder, {"a.png": encoded(pixels(0))}), "--labels=folders"],
    "a name in the path": lambda folder: ["info", str(folder / NAME)],
    "an end of a run": lambda folder: run(folder, "exit.json", json.dumps({TEXT: TEXT, "message": TEXT})),
    "options of a run": lambda folder: run(folder, "training_options.json", json.dumps({"config": {TEXT: TEXT}})),
    "a file of a run": lambda folder: run(folder, f"metric-{NAME}.jsonl", "{}"),
    "statistics of a run": lambda folder: run(folder, "stats.jsonl", json.dumps({"Progress/kimg": {"mean": TEXT}})),
    "an option in a file": lambda folder: option_file(folder, json.dumps({TEXT: 1})),
    "a value in a file": lambda folder: option_file(folder, json.dumps({"data": TEXT, "cfg": TEXT})),
    "an option file that is none": lambda folder: option_file(folder, "{" + TEXT),
    "an option file in TOML": lambda folder: option_file(folder, f"a = {TEXT}", "a.toml"),
    "names of arrays": lambda folder: latents(folder, {f"a{TEXT}": np.ones(2)}),
}


@pytest.mark.parametrize("what", CASES)
def test_evil_files(what: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    words = CASES[what](tmp_path)
    capfdbinary.readouterr()
    code = sg3.cli._run(words, debug=False)
    out, err = (stream.decode() for stream in capfdbinary.readouterr())
    assert visible(out), ascii(out)
    assert visible(err), ascii(err)
    assert not any(line.startswith("error: forged") for line in (out + err).split("\n"))
    assert len([line for line in err.split("\n") if line.startswith("error: ")]) == (code != 0)


def test_a_traceback(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    (tmp_path / "net").write_bytes(h.pickled(h.stack_named("os" + TEXT, "system")))
    assert sg3.cli._run(["info", str(tmp_path / "net")], debug=True) == 65
    err = capfdbinary.readouterr().err.decode()
    assert "Traceback" in err
    assert visible(err)


@pytest.mark.parametrize(
    ("shell", "has_widgets", "live"),
    [("ZMQInteractiveShell", True, True), ("ZMQInteractiveShell", False, False),
     ("TerminalInteractiveShell", True, False), (None, True, False)],
)  # fmt: skip
def test_bars_move_in_a_notebook_with_widgets(monkeypatch, shell, has_widgets, live) -> None:
    instance = None if shell is None else type(shell, (), {})()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: instance))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if has_widgets else None)
    monkeypatch.delenv("TTY_INTERACTIVE", raising=False)
    assert sg3.terminal.is_live() is live
    monkeypatch.setenv("TTY_INTERACTIVE", "0")  # nobody looks, whatever is there
    assert not sg3.terminal.is_live()
