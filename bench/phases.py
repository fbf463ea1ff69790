"""How long the phases of a training step take in the systems beside StyleGAN, and what R3GAN's approximated penalties
cost and miss.

    python -m bench.phases                    this machine: all of them, in turns
    python -m bench.phases --device=cuda --batch=64 --resolution=256 --full
    python -m bench.phases penalty            approximated penalties against exact ones, by the width of the noise

Variants of a system take turns step by step, so that what else the machine does meets all of them alike. On a CPU the
time is that of the processor. One line of JSON each, and at the end a table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.steps import noise_dataset, wait
from sg3.data.dataset import ImageFolderDataset
from sg3.device import keep_freed_memory
from sg3.models import r3gan
from sg3.processes import World
from sg3.train.config import DatasetFacts
from sg3.train.losses import gradient_penalty
from sg3.train.recipes import options_of, resolve
from sg3.train.trainer import Trainer
from sg3.train.watchdog import Watchdog

FASTGAN = {"cfg": "fastgan_lite", "cbase": 4096, "cmax": 512}
R3GAN = {"cfg": "r3gan", "cbase": 4096, "cmax": 128}
VARIANTS: dict[str, dict[str, Any]] = {
    "fastgan_lite": FASTGAN,
    "fastgan_lite, --nhwc": {**FASTGAN, "nhwc": True},
    "fastgan_lite, gradients of the backbone": FASTGAN,  # see `Run`
    "stylegan2 --projected": {"cfg": "stylegan2", "projected": True, "cbase": 4096, "cmax": 128},
    "r3gan": R3GAN,
    "r3gan, --nhwc": {**R3GAN, "nhwc": True},
    "r3gan, --penalty=approximate": {**R3GAN, "penalty": "approximate"},
}
FULL = ("cbase", "cmax")  # what --full leaves out: the widths that make it small
SIGMAS = (0.1, 0.03, 0.01, 0.003, 0.001, 0.0001)  # of the penalty's noise
DRAWS = 64  # directions for each image


def now(device: torch.device) -> float:
    """Seconds of a clock: on a CPU that of this process, which stands still while others have the processor."""
    wait(device)
    return time.process_time() if device.type == "cpu" else time.perf_counter()


class Clock:
    """In the place of the trainer's own timer: waits for the device, and adds up what each phase takes."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._device = device

    def start(self, phase: str) -> None:
        """The phase begins."""
        self.seconds[phase] -= now(self._device)

    def stop(self, phase: str) -> None:
        """The phase has ended."""
        self.seconds[phase] += now(self._device)


class Run:
    """A trainer on noise, without a run folder."""

    def __init__(self, said: argparse.Namespace, title: str, data: Path) -> None:
        self.title = title
        self.device = torch.device(said.device)
        options = {key: value for key, value in VARIANTS[title].items() if not said.full or key not in FULL}
        facts = DatasetFacts(path=str(data), name="noise", resolution=said.resolution, channels=3, size=8, label_dim=0,
                             has_labels=False, content="")  # fmt: skip
        self.config = resolve(options_of({**options, "batch": said.batch}), facts)
        world = World(0, 1, self.device)
        self.trainer = Trainer(self.config, ImageFolderDataset(str(data)), world, Watchdog(world, 600, lambda *_: None))
        if title.endswith("gradients of the backbone"):  # what it would cost to leave them on
            for parameter in self.trainer.D.feature_network.parameters():
                parameter.requires_grad_(True)
        count = said.batch * self.trainer.system.real_batches
        shape = (count, 3, said.resolution, said.resolution)
        self.real = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        self.labels = torch.zeros(count, 0)

    def step(self) -> dict[str, float]:
        """Seconds of a step's phases, and of all of it."""
        self.trainer.timer = clock = Clock(self.device)  # type: ignore[assignment]
        clock.start("step")
        self.trainer.train_step(self.real, self.labels)
        clock.stop("step")
        return dict(clock.seconds)


def phases(said: argparse.Namespace) -> None:
    """All variants that are asked for, in turns."""
    titles = [title for title in VARIANTS if said.only is None or said.only in title]
    with tempfile.TemporaryDirectory() as folder:
        data = noise_dataset(folder, said.resolution)
        runs = [Run(said, title, data) for title in titles]
        for run in runs:
            run.step()  # warm
        found: dict[str, dict[str, list[float]]] = {title: defaultdict(list) for title in titles}
        for _ in range(said.rounds):
            for run in runs:
                for name, seconds in run.step().items():
                    found[run.title][name].append(seconds)
    rows = {title: {name: median(values) for name, values in each.items()} for title, each in found.items()}
    for title, row in rows.items():
        print(json.dumps({"system": title, "batch": said.batch, "resolution": said.resolution, "seconds": row}))
    print("| system | Gmain | Dmain | step |\n|---|---|---|---|")
    for title, row in rows.items():
        print(f"| {title} | {row['Gmain']:.3f} s | {row['Dmain']:.3f} s | {row['step']:.3f} s |")


def penalty(said: argparse.Namespace) -> None:
    """|grad D|^2 of R3GAN's D by finite differences: how far from the squared derivative in the same direction, and how
    far that scatters around the exact one. All widths of the noise have the same directions."""
    torch.manual_seed(0)
    device = torch.device(said.device)
    widths = [32, 64, 128, 128]
    D = r3gan.Discriminator(widths, [width * 2 // 16 for width in widths], [2] * 4).to(device)
    for name, parameter in D.named_parameters():  # residual branches begin at zero, and a trained D's do not stay there
        if name.endswith("LinearLayer3.Layer.weight"):
            torch.nn.init.normal_(parameter, std=0.05)
    coarse = torch.randn(said.batch, 3, 8, 8)
    images = torch.nn.functional.interpolate(coarse, (32, 32), mode="bicubic").clamp(-1, 1).to(device)
    images.requires_grad_()
    logits = D(images)
    (grad,) = torch.autograd.grad(logits.sum(), images)
    directions = torch.randn(DRAWS, *images.shape, device=device)
    true = (directions * grad).sum(dim=(2, 3, 4)).square()  # [DRAWS, N]
    exact = grad.square().sum(dim=(1, 2, 3))
    scatter = float(((true / exact - 1).square().mean()).sqrt())
    print(f"squared derivative in a random direction: scatters by {scatter:.2f} of the exact penalty")
    print("| sigma | its error by finite differences | of the mean over directions |\n|---|---|---|")
    with torch.no_grad():
        for sigma in SIGMAS:
            draws = torch.stack([gradient_penalty.approximate(D, images, logits, sigma, e) for e in directions])
            error = float((draws - true).abs().sum() / true.sum())
            print(f"| {sigma:g} | {error:.2%} | {float(draws.sum() / true.sum() - 1):+.2%} |")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["phases", "penalty"], default="phases")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="variants whose name has this in it")
    parser.add_argument("--full", action="store_true", help="networks as wide as published")
    said = parser.parse_args()
    if said.device == "cpu":
        keep_freed_memory()  # as the commands do
    {"phases": phases, "penalty": penalty}[said.what](said)


if __name__ == "__main__":
    main()
