"""`sg3.export` and `sg3.push`: networks for other programs, and for other people."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch

from sg3.api.networks import Network, generator_of
from sg3.errors import UsageError
from sg3.tools.export import PARTS, trace, write_archive, write_onnx
from sg3.tools.export import verify as run_and_compare
from sg3.tools.hub import push as push_file

Report = Callable[[str], object]


def export(
    network: Network,
    path: str | os.PathLike[str],
    *,
    part: str = "whole",
    half: bool = False,
    verify: bool = True,
    report: Report = lambda _: None,
) -> Path:
    """Write a generator for programs without sg3: `.onnx`, or `.pt2` for an archive of torch.export: docs/export.md.

    `part`: whole (z to picture), mapping (z to ws) or synthesis (ws to picture). `half`: computed in float16. `verify`:
    run the file and compare it with PyTorch. `report` is told what goes on.

    Raises UsageError (another suffix, a package that is missing, a part that the network does not have),
    NumericalError (the file gives something else), StorageError, and what `sg3.load` raises.
    """
    path = Path(path)
    if path.suffix not in (".onnx", ".pt2"):
        raise UsageError(f"{path}: expected a name ending in .onnx or .pt2")
    chosen = next((name for name in PARTS if name == part), None)
    if chosen is None:
        raise UsageError(f"part={part!r}: expected one of {', '.join(PARTS)}")
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
    report: Report = lambda _: None,
) -> str:
    """Upload a network file, or a run's newest snapshot, with a model card to the Hugging Face Hub, as OWNER/NAME;
    returns the address of its page. From then on hf://OWNER/NAME is a network everywhere.

    `licence` is that of the weights, by default what the file says; `whole`: all networks rather than the averaged
    generator. Raises UsageError, DataError, MissingInputError (not there, or not for this user), StorageError.
    """
    done = push_file(
        Path(network), repo, licence=licence, private=private, whole=whole, message=message, report=report
    )  # fmt: skip
    report(f"commit {done.commit}")
    return done.url
