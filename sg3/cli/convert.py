"""`sg3 convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from sg3.cli import options
from sg3.cli.options import switch
from sg3.terminal import say, show

if TYPE_CHECKING:
    from sg3.formats import ChannelOrder, Snapshot

SLOTS = ("G_ema", "G", "D", "augment_pipe")
# Converting copies float32 numbers, and both files run through the same code: the difference is 0 unless a layout in
# memory makes a convolution sum in another order. That moves images of -1..1 by about 1e-6; 1e-4 is a hundredth of a
# grey level, and far below what one wrong tensor does. Logits are compared relative to their size.
TOLERANCE = 1e-4
UNKNOWN_RESOLUTION = 256  # of a projected discriminator without a generator beside it, which takes any


@click.command("convert", cls=options.SwitchesAnywhere)
@click.argument("source", type=options.NAME, metavar="SOURCE")
@click.argument("dest", type=options.OUTPUT_FILE, metavar="DEST")
@click.option("--network-slot", "slots", type=click.Choice(SLOTS), multiple=True,
              help="Convert only this part; may be given several times.  [default: all that SOURCE has]")
@click.option("--channel-order", type=click.Choice(["auto", "rgb", "bgr"]), default="auto", show_default=True,
              help="Order of colours inside SOURCE; auto takes mmagic's own files for bgr.")
@click.option("--licence", help="Note the licence of the weights in a .safetensors file.", metavar="TEXT")
@switch("--verify", help="Render the same seed from both files and compare.")
@click.option("--seed", type=options.SEED, default=0, show_default=True, help="Seed of --verify.")
def command(
    source: str,
    dest: Path,
    slots: tuple[str, ...],
    channel_order: ChannelOrder,
    licence: str | None,
    verify: bool,
    seed: int,
) -> None:
    """Convert a network file to another format.

    SOURCE is a file, a run folder, an address or the short name of a published network. The suffix of DEST chooses
    the format: .safetensors (the safest to pass on), .pkl (the official one) or .pt (rosinality's, StyleGAN2 only).

    Examples:

        sg3 convert network-snapshot-025000.pkl afhqv2.safetensors --verify

        sg3 convert stylegan2.pt stylegan2.pkl --network-slot=G_ema
    """
    from sg3.cli.network import require_network

    require_network(source)
    import sg3
    from sg3.errors import DataError, NumericalError, UsageError

    original = sg3.load(source, channel_order=channel_order)
    if licence is not None:
        if dest.suffix != ".safetensors":
            raise UsageError(f"--licence: only .safetensors files have a place for it, not {dest.name}")
        original.licence = licence
    if absent := [slot for slot in slots if getattr(original, slot) is None]:
        raise DataError(f"{source}: has no {', '.join(absent)}")
    for slot in SLOTS:
        if slots and slot not in slots:
            setattr(original, slot, None)
    if dest.suffix == ".pt" and original.augment_pipe is not None:
        say("note: augment_pipe is left out, a .pt file has no place for it")
        original.augment_pipe = None
    sg3.save(original, dest)
    show(dest)
    missing = [slot for slot in SLOTS if getattr(original, slot) is None]
    for note in original.notes:
        say(f"note: {note}")
    say(f"read {original.origin}; missing: {', '.join(missing) or 'nothing'}")
    if verify:
        worst = 0.0
        for slot, difference in differences(original, sg3.load(dest), seed):
            show(f"{slot}: largest difference {difference:.3g}")
            worst = max(worst, difference)
        if not worst <= TOLERANCE:
            raise NumericalError(f"{dest}: differs from {source} by {worst:.3g}, more than {TOLERANCE:g}")


def differences(a: Snapshot, b: Snapshot, seed: int) -> list[tuple[str, float]]:
    """How far the networks of two snapshots are apart on what `seed` makes: images for generators; logits of a
    picture of noise, relative to the largest, for discriminators; tensors for the augmentation. inf where only one
    snapshot has a network."""
    import torch

    found: list[tuple[str, float]] = []
    for slot in SLOTS:
        first, second = getattr(a, slot), getattr(b, slot)
        if first is None and second is None:
            continue
        if first is None or second is None:
            found.append((slot, float("inf")))
            continue
        with torch.no_grad():
            x, y = _outcome(first, seed), _outcome(second, seed)
        scale = max(float(x.abs().max()), 1.0) if slot == "D" else 1.0
        found.append((slot, float((x - y).abs().max()) / scale))
    return found


def _outcome(network: Any, seed: int) -> Any:
    import torch

    from sg3.canvas import size_of
    from sg3.models import Discriminator, Generator
    from sg3.sampling import seed_latents

    if not isinstance(network, (Generator, Discriminator)):
        return torch.cat([tensor.flatten() for tensor in network.state_dict().values()])
    c = torch.zeros(1, network.c_dim)
    if network.c_dim:
        c[0, seed % network.c_dim] = 1
    if isinstance(network, Generator):
        return network(seed_latents([seed], network.z_dim), c, noise_mode="const")
    height, width = size_of(network) if network.img_resolution else (UNKNOWN_RESOLUTION, UNKNOWN_RESOLUTION)
    size = (1, network.img_channels, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # a projected discriminator draws augmentations
        return network(torch.randn(size), c)
