"""`sg3 ema`."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from sg3.cli import options
from sg3.terminal import say, show

FAR = 0.1  # distance of profiles, relative, from which on the result is something else than what was asked for


@click.command("ema")
@click.argument("run", type=options.INPUT_FOLDER, metavar="RUN")
@click.option("--width", type=options.FiniteRange(0, 0.28, min_open=True), required=True, metavar="SHARE",
              help="Length of the average: the standard deviation of its profile as a share of the training, to 0.28.")
@click.option("--output", type=options.OUTPUT_FILE, required=True, metavar="FILE",
              help="Where the network goes: .pkl or .safetensors.")
@click.option("--kimg", type=options.FiniteRange(min=0), metavar="KIMG",
              help="After so many thousand images.  [default: at the end of what is kept]")
def command(run: Path, width: float, output: Path, kimg: float | None) -> None:
    """Make the averaged network of a run anew, with another length of the average.

    RUN was trained with --posthoc-ema: its folder has two averages of the generator for each snapshot, and their
    combination comes close to the average of any length (Karras et al. 2024, Section 3). Which length is best shows
    only afterwards; 0.05 to 0.15 are usual.

    Examples:

        sg3 ema runs/00000-stylegan3-t-photos-256-gpus1-batch32-gamma2 --width=0.1 --output=wide.pkl
    """
    import sg3
    from sg3.errors import UsageError
    from sg3.formats import WRITES
    from sg3.tools.posthoc_ema import reconstruct

    if output.suffix not in WRITES:
        raise UsageError(f"--output={output}: expected a name ending in {' or '.join(WRITES)}")
    made = reconstruct(run, width, kimg)
    sg3.save(made.snapshot, output)
    where = f"{made.nimg / 1000:g} kimg from {made.files} files"
    say(f"width {width:g} at {where}, {made.distance:.1%} from its true profile")
    if made.distance > FAR:
        say("note: that is far; a greater width, or a run with more snapshots (--snap), comes closer")
    show(output)
