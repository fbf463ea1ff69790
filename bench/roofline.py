"""What an op must cost at the least: bytes to move, multiply-adds to do, and the time that a device needs for them.

    python -m bench.roofline                            all layers of T and R at 256, 512 and 1024, for an H200
    python -m bench.roofline --network=t-1024 --measure with the rates of this machine's GPU

Two floors per op. The byte floor: every input read once, every output written once, over the bandwidth. The floor:
the larger of that and executed FLOP over peak. For filtered_lrelu, `useful` FLOP are the polyphase multiply-adds that
no inserted zero and no discarded sample takes part in, and `executed` those of the tensor-core form, dense products
with banded matrices on tiles of 64 x 64 samples between the filters; everywhere else the two are the same.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch

from bench.shapes import NETWORKS, Block, Layer, blocks, layers

SIGN_BYTES = 1 / 4  # filtered_lrelu keeps 2 bits per sample between the filters for its gradient


@dataclass(frozen=True)
class Cost:
    """Of one call: bytes over the memory bus, FLOP (two per multiply-add), the type that products are taken in."""

    bytes: float
    useful: float
    executed: float
    dtype: torch.dtype

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.bytes + other.bytes, self.useful + other.useful, self.executed + other.executed, self.dtype)


@dataclass(frozen=True)
class Device:
    """Rates in units per second. The defaults are an H200's: a copy as measured, products as the data sheet says."""

    bandwidth: float = 4.3e12
    fp16: float = 990e12  # dense, tensor cores
    fp32: float = 67e12   # without tf32

    def byte_floor(self, cost: Cost) -> float:
        """Seconds to move the bytes."""
        return cost.bytes / self.bandwidth

    def floor(self, cost: Cost) -> float:
        """Seconds for the bytes or for the executed FLOP, whichever take longer."""
        return max(self.byte_floor(cost), cost.executed / (self.fp32 if cost.dtype == torch.float32 else self.fp16))


def filtered_lrelu(layer: Layer, batch: int, channels: int, dtype: torch.dtype, backward: bool, tile: int = 64) -> Cost:
    """One call, or with `backward` also its gradient for x; only then are signs written, and read again."""
    s, planes = layer.spec, batch * channels
    inputs, outputs = planes * layer.conv_size**2, planes * s.out_size**2
    between = planes * ((s.out_size - 1) * layer.down + layer.down_taps) ** 2  # samples between the filters
    size = dtype.itemsize
    terms = layer.terms(dtype)
    full = layer.down_taps**2 if layer.radial else None

    up = (layer.up, layer.up_taps, 1, None)
    down = (layer.down, layer.down_taps, terms, full)
    forward = Cost(
        (inputs + outputs) * size + (between * SIGN_BYTES if backward else 0),
        2 * outputs * useful_macs(up, down, layer.conv_size / s.out_size),
        2 * outputs * banded_macs(layer.up, layer.down, layer.up_taps, layer.down_taps, 1, terms, tile),
        dtype,
    )
    if not backward:
        return forward
    # The gradient is the same op with the filters and their factors exchanged.
    return forward + Cost(
        (inputs + outputs) * size + between * SIGN_BYTES,
        forward.useful,
        2 * inputs * banded_macs(layer.down, layer.up, layer.down_taps, layer.up_taps, terms, 1, tile),
        dtype,
    )


def useful_macs(
    up: tuple[int, int, int, int | None], down: tuple[int, int, int, int | None], in_per_out: float
) -> float:
    """Multiply-adds per output pixel of separable polyphase filtering, x before y.

    A filter is (factor, taps, terms, taps of the full filter or None): a radial one is applied as it is or as the sum
    of `terms` separable ones, whichever takes less. `in_per_out` is the ratio of the sizes of input and output.
    """
    (u, u_taps, _, _), (d, d_taps, terms, full) = up, down
    rows = in_per_out  # input rows per output row; there are d rows between the filters for each output row
    first = 0.0 if u_taps == 1 else (d * rows + d * d) * u_taps / u
    second = 0.0 if d_taps == 1 else float((d + 1) * d_taps * terms)
    return first + (second if full is None else min(second, full))


def banded_macs(
    up: int, down: int, up_taps: int, down_taps: int, up_terms: int, down_terms: int, tile: int
) -> float:
    """Multiply-adds per output pixel of four dense products on a tile of tile x tile samples between the filters.

    Dimensions are powers of two of at least 16, as tensor cores want them, and the tile's outputs are as many as fit
    that let all tiles share their matrices and begin on a whole byte of signs.
    """
    if up_taps == down_taps == 1:
        return 0.0
    step = math.lcm(up // math.gcd(up, down), 4 // math.gcd(4, down))
    fit = (tile - down_taps) // down + 1
    valid = fit // step * step
    if valid < 1:
        return math.inf
    x, y = dot_size(math.ceil((tile + up_taps - 1) / up)), dot_size(valid)
    upsample = up_terms * (tile * x * x + tile * tile * x) if up_taps > 1 else 0
    downsample = down_terms * (y * tile * tile + y * y * tile) if down_taps > 1 else 0
    return (upsample + downsample) / valid**2


def dot_size(n: int) -> int:
    """The next dimension that a matrix product on tensor cores takes."""
    return max(16, 1 << (n - 1).bit_length())


def modulated_conv2d(
    layer: Layer, batch: int, channels_in: int, channels_out: int, dtype: torch.dtype, backward: bool
) -> Cost:
    """One call, or with `backward` also the gradients for x, weights and styles. Weights are float32."""
    x = batch * channels_in * layer.spec.in_size**2 * dtype.itemsize
    y = batch * channels_out * layer.conv_size**2 * dtype.itemsize
    w = channels_in * channels_out * layer.kernel**2 * 4
    # The convolution is padded by kernel - 1: every input pixel meets every tap, and that is all that is useful.
    flop = 2.0 * batch * channels_in * channels_out * layer.kernel**2 * layer.spec.in_size**2
    forward = Cost(x + w + y, flop, flop, dtype)
    return forward + Cost(2 * (x + w) + y, 2 * flop, 2 * flop, dtype) if backward else forward


def upfirdn2d(
    planes: int, in_size: int, out_size: int, up: int, taps: tuple[int, ...], dtype: torch.dtype, backward: bool
) -> Cost:
    """One call on square planes, or with `backward` also its gradient. `taps` is the filter's shape."""
    if len(taps) == 2:
        macs = out_size**2 * taps[0] * taps[1] / up**2
    else:
        macs = (in_size * out_size + out_size**2) * taps[0] / up
    # Multiply-adds on the vector units, in float32 whatever the signal's type.
    cost = Cost(planes * (in_size**2 + out_size**2) * dtype.itemsize, 2 * planes * macs, 2 * planes * macs, dtype)
    return cost + cost if backward else cost


def bias_act(elements: int, dtype: torch.dtype, backward: bool) -> Cost:
    """One call, or with `backward` also its gradient, for which the output is read again. FLOP do not count."""
    forward = Cost(2 * elements * dtype.itemsize, 0, 0, dtype)
    return forward + Cost(3 * elements * dtype.itemsize, 0, 0, dtype) if backward else forward


# ---- a device's own rates -------------------------------------------------------------------------------------------


def measure() -> Device:
    """Rates of the current CUDA device: a copy of 1 GiB and products of 8192 x 8192 matrices, the best of ten."""
    source = torch.empty(2**28, device="cuda", dtype=torch.float32).normal_()
    target = torch.empty_like(source)
    bandwidth = 2 * source.numel() * 4 / best_seconds(lambda: target.copy_(source))
    rates = {}
    for dtype in (torch.float16, torch.float32):
        a = torch.randn(8192, 8192, device="cuda", dtype=dtype)
        rates[dtype] = 2 * 8192**3 / best_seconds(lambda a=a: a @ a)  # type: ignore[misc]
    return Device(bandwidth, rates[torch.float16], rates[torch.float32])


def best_seconds(function: Callable[[], object]) -> float:
    """Shortest of ten runs on the GPU, after two to warm up."""
    times = []
    for _ in range(12):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return min(times[2:])


# ---- the table ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A line of the table: an op at a layer, forward and with gradient."""

    title: str
    op: str
    dtype: torch.dtype
    shape: str
    forward: Cost
    both: Cost


def layer_rows(layer: Layer, batch: int, tile: int) -> list[Row]:
    """The two ops of a synthesis layer."""
    s = layer.spec
    dtype = torch.float16 if s.use_fp16 else torch.float32
    i, o = s.in_channels, s.out_channels
    kind = f"k{layer.kernel}", f"u{layer.up} d{layer.down}" + (f" {layer.terms(dtype)} terms" if layer.radial else "")
    conv = [modulated_conv2d(layer, batch, i, o, dtype, backward) for backward in (False, True)]
    act = [filtered_lrelu(layer, batch, o, dtype, backward, tile) for backward in (False, True)]
    return [
        Row(layer.title, "modulated_conv2d", dtype, f"{i}x{s.in_size}² -> {o}x{layer.conv_size}² {kind[0]}", *conv),
        Row(layer.title, "filtered_lrelu", dtype, f"{o}x{layer.conv_size}² -> {s.out_size}² {kind[1]}", *act),
    ]


def block_rows(block: Block, batch: int) -> list[Row]:
    """A discriminator block's resampling (before its strided convolution, and of its skip) and its activations."""
    dtype = torch.float16 if block.use_fp16 else torch.float32
    n, size, half = block.channels, block.size, block.size // 2
    rows = []
    for out, kind in ((size + 1, "before conv1"), (half, "skip")):
        cost = [upfirdn2d(batch * n, size, out, 1, (4, 4), dtype, backward) for backward in (False, True)]
        rows.append(Row(block.title, "upfirdn2d", dtype, f"{n}x{size}² -> {out}² {kind}", *cost))
    for channels, resolution in ((n, size), (block.out_channels, half)):
        elements = batch * channels * resolution**2
        cost = [bias_act(elements, dtype, backward) for backward in (False, True)]
        rows.append(Row(block.title, "bias_act", dtype, f"{channels}x{resolution}²", *cost))
    return rows


def table(rows: list[Row], device: Device) -> str:
    """Markdown, times in microseconds."""
    lines = [
        "| layer | op | type | shape | MB | GFLOP useful | executed | byte floor µs | floor µs | fwd+bwd: MB "
        "| GFLOP useful | executed | byte floor µs | floor µs |",
        "|---|---|---|---|" + "--:|" * 10,
    ]
    for row in rows:
        cells = [row.title, row.op, str(row.dtype).removeprefix("torch."), row.shape]
        for cost in (row.forward, row.both):
            cells += [
                f"{cost.bytes / 1e6:.1f}", f"{cost.useful / 1e9:.2f}", f"{cost.executed / 1e9:.2f}",
                f"{device.byte_floor(cost) * 1e6:.1f}", f"{device.floor(cost) * 1e6:.1f}",
            ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def sums(rows: list[Row], device: Device) -> str:
    """One line per network and op: milliseconds for all layers together."""
    columns = "network | op | byte floor ms | floor ms | fwd+bwd: byte floor ms | floor ms"
    lines = [f"| {columns} |", "|---|---|--:|--:|--:|--:|"]
    keys = dict.fromkeys((row.title.partition("/")[0], row.op) for row in rows)
    for key in keys:
        own = [row for row in rows if (row.title.partition("/")[0], row.op) == key]
        times = [
            sum(floor(cost) for cost in costs) * 1e3
            for costs in ([row.forward for row in own], [row.both for row in own])
            for floor in (device.byte_floor, device.floor)
        ]
        lines.append(f"| {key[0]} | {key[1]} | " + " | ".join(f"{t:.3f}" for t in times) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    default = Device()
    parser = argparse.ArgumentParser(prog="python -m bench.roofline", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", action="append", choices=NETWORKS, help="repeatable; all of them unless given")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tile", type=int, default=64, help="samples between the filters, per axis, of filtered_lrelu")
    parser.add_argument("--bandwidth", type=float, default=default.bandwidth, help="bytes/s (%(default)g)")
    parser.add_argument("--fp16", type=float, default=default.fp16, help="FLOP/s in half precision (%(default)g)")
    parser.add_argument("--fp32", type=float, default=default.fp32, help="FLOP/s in float32 (%(default)g)")
    parser.add_argument("--measure", action="store_true", help="take the rates from this machine's GPU instead")
    options = parser.parse_args(arguments)
    if options.measure and not torch.cuda.is_available():
        sys.exit("error: --measure needs a CUDA device; give --bandwidth, --fp16 and --fp32 instead")
    device = measure() if options.measure else Device(options.bandwidth, options.fp16, options.fp32)

    rows = []
    for network in options.network or NETWORKS:
        for layer in layers(network):
            rows += layer_rows(layer, options.batch, options.tile)
        for block in blocks(network):
            rows += block_rows(block, options.batch)
    print(f"Batch {options.batch}, {device.bandwidth / 1e12:.2f} TB/s, {device.fp16 / 1e12:.0f} TFLOP/s in half "
          f"precision, {device.fp32 / 1e12:.0f} in float32.\n")
    print(table(rows, device))
    print(f"\n{sums(rows, device)}")


if __name__ == "__main__":
    main()
