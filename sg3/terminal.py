"""What is written to the terminal, and the only module that writes there.

Names and texts from files end up in messages, and a terminal obeys what it is sent: escape sequences rename windows,
hide lines, or answer as if the user had typed. So everything passes `clean` here: what is no visible character becomes
a question mark. Elsewhere there is no print and no echo, which a test makes sure of.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console


def clean(text: object) -> str:
    """One line of visible characters, whatever the text is. (Tabs stay: they only move on.)"""
    line = str(text)
    return line if line.isprintable() else "".join(c if c.isprintable() or c == "\t" else "?" for c in line)


def printable(text: object, limit: int = 100) -> str:
    """Text from a file, made short and fit for the middle of a line."""
    text = text if isinstance(text, str) else str(text)
    line = clean(" ".join(text[: 10 * limit].split())[: limit + 1]).replace("\t", "?")
    return line if len(line) <= limit else line[:limit] + "..."


def show(*lines: object) -> None:
    """Results: each on a line of stdout. Raises OSError, too, where it was closed before the start."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, "is closed", "standard output")
    _write(sys.stdout, lines)


def say(*lines: object) -> None:
    """Messages: each on a line of stderr."""
    _write(sys.stderr, lines)


def _write(stream: TextIO | None, lines: Iterable[object]) -> None:
    if stream is None:  # as in programs without a console on Windows
        return
    text = "".join(f"{clean(line)}\n" for line in lines)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding))
    stream.flush()


def console(stderr: bool = False, width: int | None = None, soft_wrap: bool = False) -> Console:
    """Rich's console for tables and bars, which prints nothing but visible characters and its own colours.

    What strings mean to Rich, [bold] and :smile:, is left out. When nobody reads any more, it raises BrokenPipeError.
    """
    from rich.console import Console
    from rich.segment import Segment

    class Clean(Console):
        def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                if segment.control or segment.text == "\n":
                    yield segment
                else:
                    text = "\n".join(clean(line) for line in segment.text.split("\n"))
                    yield Segment(text, segment.style)

        def on_broken_pipe(self) -> None:
            raise  # as it came: Rich's own way is to leave the program without a word

    return Clean(stderr=stderr, width=width, highlight=False, markup=False, emoji=False, soft_wrap=soft_wrap)


def is_live() -> bool:
    """Whether what was shown on stderr can change: bars move on a terminal and, with ipywidgets, in a notebook.

    Not with TTY_INTERACTIVE=0, which Rich looks at, too: where a program runs a notebook (nbclient, papermill) nobody
    looks at bars, and the program fails over several that move at once.
    """
    if os.environ.get("TTY_INTERACTIVE") == "0":
        return False
    return (sys.stderr is not None and sys.stderr.isatty()) or _in_notebook()


def _in_notebook() -> bool:
    IPython = sys.modules.get("IPython")  # nobody is in a notebook without it
    shell = None if IPython is None else IPython.get_ipython()
    if type(shell).__name__ != "ZMQInteractiveShell":
        return False
    import importlib.util

    return importlib.util.find_spec("ipywidgets") is not None


def take_over() -> None:
    """From now on, Python's warnings and what libraries log come through here, too."""
    import logging
    import warnings

    def warn(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        say(f"warning: {message} ({category.__name__})")

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(self.format(record).replace("\n", " "))

    warnings.showwarning = warn
    logging.lastResort = Handler(logging.WARNING)
