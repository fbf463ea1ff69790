"""`sg3 export`."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from sg3.cli import options
from sg3.cli.options import switch
from sg3.terminal import say, show


@click.command("export")
@options.network
@click.option("--output", type=options.OUTPUT_FILE, required=True, metavar="FILE",
              help="Where it goes: .onnx, or .pt2 for an archive of torch.export.")
@click.option("--part", type=click.Choice(["whole", "mapping", "synthesis"]), default="whole", show_default=True,
              help="z to picture, z to ws, or ws to picture.")
@switch("--half", help="Weights and layers in float16; inputs and results stay float32.")
@switch("--verify", default=True,
        help="Run the file (ONNX: by onnxruntime) and compare it with PyTorch; on by default.")
def command(network: str, output: Path, part: str, half: bool, verify: bool) -> None:
    """Write a generator for programs without sg3: as ONNX or as an archive of torch.export.

    It takes any number of pictures at a time. Inputs are z [N, z_dim], c [N, classes] of a conditional network, the
    truncation (1 for none) and, of StyleGAN3, transform [3, 3], the matrix of `G.synthesis.input.transform` (the
    identity for none); the result is image [N, C, H, W], about -1 to 1. StyleGAN2's noise is the one of
    --noise-mode=const. A file that gives something else than PyTorch is an error, exit code 70.

    Examples:

        sg3 export --network=runs/00000-... --output=cats.onnx

        sg3 export --network=net.pkl --output=synthesis.pt2 --part=synthesis
    """
    from sg3.cli.network import require_network

    require_network(network)
    from sg3.api.sharing import export

    show(export(network, output, part=part, half=half, verify=verify, report=say))
