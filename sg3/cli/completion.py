"""sg3 completion: print the script that completes `sg3` commands and options in a shell."""

from __future__ import annotations

import rich_click as click

from sg3.terminal import show

# Where each shell looks for completions by itself.
INSTALL = {
    "bash": "sg3 completion bash > ~/.local/share/bash-completion/completions/sg3",
    "zsh": "sg3 completion zsh > ~/.zfunc/_sg3, with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc",
    "fish": "sg3 completion fish > ~/.config/fish/completions/sg3.fish",
}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(INSTALL)))
def command(shell: str) -> None:
    """Print the shell completion script.

    Examples:

        sg3 completion bash > ~/.local/share/bash-completion/completions/sg3

        source <(sg3 completion bash)    # for this shell only
    """
    from click.shell_completion import get_completion_class

    from sg3.cli import cli

    completion = get_completion_class(shell)
    assert completion is not None, shell
    # Not its source(), which runs bash to see whether it is older than 4.4.
    script = completion.source_template % completion(cli, {}, "sg3", "_SG3_COMPLETE").source_vars()
    lines = script.splitlines()
    line = 1 if lines[0].startswith("#compdef") else 0  # zsh wants that one to stay the first
    lines.insert(line, f"# To install: {INSTALL[shell]}")
    show(*lines)
