"""Children of `bench.gpu`: whole training steps of a real recipe, each finding one line of JSON on stdout.

    python -m bench.steps cold      the first image and the first step of a process that finds nothing compiled
    python -m bench.steps options   the same steps with one option of `sg3 train` changed at a time
    python -m bench.steps waiting   where the host waits for the GPU during a training cycle
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from sg3.data.dataset import ImageFolderDataset
from sg3.processes import World
from sg3.train.config import DatasetFacts
from sg3.train.recipes import options_of, resolve
from sg3.train.trainer import Trainer
from sg3.train.watchdog import Watchdog

CFGS = ("stylegan3-t", "stylegan3-r", "stylegan2")
CYCLE = 16  # steps, after which every phase has run
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {}, "graphs": {"compile": "graphs"}, "nhwc": {"nhwc": True}, "bf16": {"bf16": True},
    "tf32": {"tf32": True}, "compiled": {"compile": "on"},
    "nhwc, bf16, tf32": {"nhwc": True, "bf16": True, "tf32": True},
}  # fmt: skip


def say(**found: Any) -> None:
    """One finding."""
    print(json.dumps(found), flush=True)


def wait(device: torch.device) -> None:
    """Until everything asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Run:
    """A trainer of StyleGAN3 or 2 on noise, without a run folder."""

    def __init__(self, said: argparse.Namespace, cfg: str, data: Path, **options: Any) -> None:
        self.device = torch.device(said.device)
        facts = DatasetFacts(path=str(data), name="noise", resolution=said.resolution, channels=3, size=8, label_dim=0,
                             has_labels=False, content="")  # fmt: skip
        words = {"cfg": cfg, "batch": said.batch, "mbstd_group": min(4, said.batch), "cbase": said.cbase,
                 "cmax": said.cmax, "aug": "ada", **options}  # fmt: skip
        self.config = resolve(options_of(words), facts)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.config.tf32
        torch.backends.cudnn.benchmark = True
        world = World(0, 1, self.device)
        self.trainer = Trainer(self.config, ImageFolderDataset(str(data)), world, Watchdog(world, 600, lambda *_: None))
        generator = torch.Generator().manual_seed(0)
        shape = (said.batch, 3, said.resolution, said.resolution)
        self.real = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        self.labels = torch.zeros(said.batch, 0)

    def step(self) -> float:
        """One training step; seconds until the device has done it."""
        began = time.perf_counter()
        self.trainer.train_step(self.real, self.labels)
        wait(self.device)
        return time.perf_counter() - began


def noise_dataset(folder: str, resolution: int) -> Path:
    """Eight images of noise, as a zip."""
    path = Path(folder) / "noise.zip"
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(8):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (resolution, resolution, 3), dtype=np.uint8)).save(buffer, "PNG")
            archive.writestr(f"img{index:08d}.png", buffer.getvalue())
    return path


def cold(said: argparse.Namespace, data: Path) -> None:
    """First and second image, first and second step."""
    for cfg in CFGS[:1] if said.rehearsal else CFGS:
        began = time.perf_counter()
        run = Run(said, cfg, data)
        wait(run.device)
        built = time.perf_counter() - began
        z = torch.randn(1, run.config.z_dim, device=run.device)
        images = []
        for _ in range(2):
            began = time.perf_counter()
            with torch.no_grad():
                run.trainer.G_ema(z, torch.zeros(1, 0, device=run.device))
            wait(run.device)
            images.append(time.perf_counter() - began)
        steps = [run.step() for _ in range(2)]
        names = ("build_s", "first_image_s", "second_image_s", "first_step_s", "second_step_s")
        numbers = (built, *images, *steps)
        say(cfg=cfg, **{name: round(number, 3) for name, number in zip(names, numbers, strict=True)})


def options(said: argparse.Namespace, data: Path) -> None:
    """Images per second of a cycle, by option; what fails says why and the others go on."""
    end = time.monotonic() + said.seconds
    plain: dict[str, float] = {}
    for name, changed in OPTIONS.items():
        if said.rehearsal and name not in ("plain", "graphs", "nhwc"):
            continue
        for cfg in CFGS[:1] if said.rehearsal else (CFGS[0], CFGS[2]):
            if time.monotonic() > end:
                say(cfg=cfg, option=name, skipped="no time left")
                continue
            if changed.get("compile") == "graphs" and said.device == "cpu":
                say(cfg=cfg, option=name, skipped="CUDA graphs need a GPU")
                continue
            try:
                torch._dynamo.reset()
                run = Run(said, cfg, data, **changed)
                began = time.monotonic()
                run.step()
                first = time.monotonic() - began
                for _ in range(2):
                    run.step()
                if run.device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                times = []
                while len(times) < (2 if said.rehearsal else CYCLE) and (len(times) < 2 or time.monotonic() < end):
                    times.append(run.step())
            except Exception as error:
                say(cfg=cfg, option=name, failed=f"{type(error).__name__}: {str(error).splitlines()[0][:200]}")
                continue
            speed = said.batch * len(times) / sum(times)
            plain.setdefault(cfg, speed)
            memory = {"peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2)} if said.device == "cuda" else {}
            say(cfg=cfg, option=name, steps=len(times), img_per_s=round(speed, 2), first_step_s=round(first, 2),
                median_step_ms=round(median(times) * 1e3, 2), vs_plain=round(speed / plain[cfg], 3),
                **memory)  # fmt: skip
            del run


def waiting(said: argparse.Namespace, data: Path) -> None:
    """Every place in a cycle where the host waits, with the lines of sg3 that lead there."""
    for cfg in (CFGS[0], CFGS[2]):
        run = Run(said, cfg, data)
        for _ in range(CYCLE + 1):
            run.step()  # what is prepared once may wait
        places: dict[str, int] = {}

        def note(message: Any, *_: Any, places: dict[str, int] = places, **__: Any) -> None:
            stack = [f"{frame.filename.split('sg3/')[-1]}:{frame.lineno}" for frame in traceback.extract_stack()
                     if "/sg3/" in frame.filename]  # fmt: skip
            if "synchroniz" in str(message):
                key = " < ".join(reversed(stack[-3:]))
                places[key] = places.get(key, 0) + 1

        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for _ in range(CYCLE):
                run.trainer.train_step(run.real, run.labels)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        wait(run.device)
        say(cfg=cfg, steps=CYCLE, waits=places)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.steps", description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["cold", "options", "waiting"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--cbase", type=int, default=16384)
    parser.add_argument("--cmax", type=int, default=512)
    parser.add_argument("--rehearsal", action="store_true", help="a few steps of one network")
    parser.add_argument("--seconds", type=float, default=60.0)
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = noise_dataset(folder, said.resolution)
        {"cold": cold, "options": options, "waiting": waiting}[said.what](said, data)


if __name__ == "__main__":
    sys.exit(main())
