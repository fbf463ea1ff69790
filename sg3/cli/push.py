"""`sg3 push`."""

from __future__ import annotations

import rich_click as click

from sg3.cli import options
from sg3.cli.options import switch
from sg3.terminal import say, show


@click.command("push")
@click.argument("network", type=options.NAME, metavar="NETWORK")
@click.argument("repo", metavar="OWNER/NAME")
@click.option("--licence", metavar="TEXT",
              help="Of the weights, as the Hub spells it, such as cc-by-4.0 or other.  [default: what the file says]")
@switch("--private", help="Make a new repository that only you see.")
@switch("--whole", help="Also G without averaging, D and optimizers' states, for others to go on training from.")
@click.option("--message", default="Network by sg3", show_default=True, metavar="TEXT", help="Of the commit.")
def command(network: str, repo: str, licence: str | None, private: bool, whole: bool, message: str) -> None:
    """Upload a network to the Hugging Face Hub, with a model card: data, recipe, metrics, licence, samples.

    NETWORK is a file or a run folder, which stands for its newest snapshot. `hf auth login` or HF_TOKEN says who you
    are. Afterwards, hf://OWNER/NAME is a network in every command and in Python.

    Examples:

        sg3 push runs/00000-stylegan2-photos-gpus1-batch32-gamma2 me/cats --licence=cc-by-4.0

        sg3 generate --network=hf://me/cats --seeds=0-7 --outdir=out
    """
    from sg3.api.sharing import push

    show(push(network, repo, licence=licence, private=private, whole=whole, message=message, report=say))
