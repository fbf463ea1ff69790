"""`sg3 tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import rich_click as click

from sg3.cli import options
from sg3.terminal import say, show

if TYPE_CHECKING:
    from sg3.models import Discriminator
    from sg3.tools.tune.ahead import Target
    from sg3.tools.tune.calls import Call, Network
    from sg3.tools.tune.measure import Measured

# Ops that impl='auto' leaves to cuDNN: measured last, and not compiled by --warmup.
FUSED_CONVOLUTION = ("scaled_conv2d_triton", "scaled_conv2d_grad_triton", "channel_dot_triton")


@click.command("tune")
@click.option("--network", type=options.NAME, metavar="PATH",
              help="Tune for this network: a file, a run folder, an address or the name of a published "
              "network.  [default: StyleGAN3-T, -R and StyleGAN2 at 1024 pixels]")
@click.option("--output", type=options.OUTPUT_FILE, metavar="FILE",
              help="Where to write.  [default: tuning.json in sg3's cache, where it is found again]")
@click.option("--batch", type=click.IntRange(min=1), default=4, show_default=True,
              help="Images at a time, as on one GPU in training.")
@options.switch("--bf16", help="For networks that compute in bfloat16 (sg3 train --bf16).")
@click.option("--jobs", type=click.IntRange(min=1), metavar="N",
              help="Processes that compile.  [default: one for each CPU core but one]")
@options.switch("--warmup", help="Measure nothing, only compile what will run, so that a first image or training step "
                "need not.")
@click.option("--arch", metavar="sm_NN", help="With --warmup: compile for this architecture, e.g. sm_90.  "
              "[default: that of this machine's GPU]")
def command(
    network: str | None, output: Path | None, batch: int, bf16: bool, jobs: int | None, warmup: bool, arch: str | None
) -> None:
    """Find the fastest launch configurations of the kernels on this machine's GPU.

    Every kernel that training and inference launch is compiled in several configurations, whose values are checked
    against plain PyTorch and whose times are measured. The choices are written after every kernel, so an interrupted
    run is not lost, and later programs on the same kind of GPU, with the same Triton, use them. Nothing is measured
    while those run.

    Examples:

        sg3 tune

        sg3 tune --network=runs/00000-.../network-snapshot-000010.pkl --batch=8

        sg3 tune --warmup --arch=sm_90
    """
    import torch

    from sg3.errors import UsageError
    from sg3.kernels.dispatch import triton_status
    from sg3.resources import usable_cpus

    status = triton_status(torch.device("meta"))
    if not status.usable:  # nor can what follows be imported
        raise UsageError(f"sg3 tune: {status.reason}" + (f"; {status.fix}" if status.fix else ""))
    from sg3.tools.tune import machine

    if arch is not None and not warmup:
        raise UsageError("--arch: kernels are timed on the GPU that is here; only --warmup compiles for others")
    if warmup and output is not None:
        raise UsageError("--output: --warmup compiles into Triton's cache and writes no table")
    target = machine.target(arch, needs_gpu=not warmup)
    machine.check_cache()
    count = jobs or max(usable_cpus() - 1, 1)
    if warmup:
        _warm_up(target, _networks(network), batch, bf16, count)
    else:
        _tune(target, _networks(network), output, batch, bf16, count)


def _networks(path: str | None) -> list[Network]:
    from sg3.tools.tune import calls

    if path is None:
        return list(calls.standard_networks())
    import sg3
    from sg3.formats import averaged_generator

    snapshot = sg3.load(path)
    return [calls.Network(averaged_generator(snapshot, path), cast("Discriminator | None", snapshot.D))]


def _warm_up(target: Target, networks: list[Network], batch: int, bf16: bool, jobs: int) -> None:
    from sg3.errors import Sg3Error
    from sg3.progress import Progress
    from sg3.tools.tune import ahead, calls

    wanted = [call for call in calls.calls(networks, batch, bf16) if call.op not in FUSED_CONVOLUTION]
    with Progress() as progress, ahead.compilers(jobs) as pool:
        groups = list(ahead.by_classes(pool, wanted, target).values())
        compiled, failed = 0, 0
        for done, outcome in enumerate(ahead.compile_groups(pool, groups, target, every_candidate=False), 1):
            compiled, failed = compiled + outcome.compiled, failed + len(outcome.failed)
            for line in outcome.failed:
                progress.hide()
                say(f"cannot be compiled: {line}")
            progress.show("compile", done, len(groups))
    if failed:
        raise Sg3Error(f"{failed} kernels cannot be compiled for sm_{target.arch}; please report the lines above")
    show(f"{compiled} kernels compiled for sm_{target.arch}")


def _tune(target: Target, networks: list[Network], output: Path | None, batch: int, bf16: bool, jobs: int) -> None:
    from sg3.errors import StorageError
    from sg3.kernels import tuning
    from sg3.tools.tune import calls, machine
    from sg3.tools.tune.measure import measure
    from sg3.tools.tune.table_file import TableFile

    path = output or tuning.user_file()
    if path is None:
        raise StorageError("there is no home folder to keep the table in; --output=FILE names a place")
    assert target.gpu is not None
    file = TableFile(path, target.gpu)
    if file.replaced:
        say(f"note: {file.replaced}; it is replaced")
    everything = sorted(calls.calls(networks, batch, bf16), key=lambda call: call.op in FUSED_CONVOLUTION)
    tuned, wrong = 0, 0

    def found(measured: Measured) -> None:
        nonlocal tuned, wrong
        file.add(measured)
        tuned += "choice" in measured.entry
        wrong += sum("wrong" in outcome for outcome in measured.entry["tried"])
        say(_line(measured))

    def missed(call: Call, reason: str) -> None:
        say(f"{call.op}: left out: {reason}")

    groups = machine.compiled_groups(everything, target, jobs)
    measure(groups, everything, machine.device(), machine.clock, found, missed)
    show(f"{path}: {tuned} kernels tuned for {target.gpu}")
    if wrong:
        say(f"note: {wrong} configurations gave wrong values and were left out; please report the lines above")


def _line(measured: Measured) -> str:
    """One result, for the progress on stderr."""
    tried, name = measured.entry["tried"], f"{measured.tunable} {measured.group}"
    for outcome in tried:
        if "wrong" in outcome:
            name += f"; {outcome['configuration']} is wrong: {outcome['wrong']}"
    if "choice" not in measured.entry:
        return f"{name}: none of {len(tried)} configurations works"
    by_rule = tried[0].get("microseconds", "nothing")
    return f"{name}: {measured.entry['microseconds']} us, by the rule {by_rule}, of {len(tried)} configurations"
