"""Speed on an idle machine and on one that does other work: `python -m bench.busy`, five minutes on two CPUs.

    python -m bench.busy                                      everything, beside 0, 2 and 4 endless processes
    python -m bench.busy --work=train --rounds=3 --seconds=20 --plain

Each measurement is a process of its own: with threads as `sg3` arranges them, and as PyTorch does by itself (`plain`);
the two take turns. The others are at work before it is started, as where a user starts something on a busy machine, or
they arrive when it has begun to work, as beside a run of hours. The machine must be idle otherwise.

Two numbers say whether the arrangement is right: on an idle machine its speed against PyTorch's own (0.95 and more),
and beside L endless processes the share of that speed, against n / (n + L), a fair share of n CPUs (0.8 and more).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

LEAST_IDLE, LEAST_BUSY = 0.95, 0.8
LONGEST = 600.0  # seconds after which a process that is left behind ends by itself
PLAIN = {"SG3_THREADS": "all"}
DECIDED = ("OMP_NUM_THREADS", "SG3_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # variables, left out
ENDLESS = f"import time\nend = time.monotonic() + {LONGEST}\nwhile time.monotonic() < end: pass"
WARM, READY, GO = 2, "ready", "go"  # steps before a measurement; words between parent and child


# ---- the parent ------------------------------------------------------------------------------------------------------


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Inside, so many processes want a CPU all the time."""
    processes = [subprocess.Popen([sys.executable, "-c", ENDLESS]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def speed(work: str, seconds: float, load: int, plain: bool = False, arriving: bool = False) -> float:
    """Pieces of work in a second, by a process beside `load` others, which are there first or arrive later."""
    environment = {name: value for name, value in os.environ.items() if name not in DECIDED}
    command = [sys.executable, "-m", "bench.busy", f"--child={work}", f"--seconds={seconds}"]
    with ExitStack() as stack:
        if not arriving:
            stack.enter_context(busy_processes(load))
        process = subprocess.Popen(
            command, env=environment | (PLAIN if plain else {}), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        stack.callback(process.kill)
        assert process.stdout is not None
        if process.stdout.readline().strip() != READY:
            raise RuntimeError(f"{work}: the process that was to be measured has failed")
        if arriving:
            stack.enter_context(busy_processes(load))
        found = json.loads(process.communicate(f"{GO}\n", timeout=LONGEST)[0])
    how = f"{'plain' if plain else 'sg3'}{', load arrives' if arriving else ''}"
    print(f"  {work:8s} beside {load}  {how:18s} {found['threads']} threads  {found['per_second']:8.3f} /s",
          file=sys.stderr, flush=True)  # fmt: skip
    return float(found["per_second"])


def measure(
    works: list[str], loads: list[int], rounds: int, seconds: float, plain_too: bool = False
) -> dict[str, dict[str, float]]:
    """By work: 'idle', the speed against PyTorch's own, and by load the share of that against a fair one."""
    cpus = len(os.sched_getaffinity(0))
    cases = [(load, plain, arriving) for load in loads for plain in (False, True) for arriving in (False, True)
             if (load or not arriving) and (not plain or not load or plain_too)]  # fmt: skip
    speeds: dict[tuple[str, int, bool, bool], list[float]] = {}
    for turn in range(rounds):
        print(f"round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
        for work in works:
            for load, plain, arriving in cases if turn % 2 == 0 else reversed(cases):
                value = speed(work, seconds, load, plain, arriving)
                speeds.setdefault((work, load, plain, arriving), []).append(value)
    median = {key: statistics.median(values) for key, values in speeds.items()}
    results: dict[str, dict[str, float]] = {}
    for work in works:
        own = median[work, 0, True, False]
        results[work] = {"idle": median[work, 0, False, False] / own}
        for load, plain, arriving in cases:
            if load:
                name = f"beside {load}{', arriving' if arriving else ''}{', plain' if plain else ''}"
                results[work][name] = median[work, load, plain, arriving] / own / (cpus / (cpus + load))
    return results


def problems(results: dict[str, dict[str, float]]) -> list[str]:
    """What is below what it should be."""
    found = []
    for work, numbers in results.items():
        for name, value in numbers.items():
            least = LEAST_IDLE if name == "idle" else LEAST_BUSY
            if not name.endswith("plain") and value < least:
                found.append(f"{work}, {name}: {value:.2f}, should be {least} and more")
    return found


# ---- the child -------------------------------------------------------------------------------------------------------


def training(folder: Path) -> Callable[[], object]:
    """Steps of the preset demo-stylegan3 on random images, with loaders."""
    from dataclasses import replace

    from sg3.data.dataset import ImageFolderDataset
    from sg3.processes import join
    from sg3.threads import leave_cpus_to_others
    from sg3.train.dataset import probe_dataset
    from sg3.train.feed import real_batches
    from sg3.train.recipes import presets, resolve
    from sg3.train.trainer import Trainer
    from sg3.train.watchdog import Watchdog

    options = replace(presets()["demo-stylegan3"].options, data=str(random_images(folder)))
    config = resolve(options, probe_dataset(options))
    world = join("cpu", None)
    leave_cpus_to_others()
    trainer = Trainer(config, ImageFolderDataset(config.dataset.path), world, Watchdog(world, 60, lambda *_: None))
    batches = real_batches(trainer.dataset, batch=config.batch, seed=0, start=0, workers=1, pin_memory=False)
    return lambda: trainer.train_step(*next(batches))


def loading(folder: Path) -> Callable[[], object]:
    """Batches of images of 256 x 256 from two loaders, as training and metrics take them."""
    from sg3.data.dataset import ImageFolderDataset
    from sg3.device import device_for_work
    from sg3.train.feed import real_batches

    device_for_work("cpu")
    dataset = ImageFolderDataset(random_images(folder, 256))
    batches = real_batches(dataset, batch=32, seed=0, start=0, workers=2, pin_memory=False)
    return lambda: next(batches)


def generating(_folder: Path) -> Callable[[], object]:
    """Images of that preset's generator, as sg3 generate makes them."""
    from sg3.sampling import class_labels, generate, seed_latents

    G = demo_generator()
    z, c = seed_latents(range(16), G.z_dim), class_labels(G, None, 16)
    return lambda: list(generate(G, z, c))


def measuring(_folder: Path) -> Callable[[], object]:
    """Equivariance of that generator, for 16 images."""
    from sg3.metrics import compute, parse

    G = demo_generator()
    return lambda: compute([parse("eqt16_int")], G, device="cpu", batch=16)


def demo_generator():
    """The generator of the preset demo-stylegan3, in evaluation mode; threads as a command takes them."""
    from sg3.device import device_for_work
    from sg3.train.config import DatasetFacts
    from sg3.train.recipes import presets, recipe_of, resolve

    device = device_for_work("cpu")
    facts = DatasetFacts(
        path="-", name="-", resolution=32, channels=3, size=1, label_dim=0, has_labels=False, content=""
    )  # fmt: skip
    config = resolve(presets()["demo-stylegan3"].options, facts)
    return recipe_of(config.cfg).build_networks(config, device)[0].eval().requires_grad_(False)


def random_images(folder: Path, side: int = 32) -> Path:
    """64 images of random pixels."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for index in range(64):
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(folder / f"{index:02d}.png")
    return folder


WORKS: dict[str, Callable[[Path], Callable[[], object]]] = {
    "train": training, "generate": generating, "metrics": measuring, "load": loading,
}  # fmt: skip


def child(work: str, seconds: float) -> None:
    """Do one kind of work for so long, when the parent says so; a line of JSON says how fast."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        step = WORKS[work](Path(folder))
        for _ in range(WARM):
            step()
        print(READY, flush=True)
        sys.stdin.readline()
        began, count = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            step()
            count += 1
        per_second = count / (time.monotonic() - began)
        print(json.dumps({"per_second": per_second, "threads": torch.get_num_threads()}), flush=True)
    os._exit(0)  # loaders and other threads are not asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", default=",".join(WORKS), help="kinds of work, of train, generate, metrics and load")
    parser.add_argument("--loads", default="0,2,4", help="numbers of endless processes beside it; 0 is needed")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--plain", action="store_true", help="PyTorch's own arrangement also beside load")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.child:
        child(said.child, said.seconds)
        return
    loads = sorted({0, *map(int, said.loads.split(","))})
    results = measure(said.work.split(","), loads, said.rounds, said.seconds, said.plain)
    print(json.dumps(results, indent=1))
    for problem in problems(results):
        print(f"too slow: {problem}", file=sys.stderr)
    sys.exit(1 if problems(results) else 0)


if __name__ == "__main__":
    main()
