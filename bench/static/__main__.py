"""python -m bench.static: what the compiled kernels should take, predicted for GPUs that are not there.

Columns: picoseconds of the whole GPU per output element; the same with bank conflicts and scattered accesses counted;
the time to move the bytes; the old plugin's prediction and the ratio to it; cycles of a multiprocessor and instructions
of its warps per output; registers of a thread, shared memory of a program, programs that are resident x their warps;
what limits, and the busiest pipes; what lets in no more programs.
"""

from __future__ import annotations

import argparse
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

from bench.shapes import NETWORKS
from bench.static import networks
from bench.static.classes import SIZE, classes
from bench.static.machine import ARCHITECTURES, GLOBAL_LATENCY
from bench.static.predict import Prediction, predict
from bench.static.report import HEAD, PLUGIN, TABLE, against, line, load, table


def main(arguments: list[str] | None = None) -> None:
    """Predict, print, and write a table if asked to."""
    known = [f"sm_{capability}" for capability in ARCHITECTURES]
    parser = argparse.ArgumentParser(
        prog="python -m bench.static", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", nargs="+", choices=known, default=known)
    parser.add_argument("--match", default="", metavar="REGEX", help="only classes in whose name (op/class/mode/type) "
                        "this is found, e.g. 'filtered_lrelu/2->2 separable.*float16'")  # fmt: skip
    parser.add_argument("--size", type=int, default=SIZE, help="of filtered_lrelu's outputs, pixels (%(default)s)")
    parser.add_argument("--latency", type=float, default=GLOBAL_LATENCY, help="of global memory, cycles (%(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes that compile side by side (%(default)s)")
    parser.add_argument("--list", action="store_true", help="only print the classes' names")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the predictions here")
    parser.add_argument("--update", action="store_true", help="renew these rows of the tracked table")
    parser.add_argument("--against", action="store_true",
                        help="instead: print the tracked table beside the old plugin's figures, in Markdown")
    parser.add_argument("--tracked", action="store_true", help="with --network: by the tracked table, at once, as if "
                        "all layers had the size of its classes")  # fmt: skip
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=[],
                        help="instead: filtered_lrelu in all layers of these generators, forward, ms an image")
    options = parser.parse_args(arguments)
    if options.against:
        print(against(load(TABLE), load(PLUGIN)))
        return
    if options.network:
        for network, arch in product(options.network, options.arch):
            capability = int(arch.removeprefix("sm_"))
            tracked = load(TABLE) if options.tracked else None
            print(networks.table(network, capability, options.latency, load(PLUGIN), tracked) + "\n", flush=True)
        return
    names = [item.name for item in classes(options.size) if re.search(options.match, item.name)]
    if options.list:
        print("\n".join(names))
        return
    if not names:
        parser.error(f"--match={options.match!r} fits no class; --list prints them")

    if options.json and not options.json.parent.is_dir():  # known before a quarter of an hour of compiling
        parser.error(f"--json={options.json}: there is no folder {options.json.parent}")
    work = [(int(arch.removeprefix("sm_")), name) for arch in options.arch for name in names]
    one = partial(_predict, size=options.size, latency=options.latency)
    plugin, rows = load(PLUGIN), []
    print(HEAD)
    with ProcessPoolExecutor(options.jobs) as pool:
        for row in map(one, work) if options.jobs == 1 else pool.map(one, work):
            rows.append(row)
            print(line(row, plugin), flush=True)
    if options.json:
        options.json.write_text(table(rows))
    if options.update:
        try:
            TABLE.write_text(table(rows, beside=TABLE))
        except ValueError as error:
            sys.exit(f"error: {error}")


def _predict(work: tuple[int, str], size: int, latency: float) -> Prediction:
    capability, name = work
    return predict(next(item for item in classes(size) if item.name == name), capability, latency)


if __name__ == "__main__":
    main()
