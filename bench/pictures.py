"""How good and how different the pictures of a run are: `python -m bench.pictures RUN ... [--last=2] [--json=FILE]`.

For each of the last snapshots 500 pictures, the same latents for every snapshot, against all of the run's real images:

    fd0, fd1   Frechet distance of EfficientNet-Lite0's features (`fd_efflite500_full`), of EfficientNet-Lite1's
    fwd        Frechet wavelet distance of the pixels (`fwd500_full`); fewer pictures than 768 make it larger
    coverage   share of the real images with a picture nearer than their fifth neighbour among the real ones
    spread     mean distance between two pictures, relative to the mean distance between two real images

A projected discriminator looks through EfficientNet-Lite0, so its distance flatters Projected GANs; no recipe of sg3
that judges by itself looks through Lite1, in whose features `coverage` and `spread` are. `pixels` is the spread of
plain pixels, averaged over blocks so that eight by eight are left.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F

from sg3.data.dataset import ImageFolderDataset
from sg3.device import device_for_work
from sg3.formats import averaged_generator, load
from sg3.metrics.detectors import open_detector
from sg3.metrics.functional import density_coverage, frechet_distance
from sg3.metrics.real_images import RealImages
from sg3.metrics.samples import Samples, random_labels
from sg3.metrics.views import over_colour, seen
from sg3.metrics.wavelets import PacketMoments, packet_distance
from sg3.run_folder import kimg_of, snapshots
from sg3.transparency import has_alpha

COUNT = 500
NEIGHBOUR = 5
THUMBNAIL = 8  # pixels


@dataclass(frozen=True)
class Judgement:
    """What this module's docstring lists, of one snapshot."""

    run: str
    kimg: int
    fd0: float
    fd1: float
    fwd: float
    coverage0: float
    coverage: float
    spread: float
    pixels: float


class Judge:
    """Compares pictures with one set of real images."""

    def __init__(self, real: torch.Tensor) -> None:
        """`real`: uint8 [N, C, R, R]."""
        self.networks = [open_detector("efflite"), open_detector("lite1")]
        self.real = real
        self.real_features = self.features(real)
        self.real_packets = PacketMoments.of(real)

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """[N, 1280] of both networks."""
        parts = [[network.features(part) for part in images.split(64)] for network in self.networks]
        return [torch.cat(found) for found in parts]

    def numbers(self, made: torch.Tensor) -> dict[str, float]:
        """Everything about these pictures, uint8 [N, C, R, R]."""
        (real0, real1), (made0, made1) = self.real_features, self.features(made)
        return {
            "fd0": frechet_distance(real0, made0),
            "fd1": frechet_distance(real1, made1),
            "fwd": packet_distance(self.real_packets, PacketMoments.of(made)),
            "coverage0": density_coverage(real0, made0, k=NEIGHBOUR)[1],
            "coverage": density_coverage(real1, made1, k=NEIGHBOUR)[1],
            "spread": mean_distance(made1) / mean_distance(real1),
            "pixels": mean_distance(thumbnails(made)) / mean_distance(thumbnails(self.real)),
        }


def thumbnails(images: torch.Tensor) -> torch.Tensor:
    """uint8 [N, C, R, R] -> means over blocks, [N, C * 64]."""
    return F.adaptive_avg_pool2d(images.float() / 255, THUMBNAIL).flatten(1)


def mean_distance(rows: torch.Tensor) -> float:
    """Between two different rows of [N, D]."""
    rows = rows.double() - rows.double().mean(dim=0)  # distances stay, and lose less to cancellation
    return float(torch.cdist(rows, rows).sum() / (len(rows) * (len(rows) - 1)))


def real_images(data: ImageFolderDataset) -> torch.Tensor:
    """All of them, uint8 [N, C, R, R]."""
    return torch.stack([torch.from_numpy(data[index][0]) for index in range(len(data))])


def on_white(images: torch.Tensor) -> torch.Tensor:
    """Images with alpha as they look on white, uint8 [N, 3, R, R]; others as they are."""
    return seen(images, over_colour("white")) if has_alpha(images.shape[1]) else images


def judge(run: Path, last: int, known: dict[Path, Judge]) -> Iterator[Judgement]:
    """The last snapshots of a run, the oldest first. `known` keeps what is computed of each data set."""
    for path in snapshots(run)[-last:]:
        snapshot = load(path)
        G = averaged_generator(snapshot, path).eval().requires_grad_(False)
        dataset = RealImages.from_kwargs(snapshot.training_set_kwargs or {})
        data = dataset.open()
        if dataset.path not in known:
            known[dataset.path] = Judge(on_white(real_images(data)))
        samples = Samples(G, random_labels(G, data, 0), seed=0, batch=20)
        made = torch.cat([samples.images(which) for which in samples.chunks(COUNT)])[:COUNT]
        yield Judgement(run.name, kimg_of(path.name) or 0, **known[dataset.path].numbers(on_white(made)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--last", type=int, default=2, help="snapshots of each run, the newest ones")
    parser.add_argument("--json", type=Path, help="write the numbers to this file, too")
    said = parser.parse_args()
    device_for_work("cpu")  # as many threads as others leave CPUs
    known: dict[Path, Judge] = {}
    found = []
    print("  ".join(f"{field.name:>9s}" for field in fields(Judgement)[1:]))
    for run in said.runs:
        print(run.name)
        for judgement in judge(run, said.last, known):
            found.append(asdict(judgement))
            values = [f"{v:9d}" if isinstance(v, int) else f"{v:9.3f}" for v in found[-1].values() if v != run.name]
            print("  ".join(values), flush=True)
    if said.json:
        said.json.write_text("".join(json.dumps(line) + "\n" for line in found))


if __name__ == "__main__":
    main()
