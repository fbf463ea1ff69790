"""`sg3 list`."""

from __future__ import annotations

import json
import sys

import rich_click as click

from sg3.cli import options
from sg3.cli.options import switch
from sg3.terminal import console, say, show


@click.command("list")
@click.argument("words", nargs=-1, metavar="[WORD]...")
@switch("--sizes", help="Ask the servers how large the files are.")
@options.as_json
def command(words: tuple[str, ...], sizes: bool, as_json: bool) -> None:
    """List the networks that others have published and sg3 reads by a short name, with their terms.

    WORDs choose those whose names have all of them. The Hub has more: hf://OWNER/NAME.

    Examples:

        sg3 list stylegan3 ffhq --sizes

        sg3 generate --network=stylegan2-cifar10-32x32 --class=3 --seeds=0-7 --outdir=out
    """
    from concurrent.futures import ThreadPoolExecutor

    from sg3.formats.download import is_kept
    from sg3.formats.web_request import size_of
    from sg3.published import published

    chosen = [n for n in published().values() if all(word.lower() in n.name for word in words)]
    found: list[int | None] = [None] * len(chosen)
    if sizes:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(size_of, [network.url for network in chosen]))
    rows = [
        {"name": n.name, "by": n.by, "terms": n.terms, "url": n.url, "kept": is_kept(n.url), "bytes": size}
        for n, size in zip(chosen, found, strict=True)
    ]
    if as_json:
        show(*json.dumps(rows, indent=2).splitlines())
        return
    if not rows:
        say(f"note: no published network has {' and '.join(words)} in its name; `sg3 list` shows all of them")
        return
    from rich.table import Table

    table = Table("network", "by", "terms", *(["MiB"] if sizes else []), "here", box=None)
    for row in rows:
        size = row["bytes"]
        megabytes = ["" if not isinstance(size, int) else f"{size / 2**20:.0f}"] if sizes else []
        table.add_row(str(row["name"]), str(row["by"]), str(row["terms"]), *megabytes, "yes" if row["kept"] else "")
    console(width=None if sys.stdout.isatty() else 140).print(table)
