"""`sg3 pull`."""

from __future__ import annotations

import shutil
from pathlib import Path

import rich_click as click

from sg3.cli import options
from sg3.terminal import show


@click.command("pull")
@click.argument("source", type=options.NAME, metavar="NETWORK")
@click.option("--output", type=options.OUTPUT_FILE, metavar="FILE", help="Copy it there.")
def command(source: str, output: Path | None) -> None:
    """Download a network, and print where it is.

    NETWORK is OWNER/NAME or hf://OWNER/NAME[@REVISION][/FILE] of the Hugging Face Hub, an address, or a short name of
    `sg3 list`. Files are kept in a cache, so that the next command with the same network finds it.

    Examples:

        sg3 pull me/cats --output=cats.safetensors

        sg3 pull stylegan3-r-afhqv2-512x512
    """
    from sg3.atomic import write_atomic
    from sg3.errors import MissingInputError
    from sg3.published import closest, is_remote

    if not is_remote(source):
        if source.count("/") != 1 or Path(source).exists():
            meant = closest(source)
            hint = f"; did you mean {meant}?" if meant else ""
            raise MissingInputError(f"{source}: is neither OWNER/NAME, nor an address, nor a name of sg3 list{hint}")
        source = f"hf://{source}"
    from sg3.formats import fetch_remote

    path = fetch_remote(source)
    if output is not None:
        with path.open("rb") as file:
            write_atomic(output, lambda copy: shutil.copyfileobj(file, copy))
    show(path if output is None else output)
