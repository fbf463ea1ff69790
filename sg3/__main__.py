"""`python -m sg3` and the `sg3` command."""

import signal


def main() -> None:
    """Run the command line. Ctrl-C ends the process without a word while nothing has begun but imports."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from sg3 import cli

    cli.main()


if __name__ == "__main__":
    main()
