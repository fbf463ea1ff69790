"""The training loop of StyleGAN2 and StyleGAN3, from the first step or from a saved state.

Each step shows the discriminator one batch of real images and runs every phase that is due: Gmain and Greg (path
length, StyleGAN2) or Gboth, then Dmain and Dreg (R1); see `sg3.train.phases`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sg3.data.dataset import ImageFolderDataset
from sg3.errors import NumericalError, TrainingStopped
from sg3.formats import Snapshot, save
from sg3.train.config import TrainConfig
from sg3.train.display import Display
from sg3.train.ema import ema_beta, update_ema
from sg3.train.feed import real_batches
from sg3.train.grid import Grid
from sg3.train.log import Stats, StatsWriter, Tick, memory_usage
from sg3.train.loss import Loss, MicroBatch
from sg3.train.phases import Phase, build_networks, build_phases
from sg3.train.randomness import host_rng, latents, random_indices, seed_torch
from sg3.train.state import save_state

MAX_BAD_STEPS = 10  # steps in a row without a finite gradient after which there is nothing left to save
STATE_MINUTES = 15  # a state is written with every snapshot, and at least this often


class Trainer:
    """The parts of a run that live from step to step, and the loop over them."""

    def __init__(
        self, config: TrainConfig, dataset: ImageFolderDataset, run_dir: Path, device: torch.device, display: Display
    ) -> None:
        self.config = config
        self.dataset = dataset
        self.run_dir = run_dir
        self.device = device
        self.display = display
        self.stats = Stats()
        self.G, self.D = build_networks(config, device)
        self.G_ema = copy.deepcopy(self.G).eval()
        self.loss = Loss(
            self.G, self.D, self.stats, r1_gamma=config.gamma, style_mixing_prob=config.style_mixing_prob,
            pl_weight=config.pl_weight, pl_batch_shrink=config.pl_batch_shrink, pl_decay=config.pl_decay, device=device,
        )  # fmt: skip
        self.phases = build_phases(config, self.G, self.D, self.loss)
        self.grid = Grid(
            dataset, config.grid, z_dim=config.z_dim, label_dim=config.dataset.label_dim, seed=config.seed
        )
        self.nimg = 0  # real images shown so far
        self.step = 0
        self.tick = 0
        self.tick_start_nimg = 0
        self.tick_start_seconds = 0.0
        self.seconds = 0.0  # of training, over all lives of the run
        self.bad_steps: dict[str, int] = {}  # in a row, by phase
        self.finished = False

    # ---- one step ---------------------------------------------------------------------------------------------------

    def train_step(self, real: torch.Tensor, real_c: torch.Tensor) -> None:
        """Run the phases that are due on one batch of uint8 images and labels, and advance the counters."""
        real = real.to(self.device, non_blocking=True).to(torch.float32) / 127.5 - 1
        real_c = real_c.to(self.device, non_blocking=True) if self.config.cond else real_c[:, :0].to(self.device)
        for phase in self.phases:
            if self.step % phase.interval == 0:
                good = self.run_phase(phase, real, real_c)
                self.bad_steps[phase.name] = 0 if good else self.bad_steps.get(phase.name, 0) + 1
                if self.bad_steps[phase.name] >= MAX_BAD_STEPS:
                    raise NumericalError(
                        f"{self.run_dir}: {MAX_BAD_STEPS} steps of {phase.name} in a row without a finite gradient, at "
                        f"{self.nimg} images; try a larger --gamma or smaller --glr and --dlr"
                    )
        beta = ema_beta(self.config.batch, self.nimg, self.config.ema_kimg, self.config.ema_rampup)
        update_ema(self.G_ema, self.G, beta)
        self.nimg += self.config.batch
        self.step += 1

    def run_phase(self, phase: Phase, real: torch.Tensor, real_c: torch.Tensor) -> bool:
        """Accumulate the phase's gradient over micro-batches and take its optimiser step, unless it is not finite."""
        c = self.config
        phase.optimizer.zero_grad(set_to_none=True)
        phase.module.requires_grad_(True)
        for start in range(0, c.batch, c.batch_gpu):
            first = self.nimg + start  # global index of the micro-batch's first sample
            seed_torch(c.seed, phase.name, first)
            mb = MicroBatch(
                real=real[start : start + c.batch_gpu],
                real_c=real_c[start : start + c.batch_gpu],
                z=latents(c.seed, f"z/{phase.name}", first, c.batch_gpu, c.z_dim).to(self.device),
                c=self.labels(phase.name, first, c.batch_gpu),
                rng=host_rng(c.seed, f"mix/{phase.name}", first),
                blur_sigma=self.blur_sigma(),
            )
            weight = phase.interval * c.batch_gpu / c.batch
            for term in phase.terms:
                (term(mb).mean() * weight).backward()
        phase.module.requires_grad_(False)

        grads = [p.grad for p in phase.module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        if not torch.isfinite(norm):
            # One bad batch must not end a run, but it must not go unseen either.
            self.stats.report(f"Gradient/skipped/{phase.name}", 1.0)
            self.display.message(f"warning: {phase.name} at {self.nimg} images: gradient is not finite, step skipped")
            return False
        self.stats.report(f"Gradient/norm/{phase.name}", norm)
        phase.optimizer.step()
        return True

    def labels(self, purpose: str, first: int, count: int) -> torch.Tensor:
        """Labels [count, c_dim] for generated images: those of random real images."""
        if self.config.dataset.label_dim == 0:
            return torch.zeros(count, 0, device=self.device)
        picks = random_indices(self.config.seed, f"c/{purpose}", first, count, len(self.dataset))
        return torch.stack([torch.from_numpy(self.dataset.get_label(i)) for i in picks]).to(self.device)

    def blur_sigma(self) -> float:
        """Width in pixels of the blur in front of D; fades to 0 over the first images of configuration R."""
        c = self.config
        if c.blur_init_sigma == 0 or c.blur_fade_kimg == 0:
            return 0.0
        return max(1 - self.nimg / (c.blur_fade_kimg * 1000), 0) * c.blur_init_sigma

    # ---- the loop ---------------------------------------------------------------------------------------------------

    def run(self, stop_reason: Callable[[], str | None]) -> None:
        """Train to the end. Raises TrainingStopped, with the state saved, when `stop_reason` gives one."""
        c = self.config
        batches = real_batches(
            self.dataset, batch=c.batch, seed=c.seed, start=self.nimg, workers=c.workers,
            pin_memory=self.device.type == "cuda",
        )  # fmt: skip
        writer = StatsWriter(self.run_dir, self.nimg)
        if self.nimg == 0:
            self.grid.save_reals(self.run_dir / "reals.png")
            self.grid.save_fakes(self.G_ema, self.run_dir / "fakes_init.png", c.batch_gpu)
        clock = time.monotonic()
        maintenance, shown, saved = 0.0, 0.0, clock
        while not self.finished:
            real, real_c = next(batches)
            self.train_step(real, real_c)
            now = time.monotonic()
            self.seconds += now - clock
            clock = now
            out_of_time = c.minutes is not None and self.seconds >= c.minutes * 60
            self.finished = self.nimg >= c.kimg * 1000 or out_of_time
            if now - shown > 0.5:
                shown = now
                losses = {name: self.stats.mean(f"Loss/{name}/loss") for name in "GD"}
                self.display.progress(self.nimg, losses)

            if self.finished or self.tick == 0 or self.nimg >= self.tick_start_nimg + c.tick * 1000:
                snap = self.finished or self.tick % c.snap == 0
                if snap:
                    self.save_snapshot()
                self.report_tick(writer, maintenance)
                self.tick += 1
                self.tick_start_nimg, self.tick_start_seconds = self.nimg, self.seconds
                if snap:
                    save_state(self.run_dir, self.state_dict())
                    saved = time.monotonic()
                clock = time.monotonic()
                maintenance = clock - now
            elif now - saved > STATE_MINUTES * 60:
                save_state(self.run_dir, self.state_dict())
                saved = clock = time.monotonic()
            if not self.finished and (reason := stop_reason()):
                path = save_state(self.run_dir, self.state_dict())
                raise TrainingStopped(f"{reason}: stopped at {self.nimg / 1000:.2f} kimg, state saved in {path}")

    def report_tick(self, writer: StatsWriter, maintenance: float) -> None:
        """Write the statistics of the tick and its status line."""
        images, seconds = self.nimg - self.tick_start_nimg, self.seconds - self.tick_start_seconds
        tick = Tick(self.tick, self.nimg, images, self.seconds, seconds, maintenance)
        memory = memory_usage(self.device)
        for name, value in {**tick.statistics(), **memory}.items():
            self.stats.report(name, value)
        writer.write(self.stats.flush(), self.nimg)
        left = self.display.remaining(self.nimg) if self.tick > 0 and not self.finished else None
        self.display.message(tick.line(memory, left))

    # ---- files ------------------------------------------------------------------------------------------------------

    def save_snapshot(self) -> None:
        """Write the image grid and the networks."""
        c, d = self.config, self.config.dataset
        kimg = self.nimg // 1000
        self.grid.save_fakes(self.G_ema, self.run_dir / f"fakes{kimg:06d}.png", c.batch_gpu)
        G, D, G_ema = (copy.deepcopy(m).eval().requires_grad_(False).cpu() for m in (self.G, self.D, self.G_ema))
        facts = {
            "path": d.path, "use_labels": c.cond, "max_size": c.subset or d.size, "xflip": c.mirror,
            "resolution": d.resolution, "random_seed": c.seed,
        }  # fmt: skip
        snapshot = Snapshot(G=G, D=D, G_ema=G_ema, augment_pipe=None, training_set_kwargs=facts)
        save(snapshot, self.run_dir / f"network-snapshot-{kimg:06d}.pkl")

    def state_dict(self) -> dict[str, Any]:
        """Everything that determines the rest of the run. Randomness needs no entry: see sg3.train.randomness."""
        optimizers = {phase.name[0]: phase.optimizer.state_dict() for phase in self.phases}
        return {
            "fingerprint": self.config.fingerprint(), "nimg": self.nimg, "step": self.step, "tick": self.tick,
            "tick_start_nimg": self.tick_start_nimg, "tick_start_seconds": self.tick_start_seconds,
            "seconds": self.seconds, "bad_steps": dict(self.bad_steps),
            "G": self.G.state_dict(), "D": self.D.state_dict(), "G_ema": self.G_ema.state_dict(),
            "optimizers": optimizers, "pl_mean": self.loss.pl_mean, "stats": self.stats.state_dict(),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`'s result."""
        for name in ("nimg", "step", "tick", "tick_start_nimg", "tick_start_seconds", "seconds", "bad_steps"):
            setattr(self, name, state[name])
        for name in ("G", "D", "G_ema"):
            getattr(self, name).load_state_dict(state[name])
        for phase in self.phases:
            if phase.name.endswith(("main", "both")):
                phase.optimizer.load_state_dict(state["optimizers"][phase.name[0]])
        self.loss.pl_mean.copy_(state["pl_mean"])
        self.stats.load_state_dict(state["stats"], self.device)
