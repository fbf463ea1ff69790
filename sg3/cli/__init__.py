"""The `sg3` command: one thin module per subcommand, imported only when that subcommand runs.

A module parses, calls the library and prints. Results go to stdout, progress and messages to stderr. Failures are one
line, `error: cause, place, fix`, with the exit codes of `sg3.errors`; `--debug` anywhere shows the traceback instead.
"""

from __future__ import annotations

import importlib
import sys

import rich_click as click

# Subcommand -> (module, one line for the overview). The overview needs no subcommand module, so `sg3 --help` is instant.
COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("sg3.cli.train", "Train a generator on a folder or zip of images."),
    "generate": ("sg3.cli.generate", "Make images from a trained network."),
    "dataset": ("sg3.cli.dataset", "Turn images into a dataset zip."),
    "info": ("sg3.cli.info", "Describe a network file, a dataset or a run folder."),
    "doctor": ("sg3.cli.doctor", "Show what will run where on this machine, and why."),
    "completion": ("sg3.cli.completion", "Print the shell completion script."),
}


class LazyGroup(click.RichGroup):
    """A command group that imports a subcommand's module only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        if ctx.resilient_parsing or _showing_overview():
            return click.RichCommand(cmd_name, short_help=COMMANDS[cmd_name][1], help=COMMANDS[cmd_name][1])
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command: click.Command = module.command
        return command


def _showing_overview() -> bool:
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    return not words


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version

    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    from sg3 import __version__

    click.echo(f"sg3 {__version__}, torch {installed('torch')}, triton {installed('triton')}")
    ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
              help="Show the versions of sg3, torch and Triton.")
def cli() -> None:
    """StyleGAN3 and StyleGAN2 on Triton kernels.

    Examples:

        sg3 train --preset=demo --outdir=runs

        sg3 generate --network=runs/00000-.../network-snapshot-000010.pkl --seeds=0-15 --outdir=out
    """


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit with the documented code."""
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    args = [word for word in args if word != "--debug"]
    sys.exit(_run(args, debug))


def _run(args: list[str], debug: bool) -> int:
    from sg3.errors import Sg3Error

    try:
        result = cli.main(args=args, prog_name="sg3", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 2
    except click.ClickException as error:
        where = f" (see: {error.ctx.command_path} --help)" if isinstance(error, click.UsageError) and error.ctx else ""
        return _fail(" ".join(error.format_message().split()) + where, error.exit_code, debug)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", 130, debug)
    except Sg3Error as error:
        return _fail(str(error), error.exit_code, debug)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our stdout has gone; nobody is left to tell
        return 74
    except FileNotFoundError as error:
        return _fail(f"{error.filename}: no such file or folder", 66, debug)
    except OSError as error:
        return _fail(f"{error.filename or 'input/output'}: {error.strerror or error}", 74, debug)
    except Exception as error:
        return _fail(f"{type(error).__name__}: {error} (a bug in sg3; --debug shows where)", 70, debug)


def _fail(message: str, code: int, debug: bool) -> int:
    if debug and code != 2:
        import traceback

        traceback.print_exc()
    click.echo(f"error: {message}", err=True)
    return code
