"""How many of a hundred modes R3GAN and StyleGAN2 find in the same time: `python -m bench.modes --minutes=5`.

In the manner of stacked MNIST (Metz et al. 2017, arXiv 1611.02163, Section 3.3.1): the red and the green channel of an
image are pictures of Fashion-MNIST that have nothing to do with each other, of ten classes each, and blue is black. So
there are 100 modes, all equally frequent. A classifier that is trained here says which one an image shows.

    modes   of how many there is an image among those generated
    KL      divergence of the modes' frequencies from equal ones, in nats; log 100 = 4.6 where there is one mode only

Both systems get networks of about the same cost and the same time of the CPU, which does not count what else the
machine does. Fashion-MNIST is Debian's package dataset-fashion-mnist.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from sg3.data.dataset import ImageFolderDataset
from sg3.data.idx import IdxImages, read_labels
from sg3.device import device_for_work
from sg3.metrics.samples import Samples, random_labels
from sg3.processes import World
from sg3.train.dataset import probe_dataset
from sg3.train.recipes import options_of, resolve
from sg3.train.trainer import Trainer
from sg3.train.watchdog import Watchdog

FASHION = Path("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz")
CLASSES = 10
MODES = CLASSES**2
COMMON: dict[str, Any] = {"batch": 16, "kimg": 100000, "aug": "noaug", "cbase": 1024, "cmax": 64, "latent": 64}
SYSTEMS: dict[str, dict[str, Any]] = {
    "r3gan": {"cfg": "r3gan", "blocks": 1, "gamma": 0.1, "glr": 0.002, "dlr": 0.002, "schedule_kimg": 100.0,
              "ema_kimg": 20.0},
    "stylegan2": {"cfg": "stylegan2", "map_depth": 2, "mbstd_group": 8, "gamma": 0.2, "pl_weight": 0.0,
                  "style_mix": 0.0, "ema_kimg": 2.0},
}  # fmt: skip


def read_fashion(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first pictures, uint8 [count, 32, 32], and their classes [count]."""
    images = IdxImages(FASHION)
    try:
        pictures = np.stack([images.read(index) for index in range(count)])
        return pictures, np.array(read_labels(FASHION, images.count)[:count])
    finally:
        images.close()


def stack(pictures: np.ndarray, classes: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` random pairs of pictures [N, R, R]: uint8 [count, R, R, 3], and their modes [count]."""
    rng = np.random.default_rng(seed)
    first, second = rng.integers(len(pictures), size=(2, count))
    black = np.zeros_like(pictures[first])
    return np.stack([pictures[first], pictures[second], black], axis=-1), classes[first] * CLASSES + classes[second]


def write_zip(images: np.ndarray, path: Path) -> None:
    """A data set for `sg3 train`, of uint8 [N, R, R, 3]."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for index, image in enumerate(images):
            png = io.BytesIO()
            Image.fromarray(image).save(png, format="PNG", compress_level=1)
            file.writestr(f"{index:05d}.png", png.getvalue())


class Classifier(nn.Sequential):
    """Pictures [N, 1, 32, 32] in 0..1 -> scores of the classes [N, 10]."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(32 * 64, 128), nn.ReLU(), nn.Linear(128, CLASSES),
        )  # fmt: skip

    def modes(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [N, 3, 32, 32] -> their modes [N]."""
        with torch.no_grad():
            first, second = (self(images[:, channel, None].float() / 255).argmax(dim=1) for channel in (0, 1))
        return first * CLASSES + second


def train_classifier(pictures: np.ndarray, classes: np.ndarray, epochs: int = 4, held_back: int = 1000) -> \
        tuple[Classifier, float]:
    """A classifier, and the share of the pictures held back that it is right about."""
    torch.manual_seed(0)
    x, y = torch.from_numpy(pictures)[:, None].float() / 255, torch.from_numpy(classes)
    network = Classifier()
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(epochs):
        for part in torch.randperm(len(x) - held_back).split(100):
            adam.zero_grad()
            F.cross_entropy(network(x[part]), y[part]).backward()
            adam.step()
    with torch.no_grad():
        right = network(x[-held_back:]).argmax(dim=1) == y[-held_back:]
    return network.eval(), float(right.float().mean())


def batches(data: ImageFolderDataset, count: int, seed: int) -> Iterator[torch.Tensor]:
    """Random images, uint8 [count, 3, R, R], without end."""
    images = torch.stack([torch.from_numpy(data[index][0]) for index in range(len(data))])
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield images[torch.randint(len(images), [count], generator=generator)]


def train(words: Mapping[str, Any], data: Path, seconds: float, seed: int) -> Trainer:
    """Train for so many seconds of the CPU."""
    options = options_of({**COMMON, **words, "data": str(data), "seed": seed})
    config = resolve(options, probe_dataset(options))
    world = World(0, 1, torch.device("cpu"))
    dataset = ImageFolderDataset(str(data))
    trainer = Trainer(config, dataset, world, Watchdog(world, 600, lambda *_: None))
    count = config.batch * trainer.system.real_batches
    began = time.process_time()
    for real in batches(dataset, count, seed):
        trainer.train_step(real, torch.zeros(count, 0))
        if time.process_time() - began >= seconds:
            break
    return trainer


def count_modes(modes: torch.Tensor) -> tuple[int, float]:
    """Of the modes [N] of images: how many there are, and KL(their frequencies | equal ones)."""
    frequency = torch.bincount(modes, minlength=MODES).double() / len(modes)
    return int((frequency > 0).sum()), float(torch.special.xlogy(frequency, frequency * MODES).sum())


def compare(minutes: float, seeds: list[int], generated: int, systems: list[str]) -> Iterator[dict[str, Any]]:
    """A line for each system and seed, and one for the real images."""
    pictures, classes = read_fashion(20000)
    classifier, accuracy = train_classifier(pictures, classes)
    images, modes = stack(pictures, classes, 10000, seed=0)
    seen = classifier.modes(torch.from_numpy(images[:generated]).permute(0, 3, 1, 2))
    found, divergence = count_modes(seen)
    right = float((seen.numpy() == modes[:generated]).mean())
    yield {"system": "real images", "accuracy": accuracy, "right": right, "modes": found, "KL": divergence}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "stacked.zip"
        write_zip(images, data)
        for seed in seeds:
            for system in systems:
                trainer = train(SYSTEMS[system], data, minutes * 60, seed)
                G = trainer.G_ema.eval()
                samples = Samples(G, random_labels(G, None, seed), seed=seed, batch=100)
                made = torch.cat([samples.images(which) for which in samples.chunks(generated)])[:generated]
                found, divergence = count_modes(classifier.modes(made))
                yield {"system": system, "seed": seed, "minutes": minutes, "kimg": trainer.nimg / 1000,
                       "modes": found, "KL": divergence}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0, help="of the CPU, for each system and seed")
    parser.add_argument("--seeds", default="0", help="such as 0,1,2")
    parser.add_argument("--generated", type=int, default=2500, help="images to look at")
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    said = parser.parse_args()
    if not FASHION.is_file():
        sys.exit(f"{FASHION} is not there; it is Debian's package dataset-fashion-mnist")
    device_for_work("cpu")  # as many threads as others leave CPUs
    seeds = [int(seed) for seed in said.seeds.split(",")]
    for line in compare(said.minutes, seeds, said.generated, said.systems.split(",")):
        print(json.dumps({name: round(v, 3) if isinstance(v, float) else v for name, v in line.items()}), flush=True)


if __name__ == "__main__":
    main()
