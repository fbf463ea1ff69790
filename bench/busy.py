"""Speed on an idle machine and on one that does other work: `python -m bench.busy`, five minutes on two CPUs.

    python -m bench.busy                                      everything, beside 0, 2 and 4 endless processes
    python -m bench.busy --work=train --rounds=3 --seconds=20 --minutes=20 --beside=sg3,plain,one

Each measurement is a process of its own (training: as many as `sg3 train` takes): with threads as `sg3` arranges them,
as PyTorch does by itself (`plain`), or one (`one`); they take turns. The others are at work before it is started, as
where a user starts something on a busy machine, or they arrive when it has begun to work, as beside a run of hours. The
machine must be idle otherwise.

Two numbers say whether the arrangement is right: on an idle machine its speed against PyTorch's own (0.95 and more),
and beside L endless processes the share of that speed, against n / (n + L), a fair share of n CPUs (0.8 and more).
Each line says where that comes from: the part of the processor time that it took of what it and the endless processes
had, which is n / (n + L) for n threads where the system is fair and none waits, and the work done in a second of it.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from math import inf
from pathlib import Path
from typing import NamedTuple

LEAST_IDLE, LEAST_BUSY = 0.95, 0.8
SHORTEST = 1.0  # seconds of a measurement, however little time there is
LONGEST = 600.0  # seconds after which a process that is left behind ends by itself
ARRANGEMENTS = {"sg3": {}, "plain": {"SG3_THREADS": "all"}, "one": {"OMP_NUM_THREADS": "1"}}  # variables
DECIDED = ("OMP_NUM_THREADS", "SG3_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # variables, left out
ENDLESS = f"import time\nend = time.monotonic() + {LONGEST}\nwhile time.monotonic() < end: pass"
WARM, READY, GO = 2, "ready", "go"  # steps before a measurement; words between parent and child


# ---- the parent ------------------------------------------------------------------------------------------------------


@contextmanager
def busy_processes(count: int) -> Iterator[list[int]]:
    """Inside, so many processes want a CPU all the time; gives their ids."""
    processes = [subprocess.Popen([sys.executable, "-c", ENDLESS]) for _ in range(count)]
    try:
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def spent(pid: int) -> float:
    """Seconds of processor time that a process and those that it has started have had; 0 where nobody says."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = [int(word) for task in Path(f"/proc/{pid}/task").iterdir()
                    for word in (task / "children").read_text().split()]  # fmt: skip
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK") + sum(map(spent, children))


def speed(work: str, seconds: float, case: Case) -> float:
    """Pieces of work in a second, by a process beside others, which are there first or arrive later."""
    environment = {name: value for name, value in os.environ.items() if name not in DECIDED}
    command = [sys.executable, "-m", "bench.busy", f"--child={work}", f"--seconds={seconds}"]
    with ExitStack() as stack:
        others: list[int] = []
        if not case.arriving:
            others = stack.enter_context(busy_processes(case.load))
        process = subprocess.Popen(
            command, env=environment | ARRANGEMENTS[case.how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdin is not None
        if process.stdout.readline().strip() != READY:
            raise RuntimeError(f"{work}: the process that was to be measured has failed")
        if case.arriving:
            others = stack.enter_context(busy_processes(case.load))
        before = spent(process.pid), sum(map(spent, others))
        process.stdin.write(f"{GO}\n")
        process.stdin.flush()
        found = json.loads(process.stdout.readline())
        mine, theirs = spent(process.pid) - before[0], sum(map(spent, others)) - before[1]
        process.stdin.close()  # it may end
        process.wait(LONGEST)
    part = mine / max(mine + theirs, 1e-9)
    how = f"{case.how}{', load arrives' if case.arriving else ''}"
    print(f"  {work:8s} beside {case.load}  {how:19s} {found['threads']:4s} threads  {found['per_second']:8.3f} /s, "
          f"{part:.2f} of the processor time, {found['count'] / max(mine, 1e-9):.3f} in a second of it",
          file=sys.stderr, flush=True)  # fmt: skip
    return float(found["per_second"])


class Case(NamedTuple):
    """Beside what, how arranged, and whether the others come later."""

    load: int
    how: str = "sg3"
    arriving: bool = False

    def __str__(self) -> str:
        words = [f"beside {self.load}", "arriving" if self.arriving else "", self.how if self.how != "sg3" else ""]
        return ", ".join(filter(None, words))


def cases_of(loads: list[int], beside: list[str]) -> list[Case]:
    """All arrangements on an idle machine, those of `beside` also beside others."""
    idle = [Case(0, how) for how in dict.fromkeys(["sg3", "plain", *beside])]
    return idle + [Case(load, how, arriving) for load in loads if load for how in beside for arriving in (False, True)]


class Budget:
    """Seconds for each of so many measurements, of which all together are to take so many minutes."""

    def __init__(self, minutes: float, count: int, seconds: float) -> None:
        self._end = time.monotonic() + minutes * 60
        self._left = count
        self._seconds = seconds
        self._beside: list[float] = []  # seconds that each took beside its measurement

    def next(self) -> float:
        """How long the next one may take."""
        beside = statistics.fmean(self._beside) if self._beside else 0.0
        each = (self._end - time.monotonic()) / max(self._left, 1) - beside
        return max(min(each, self._seconds), SHORTEST)

    def took(self, seconds: float, beside: float) -> None:
        """One is done: so long for the measurement, and so long for all else."""
        self._left -= 1
        self._beside.append(beside)


def measure(
    works: list[str], loads: list[int], rounds: int, seconds: float, beside: list[str], minutes: float = inf
) -> dict[str, dict[str, float]]:
    """By work: 'idle', the speed against PyTorch's own, and by load the share of that against a fair one."""
    cpus = len(os.sched_getaffinity(0))
    cases = cases_of(loads, beside)
    budget = Budget(minutes, rounds * len(works) * len(cases), seconds)
    speeds: dict[tuple[str, Case], list[float]] = {}
    for turn in range(rounds):
        print(f"round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
        for work in works:
            for case in cases if turn % 2 == 0 else reversed(cases):
                began, due = time.monotonic(), budget.next()
                speeds.setdefault((work, case), []).append(speed(work, due, case))
                budget.took(due, time.monotonic() - began - due)
    median = {key: statistics.median(values) for key, values in speeds.items()}
    results: dict[str, dict[str, float]] = {}
    for work in works:
        own = median[work, Case(0, "plain")]
        results[work] = {"idle": median[work, Case(0)] / own}
        for case in cases:
            if case.load:
                results[work][str(case)] = median[work, case] / own / (cpus / (cpus + case.load))
            elif case.how not in ("sg3", "plain"):
                results[work][f"idle, {case.how}"] = median[work, case] / own
    return results


def problems(results: dict[str, dict[str, float]]) -> list[str]:
    """What is below what it should be."""
    found = []
    for work, numbers in results.items():
        for name, value in numbers.items():
            least = LEAST_IDLE if name == "idle" else LEAST_BUSY
            if not name.endswith(tuple(ARRANGEMENTS)) and value < least:
                found.append(f"{work}, {name}: {value:.2f}, should be {least} and more")
    return found


# ---- the child -------------------------------------------------------------------------------------------------------


def training(folder: Path) -> Callable[[], object]:
    """Steps of the preset demo-stylegan3 on random images, with loaders, in as many processes as `sg3 train` takes."""
    from dataclasses import replace

    from sg3.data.dataset import ImageFolderDataset
    from sg3.processes import find_place, join
    from sg3.threads import leave_cpus_to_others
    from sg3.train.dataset import probe_dataset
    from sg3.train.feed import real_batches
    from sg3.train.recipes import presets, resolve
    from sg3.train.sharing import shared_out
    from sg3.train.trainer import Trainer
    from sg3.train.watchdog import Watchdog

    options = replace(presets()["demo-stylegan3"].options, data=str(random_images(folder)))
    if (place := find_place(os.environ)) is None:
        options = shared_out(options)
        if options.gpus is not None and options.threads is not None:
            start_others("train", options.gpus, options.threads)
    else:
        options = replace(options, gpus=place.size)
    config = resolve(options, probe_dataset(options))
    world = join("cpu", None)
    leave_cpus_to_others()
    trainer = Trainer(config, ImageFolderDataset(config.dataset.path), world, Watchdog(world, 60, lambda *_: None))
    batches = real_batches(
        trainer.dataset, batch=trainer.local_batch, seed=0, start=0, workers=1, pin_memory=False, rank=world.rank,
        ranks=world.size,
    )  # fmt: skip

    def step() -> None:
        world.as_main(True)  # as the trainer's loop, which asks at each step whether to go on
        trainer.train_step(*next(batches))

    return step


def start_others(work: str, count: int, threads: int) -> None:
    """Have other processes do the same as ranks 1 and up, with so many threads each; this one is rank 0. They end when
    it has."""
    import torch

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(
        WORLD_SIZE=str(count), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS=str(threads)
    )
    for rank in range(count - 1, -1, -1):
        os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(rank)
        if rank > 0:
            command = [sys.executable, "-m", "bench.busy", f"--child={work}"]
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    torch.set_num_threads(threads)


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


def filming(_folder: Path) -> Callable[[], object]:
    """Frames of that generator, 2 x 2 tiles, as sg3 video makes them."""
    from sg3.sampling import seed_latents
    from sg3.tools.video import frame_times, make_keyframes, make_walk, render

    G = demo_generator()
    walk = make_walk(G, make_keyframes(G, "z", seed_latents(range(8), G.z_dim), tiles=4), 4)
    return lambda: list(render(G, walk, frame_times(2, 4, loop=True), (2, 2)))


def looking(_folder: Path) -> Callable[[], object]:
    """That generator's images and the features that EfficientNet-Lite1 sees in them, 64, as metrics take them."""
    from sg3.metrics.detectors import open_detector
    from sg3.metrics.features import generated_statistics
    from sg3.metrics.progress import Progress
    from sg3.metrics.samples import Samples, random_labels
    from sg3.metrics.statistics import StatisticsSpec
    from sg3.processes import World

    G = demo_generator()
    device = next(G.parameters()).device
    specs, seen = {StatisticsSpec("lite1", "moments", False, 64)}, {"lite1": open_detector("lite1", device)}
    samples, world = Samples(G, random_labels(G, None, 0), 0, 32), World(0, 1, device)
    return lambda: generated_statistics(specs, samples, seen, world, Progress(), "images")


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
    "train": training, "generate": generating, "video": filming, "features": looking, "metrics": measuring,
    "load": loading,
}  # fmt: skip


def child(work: str, seconds: float) -> None:
    """Do one kind of work for so long, when the parent says so; a line of JSON says how fast."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        step = WORKS[work](Path(folder))
        while os.environ.get("RANK", "0") != "0":  # as often as rank 0 does, whose end is an error here
            step()
        for _ in range(WARM):
            step()
        print(READY, flush=True)
        sys.stdin.readline()
        began, count = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            step()
            count += 1
        per_second = count / (time.monotonic() - began)
        threads = f"{os.environ.get('WORLD_SIZE', 1)} x {torch.get_num_threads()}"
        print(json.dumps({"per_second": per_second, "count": count, "threads": threads}), flush=True)
        sys.stdin.read()  # until its processor time has been looked at
    os._exit(0)  # loaders and other threads are not asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", default=",".join(WORKS), help=f"kinds of work, of {', '.join(WORKS)}")
    parser.add_argument("--loads", default="0,2,4", help="numbers of endless processes beside it; 0 is needed")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--minutes", type=float, default=5.0, help="of all: measurements become shorter, if need be")
    parser.add_argument("--beside", default="sg3", help="arrangements to measure beside load, of sg3, plain and one")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.child:
        child(said.child, said.seconds)
        return
    loads = sorted({0, *map(int, said.loads.split(","))})
    beside = said.beside.split(",")
    if unknown := [*(set(beside) - set(ARRANGEMENTS)), *(set(said.work.split(",")) - set(WORKS))]:
        parser.error(f"there is no {', '.join(unknown)}")
    results = measure(said.work.split(","), loads, said.rounds, said.seconds, beside, said.minutes)
    print(json.dumps(results, indent=1))
    for problem in problems(results):
        print(f"too slow: {problem}", file=sys.stderr)
    sys.exit(1 if problems(results) else 0)


if __name__ == "__main__":
    main()
