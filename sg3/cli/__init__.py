"""The `sg3` command: one thin module per subcommand, imported only when that subcommand runs.

A module parses, calls the library and prints. Results go to stdout, progress and messages to stderr. A
failure is one line, `error: cause, place, fix`, and an exit code of `sg3.errors`; `--debug` adds a traceback.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import re
import select
import signal
import sys
from types import FrameType
from typing import TextIO

import rich_click as click
from click.exceptions import NoArgsIsHelpError

from sg3.invocation import COMMAND
from sg3.terminal import say, show, take_over

LONGEST_LINE = 2_000  # characters of an error
# Subcommand -> (module, one line for the overview). The overview imports none of them, to be instant.
COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("sg3.cli.train", "Train a generator on a folder or zip of images."),
    "generate": ("sg3.cli.generate", "Make images from a trained network."),
    "video": ("sg3.cli.video", "Make a video of walks through latent space."),
    "equivariance-video": ("sg3.cli.equivariance_video", "Show how a StyleGAN3 follows translation and rotation."),
    "style-mix": ("sg3.cli.style_mix", "Mix the styles of seeds: rows by columns."),
    "project": ("sg3.cli.project", "Find the latent whose picture is closest to an image."),
    "directions": ("sg3.cli.directions", "Find directions in w that change pictures."),
    "spectra": ("sg3.cli.spectra", "Average power spectra of datasets and networks."),
    "metrics": ("sg3.cli.metrics", "Measure FID, KID, precision, path length, EQ-T, ..."),
    "dataset": ("sg3.cli.dataset", "Turn images into a dataset zip."),
    "convert": ("sg3.cli.convert", "Convert a network file to another format."),
    "export": ("sg3.cli.export", "Write a generator as ONNX, for programs without sg3."),
    "view": ("sg3.cli.view", "See, move and mix what networks draw, in a browser."),
    "ema": ("sg3.cli.ema", "Choose the length of the weight average after training."),
    "list": ("sg3.cli.published", "List published networks that have a short name."),
    "push": ("sg3.cli.push", "Upload a network to the Hugging Face Hub."),
    "pull": ("sg3.cli.pull", "Download a network."),
    "info": ("sg3.cli.info", "Describe a network file, a dataset or a run folder."),
    "tune": ("sg3.cli.tune", "Find the fastest settings of the kernels on this GPU."),
    "doctor": ("sg3.cli.doctor", "Show what will run where on this machine, and why."),
    "completion": ("sg3.cli.completion", "Print the shell completion script."),
}


class LazyGroup(click.RichGroup):
    """A command group importing a subcommand's module only to run it, show its help or complete its options.

    `get_command` answers with a name and one line, all that the overview and the completion of names need;
    `resolve_command`, which follows the words the user typed, returns the real thing.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return click.RichCommand(name=cmd_name, short_help=COMMANDS[cmd_name][1], help=COMMANDS[cmd_name][1])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name in COMMANDS:
            command: click.Command = importlib.import_module(COMMANDS[name][0]).command
            return name, command, args[1:]
        if not ctx.resilient_parsing and (close := difflib.get_close_matches(name, COMMANDS, n=1)):
            raise click.UsageError(f"No such command {name!r}. Did you mean {close[0]!r}?", ctx)
        return super().resolve_command(ctx, args)


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version

    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    from sg3._version import __version__

    show(f"sg3 {__version__}, torch {installed('torch')}, triton {installed('triton')}")
    ctx.exit()


@click.group(cls=LazyGroup,
             context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
              help="Show the versions of sg3, torch and Triton.")
@click.option("--debug", is_flag=True, expose_value=False,
              help="Show the traceback of a failure; works anywhere on the command line.")
def cli() -> None:
    """StyleGAN2 and 3, Projected GAN, FastGAN and R3GAN on Triton kernels.

    Examples:

        sg3 train --preset=demo --outdir=runs

        sg3 generate --network=runs/00000-.../network-snapshot-000010.pkl --seeds=0-15 --outdir=out
    """


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit with the documented code."""
    take_over()
    _clean_up_when_ended()
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    args = [word for word in args if word != "--debug"]
    sys.exit(_run(args, debug))


def _with_home(word: str) -> str:
    """`~` at the beginning of a word, or of an option's value, as the home folder: no shell expands --outdir=~/runs."""
    option, path = re.fullmatch(r"(--[a-z_-]+=)?(.*)", word, re.DOTALL).groups(default="")  # type: ignore[union-attr]
    return option + (os.path.expanduser(path) if path == "~" or path.startswith("~/") else path)


def _clean_up_when_ended() -> None:
    """Have SIGTERM, a closed terminal (SIGHUP) and a limit of processor time (SIGXCPU, which comes every second from
    then on) do what Ctrl-C does, which leaves no temporary files behind.

    Not in processes forked by this one, which it ends itself, nor in one of several ranks, which their launcher ends;
    nor for what is ignored, as SIGHUP is under nohup.
    """
    if "LOCAL_RANK" in os.environ:
        return
    process = os.getpid()

    def interrupt(number: int, _frame: FrameType | None) -> None:
        if os.getpid() == process:
            if number == getattr(signal, "SIGXCPU", None):
                signal.signal(number, signal.SIG_IGN)
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    for name in ("SIGTERM", "SIGHUP", "SIGXCPU"):  # Windows has one of them
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, interrupt)


def _run(args: list[str], debug: bool) -> int:
    from sg3 import environment
    from sg3.errors import Sg3Error, TrainingStopped
    from sg3.shortage import shortage, shortage_behind

    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see __main__
            signal.signal(signal.SIGINT, signal.default_int_handler)
        for line in environment.check(os.environ):
            if os.environ.get("RANK", "0") == "0" and COMMAND not in os.environ:  # else another process has said it
                say(f"warning: {line}")
        words = [_with_home(word) for word in args]
        result = cli.main(args=words, prog_name="sg3", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, so that a failure is one of the cases below and not noise at exit
        return result if isinstance(result, int) else 0
    except NoArgsIsHelpError as error:
        click.echo(error.format_message())  # our own words, in colours
        return 2
    except click.ClickException as error:
        ctx = error.ctx if isinstance(error, click.UsageError) else None
        see = f" (see: {ctx.command_path} --help)" if ctx else ""
        return _fail(error.format_message() + see, error.exit_code, debug)
    except (click.Abort, KeyboardInterrupt):
        if COMMAND in os.environ:  # whoever has started this process and others says so
            return 130
        return _fail("interrupted", 130, debug, said="")
    except TrainingStopped as error:
        return _fail(str(error), error.exit_code, debug, said="")
    except Sg3Error as error:
        shown = shortage_behind(error) or error
        return _fail(str(shown), shown.exit_code, debug)
    except BrokenPipeError:
        return _reader_gone(debug)
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # click has caught it and chosen 1
            return _reader_gone(debug)
        raise
    except FileNotFoundError as error:
        return _fail(f"{error.filename or error}: no such file or folder", 66, debug)
    except OSError as error:
        if known := shortage(error):
            return _fail(str(known), known.exit_code, debug)
        return _fail(f"{error.filename or 'input/output'}: {error.strerror or error}", 74, debug)
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith("embedded null"):  # from an option file
            return _fail("a path holds a null character, which no file's name does", 2, debug)
        if hasattr(error, "exit_code"):  # sg3.kernels has errors of its own: it imports nothing else of sg3
            return _fail(str(error), error.exit_code, debug)
        if known := shortage(error):
            return _fail(str(known), known.exit_code, debug)
        return _fail(f"{type(error).__name__}: {error} (a bug in sg3; --debug shows where)", 70, debug)


def _reader_gone(debug: bool) -> int:
    """The reader of our stdout or stderr has closed it (`sg3 info | head -1`): stop; what is unwritten goes nowhere.
    Without a word, with the code that a shell gives to any program that the signal for this, SIGPIPE, has ended."""
    gone = [stream.fileno() for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream)]
    for file in gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), file)
    if gone:
        return 128 + signal.SIGPIPE
    return _fail(f"input/output: {os.strerror(errno.EPIPE)}", 74, debug)  # another pipe, or a system without the signal


def _has_no_reader(stream: TextIO | None) -> bool:
    """Whether it is a pipe or a socket that nobody reads any more."""
    try:
        file = -1 if stream is None else stream.fileno()
    except OSError:  # it is no file, as in a notebook
        return False
    if file < 0 or not hasattr(select, "poll"):  # as on Windows
        return False
    poll = select.poll()
    poll.register(file, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _fail(message: str, code: int, debug: bool, said: str = "error: ") -> int:
    if debug and code != 2:
        import traceback

        say(*traceback.format_exc().splitlines())
    line = " ".join(message.split())
    if len(line) > LONGEST_LINE:  # it names what a file says, or a path; the fix is at the end
        line = f"{line[: LONGEST_LINE // 2]} [...] {line[-LONGEST_LINE // 2 :]}"
    try:
        say(f"{said}{line}")
    except OSError:  # the reader of our stderr has gone, too: the code must tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    return code
