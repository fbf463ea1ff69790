"""`sg3 view`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from sg3.cli import options
from sg3.terminal import say, show

if TYPE_CHECKING:
    from sg3.viewer.viewer import Viewer

PACKAGES = ("starlette", "uvicorn", "websockets")


@click.command("view")
@click.option("--network", "networks", type=options.NAME, multiple=True, metavar="PATH",
              help="A network file, a run folder (all of its snapshots), an address, or the name of a published "
                   "network; may be repeated.")
@click.option("--network-b", type=options.NAME, metavar="PATH",
              help="A second one to show beside the first, in step with it.")
@click.option("--folder", "folders", type=options.INPUT_FOLDER, multiple=True, metavar="DIR",
              help="Offer the networks and runs in this folder, too; may be repeated.  [default: the current one, "
                   "without --network]")
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Where to listen; 0.0.0.0 is everywhere, unencrypted: better use ssh -L.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0 is any that is free.")
@options.switch("--read-only", help="Nobody may change anything: the address allows to look only.")
@options.switch("--open", default=None, help="Open a browser.  [default: where there is a screen]")
@options.device
def command(
    networks: tuple[str, ...],
    network_b: str | None,
    folders: tuple[Path, ...],
    host: str,
    port: int,
    read_only: bool,
    open: bool | None,
    device: str,
) -> None:
    """See, move and mix what networks draw, in a browser.

    Prints an address with a secret token. From another machine: ssh -L 8765:localhost:8765 MACHINE, then open that
    address here.

    Examples:

        sg3 view --network=runs/00000-stylegan3-t-photos-256-gpus1-batch32-gamma2

        sg3 view --network=before.pkl --network-b=after.pkl

        sg3 view --folder=runs --folder=networks --port=0
    """
    from importlib.util import find_spec
    from urllib.parse import urlencode

    from sg3.errors import MissingInputError
    from sg3.extras import install

    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise MissingInputError(f"sg3 view: needs {', '.join(missing)}; {install('viewer')}")

    from sg3.device import device_for_work
    from sg3.formats import fetch_remote, is_remote
    from sg3.run_folder import going_on, snapshots
    from sg3.viewer.catalogue import Catalogue
    from sg3.viewer.guard import Tokens, is_local
    from sg3.viewer.server import application, listen, serve
    from sg3.viewer.viewer import Viewer

    def located(name: str) -> Path:
        return fetch_remote(name) if is_remote(name) else Path(name)

    paths = [located(name) for name in networks]
    chosen = list(folders) or ([] if paths else [Path()])
    second = None if network_b is None else located(network_b)
    for option, path in [*(("--network", p) for p in paths), *(("--network-b", p) for p in (second,) if p),
                         *(("--folder", p) for p in chosen)]:  # fmt: skip
        if not path.exists() or (option == "--folder" and not path.is_dir()):
            raise MissingInputError(f"{option}={path}: there is no such {'folder' if option == '--folder' else 'file'}")
    catalogue = Catalogue([*paths, *((second,) if second else ())], chosen)
    if not catalogue.entries():
        raise MissingInputError(f"{', '.join(map(str, chosen))}: holds no networks; name one with --network=FILE")

    tokens = Tokens(None) if read_only else Tokens()
    for path in paths:
        if path.is_dir() and (found := snapshots(path)) and (note := going_on(found[-1])):
            say(f"note: {path}: {note}")
    listening = listen(host, port)
    viewer = Viewer(catalogue, device_for_work(device), tokens)
    url = address(host, listening.getsockname()[1], tokens.full or tokens.look)
    if second:
        beside = next(entry.name for entry in catalogue.entries().values() if entry.path == second)
        url += "&" + urlencode({"compare": "split", "network_b": beside})
    show(url)
    if not is_local(host):
        say("note: whoever can reach this machine and has the address may look; it is not encrypted")
    say("Ctrl-C stops it")
    with ExitStack() as stack:
        stack.callback(end, viewer)
        if open or (open is None and has_screen()):
            import webbrowser

            webbrowser.open(stack.enter_context(leading_to(url)).as_uri())
        serve(application(viewer, host), listening)


def end(viewer: Viewer) -> None:
    """End the networks' thread, or leave at once if it goes on: Python's own end would abort the process then, if an
    operation of PyTorch comes to its end on a thread meanwhile."""
    if not viewer.close():
        sys.stdout.flush()
        os._exit(0)


def address(host: str, port: int, token: str) -> str:
    """What to open. Behind the # is what browsers tell no server."""
    import socket

    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    return f"http://{f'[{name}]' if ':' in name else name}:{port}/#token={token}"


@contextmanager
def leading_to(url: str) -> Iterator[Path]:
    """A file that only its owner may read and that sends a browser to `url`; gone afterwards. An address among a
    program's arguments is seen by everybody on the machine (ps), and so would be the token."""
    from html import escape
    from tempfile import mkstemp

    handle, name = mkstemp(prefix="sg3-view-", suffix=".html")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(f'<!doctype html><meta http-equiv="refresh" content="0; url={escape(url)}"><title>sg3</title>')
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def has_screen() -> bool:
    """Whether a browser would be seen: there is a display, and it is not the far end of an ssh connection."""
    if any(name in os.environ for name in ("SSH_CONNECTION", "SSH_TTY")):
        return False
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
