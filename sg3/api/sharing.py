"""`sg3.export` and `sg3.push`: networks for other programs, and for other people."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch

from sg3.api.checks import listener, path_of, switch, text
from sg3.api.networks import Network, generator_of
from sg3.errors import UsageError
from sg3.formats import is_remote, name_of
from sg3.formats.hub import SCHEME, SUFFIXES
from sg3.named_paths import Kind, nothing_at, to_read, to_write
from sg3.terminal import printable
from sg3.tools.export import PARTS, require_packages, trace, write_archive, write_onnx
from sg3.tools.export import verify as run_and_compare
from sg3.tools.hub import push as push_file

Report = Callable[[str], object]


def _unheard(_: str) -> None:
    """Nobody listens."""


def export(
    network: Network,
    path: str | os.PathLike[str],
    *,
    part: str = "whole",
    half: bool = False,
    verify: bool = True,
    report: Report | None = None,
) -> Path:
    """Write a generator for programs without sg3: `.onnx`, or `.pt2` for an archive of torch.export: docs/export.md.

    `part`: whole (z to picture), mapping (z to ws) or synthesis (ws to picture). `half`: computed in float16. `verify`:
    run the file and compare it with PyTorch. `report` is told what goes on.

    Raises UsageError (another suffix, a part that the network does not have), MissingInputError (a package),
    NumericalError (the file gives something else), StorageError, and what `sg3.load` raises.
    """
    path = path_of("path", path, check=to_write, kind=Kind.FILE)
    half, verify = switch("half", half), switch("verify", verify)
    listener("report", report)
    report = report or _unheard
    if path.suffix not in (".onnx", ".pt2"):
        raise UsageError(f"{path}: expected a name ending in .onnx or .pt2")
    chosen = next((name for name in PARTS if name == part), None)
    if chosen is None:
        raise UsageError(f"part={part!r}: expected one of {', '.join(PARTS)}")
    require_packages(path, verify)
    G = generator_of(network, torch.device("cpu"))
    report("tracing ...")
    module, program = trace(G, chosen, half)
    if path.suffix == ".onnx":
        report("translating ...")
        write_onnx(module, program, path)
    else:
        write_archive(program, path)
    if verify:
        found = run_and_compare(module, path)
        report(f"differs from PyTorch by at most {found.difference:.2g} (allowed: {found.most:.2g})")
    return path


def push(
    network: str | os.PathLike[str],
    repo: str,
    *,
    licence: str | None = None,
    private: bool = False,
    whole: bool = False,
    message: str = "Network by sg3",
    report: Report | None = None,
) -> str:
    """Upload a network file, or a run's newest snapshot, with a model card to the Hugging Face Hub, as OWNER/NAME;
    returns the address of its page. From then on hf://OWNER/NAME is a network everywhere.

    `licence` is that of the weights, by default what the file says; `whole`: all networks rather than the averaged
    generator. Raises UsageError, DataError, MissingInputError (not there, or not for this user), StorageError.
    """
    name = name_of(network, "; save a network in memory first, with sg3.save")
    repo = text("repo", repo, "OWNER/NAME").removeprefix(SCHEME)
    source = _to_push(name, repo)
    listener("report", report)
    report = report or _unheard
    licence = None if licence is None else text("licence", licence, "a name, such as cc-by-4.0")
    done = push_file(
        source, repo, licence=licence, private=switch("private", private),
        whole=switch("whole", whole), message=text("message", message, "a text"), report=report,
    )  # fmt: skip
    report(f"commit {done.commit}")
    return done.url


def _to_push(name: str, repo: str) -> Path:
    """The file or run that goes to `repo`. Raises UsageError for what is on the network already, in particular if the
    two are given in the wrong order, MissingInputError, DataError, StorageError."""
    is_file = Path(name).suffix in SUFFIXES and not is_remote(name)
    if not is_file and not Path(name).exists() and (Path(repo).exists() or Path(repo).suffix in SUFFIXES):
        where = name.removeprefix(SCHEME)
        raise UsageError(f"push: {printable(repo)} is here and {printable(name)} is not; the network comes first, then "
                         f"where it goes: {printable(repo)}, {printable(where)}")
    if is_remote(name):
        raise UsageError(f"network={printable(name)}: is not on this machine; expected a file or a run folder; to "
                         "upload a copy, take what `sg3 pull` writes")
    path = to_read(name, Kind.EITHER)
    if not path.exists():
        raise nothing_at(name)
    return path
