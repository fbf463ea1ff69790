"""Speed on an idle machine and on one that does other work: `python -m bench.busy`.

    python -m bench.busy                                       training, generating, measuring; beside 0, 2, 4 processes
    python -m bench.busy --work=train --rounds=3 --seconds=20

Each measurement is a process of its own, started while the others are at work, as a user would: with threads as `sg3`
arranges them, and as PyTorch does by itself (`plain`); the two take turns. The machine must be idle otherwise. Two
numbers say whether the arrangement is right: on an idle machine its speed against PyTorch's own (0.95 and more), and
beside L endless processes the share of that speed, against n / (n + L), a fair share of n CPUs (0.8 and more).
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
from contextlib import contextmanager
from pathlib import Path

LEAST_IDLE, LEAST_BUSY = 0.95, 0.8
LONGEST = 600.0  # seconds after which a process that is left behind ends by itself
PLAIN = {"SG3_THREADS": "all", "GOMP_SPINCOUNT": "300000"}  # libgomp's own number
ENDLESS = f"import time\nend = time.monotonic() + {LONGEST}\nwhile time.monotonic() < end: pass"


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


def speed(work: str, plain: bool, seconds: float) -> float:
    """Pieces of work in a second, by a process that is started now."""
    decided = ("OMP_NUM_THREADS", "SG3_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in decided}
    command = [sys.executable, "-m", "bench.busy", f"--child={work}", f"--seconds={seconds}"]
    done = subprocess.run(
        command, env=environment | (PLAIN if plain else {}), stdout=subprocess.PIPE, text=True, check=True,
        timeout=LONGEST,
    )  # fmt: skip
    found = json.loads(done.stdout)
    print(f"  {work:8s} {'plain' if plain else 'sg3':5s} {found['threads']} threads  {found['per_second']:8.3f} /s",
          file=sys.stderr, flush=True)  # fmt: skip
    return float(found["per_second"])


def measure(works: list[str], loads: list[int], rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """By work: 'idle', the speed against PyTorch's own, and by load the share of that against a fair one."""
    cpus = len(os.sched_getaffinity(0))
    speeds: dict[tuple[str, int, bool], list[float]] = {}
    for turn in range(rounds):
        for load in loads:
            print(f"round {turn + 1} of {rounds}, beside {load} endless processes", file=sys.stderr, flush=True)
            for work in works:
                for plain in (False, True) if turn % 2 == 0 else (True, False):
                    with busy_processes(load):
                        speeds.setdefault((work, load, plain), []).append(speed(work, plain, seconds))
    median = {key: statistics.median(values) for key, values in speeds.items()}
    results: dict[str, dict[str, float]] = {}
    for work in works:
        own = median[work, 0, True]
        results[work] = {"idle": median[work, 0, False] / own}
        for load in (load for load in loads if load):
            fair = cpus / (cpus + load)
            results[work][f"beside {load}"] = median[work, load, False] / own / fair
            results[work][f"beside {load}, plain"] = median[work, load, True] / own / fair
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

    import torch

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
    torch.set_num_threads(leave_cpus_to_others())
    trainer = Trainer(config, ImageFolderDataset(config.dataset.path), world, Watchdog(world, 60, lambda *_: None))
    batches = real_batches(trainer.dataset, batch=config.batch, seed=0, start=0, workers=1, pin_memory=False)
    return lambda: trainer.train_step(*next(batches))


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


def random_images(folder: Path) -> Path:
    """64 images of 32 x 32 random pixels."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for index in range(64):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{index:02d}.png")
    return folder


WORKS: dict[str, Callable[[Path], Callable[[], object]]] = {
    "train": training, "generate": generating, "metrics": measuring,
}  # fmt: skip


def child(work: str, seconds: float) -> None:
    """Do one kind of work for so long; a line of JSON says how fast."""
    from sg3.threads import wait_briefly

    wait_briefly()
    import torch

    with tempfile.TemporaryDirectory() as folder:
        step = WORKS[work](Path(folder))
        for _ in range(2):
            step()
        began, count = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            step()
            count += 1
        per_second = count / (time.monotonic() - began)
        print(json.dumps({"per_second": per_second, "threads": torch.get_num_threads()}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", default=",".join(WORKS), help="kinds of work, of train, generate and metrics")
    parser.add_argument("--loads", default="0,2,4", help="numbers of endless processes beside it; 0 is needed")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.child:
        child(said.child, said.seconds)
        return
    loads = sorted({0, *map(int, said.loads.split(","))})
    results = measure(said.work.split(","), loads, said.rounds, said.seconds)
    print(json.dumps(results, indent=1))
    for problem in problems(results):
        print(f"too slow: {problem}", file=sys.stderr)
    sys.exit(1 if problems(results) else 0)


if __name__ == "__main__":
    main()
