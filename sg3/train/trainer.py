"""One step of training, whatever the system, and everything that lives from step to step.

A step shows the discriminator one batch of real images and runs every phase that is due; which phases there are, on
which networks, is the recipe's (`sg3.train.recipes`). The batch is made of micro-batches of `--batch-gpu` images:
micro-batch k always holds the samples k * batch_gpu ... of the step, whichever rank computes it, so the number of ranks
changes nothing but the order of sums.

Nothing here waits for the device: whether a step was good stays there, as a flag that the optimiser obeys.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sg3.data.dataset import ImageFolderDataset
from sg3.device import upload
from sg3.models import Discriminator, Generator
from sg3.processes import World
from sg3.randomness import host_rng, latents, random_indices, seed_torch
from sg3.train.augmentation import Augmentation
from sg3.train.bad_steps import BadSteps
from sg3.train.compiled import reserve_gradients
from sg3.train.config import TrainConfig
from sg3.train.ema import update_ema
from sg3.train.log import Stats
from sg3.train.power_ema import PowerAverages
from sg3.train.recipes import recipe_of
from sg3.train.recipes.system import MicroBatch, Phase, System
from sg3.train.reduce import GradientReducer, RunningMeans
from sg3.train.timing import PhaseTimer
from sg3.train.watchdog import Watchdog
from sg3.transparency import network_values

COUNTERS = ("nimg", "step", "tick", "tick_start_nimg", "tick_start_seconds", "seconds")


class Trainer:
    """Networks, optimisers, counters; `train_step` moves all of them on by one batch. Nobody else changes a counter."""

    def __init__(self, config: TrainConfig, dataset: ImageFolderDataset, world: World, watchdog: Watchdog) -> None:
        self.config = config
        self.dataset = dataset
        self.world = world
        self.watchdog = watchdog
        self.device = world.device
        self.stats = Stats()
        self.timer = PhaseTimer(self.device)
        self.augmentation = Augmentation(config, world)
        self.system: System = recipe_of(config.cfg).build_system(
            config, self.device, self.stats, self.augmentation.watch
        )
        self.G_ema = copy.deepcopy(self.G).eval()
        self.power_averages: PowerAverages | None = None
        if config.posthoc_ema and world.is_main:  # who writes the files
            self.power_averages = PowerAverages(self.G)
        reducers = {p.network: GradientReducer(list(p.module.parameters()), world) for p in self.phases if p.is_main}
        self.reducers = {phase.name: reducers[phase.network] for phase in self.phases}
        self.running_means = {phase.name: RunningMeans(phase.means, world) for phase in self.phases}
        self.bad_steps = BadSteps([phase.name for phase in self.phases], self.device)

        self.nimg = 0  # real images shown so far
        self.step = 0
        self.tick = 0
        self.tick_start_nimg = 0
        self.tick_start_seconds = 0.0
        self.seconds = 0.0  # of training, over all lives of the run
        self.last_tick: dict[str, dict[str, float]] = {}  # on rank 0: statistics of the tick that ended last

    @property
    def G(self) -> Generator:
        """The generator that is trained."""
        return self.system.G

    @property
    def D(self) -> Discriminator:
        """The discriminator."""
        return self.system.D

    @property
    def phases(self) -> Sequence[Phase]:
        """The phases of a step, in their order."""
        return self.system.phases

    @property
    def networks(self) -> dict[str, nn.Module]:
        """What is trained and what is kept, by the names that files use."""
        return {"G": self.G, "D": self.D, "G_ema": self.G_ema}

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """By the name of their network."""
        return {phase.network: phase.optimizer for phase in self.phases}

    @property
    def local_batch(self) -> int:
        """How many of a step's images this rank computes."""
        return self.config.batch // self.world.size

    # ---- one step ---------------------------------------------------------------------------------------------------

    def train_step(self, real: torch.Tensor, real_c: torch.Tensor) -> None:
        """Run the phases that are due on this rank's part of a batch: uint8 images, labels; advance the counters.

        A system that takes several batches of real images a step gets them one after the other in both arguments.
        """
        real = network_values(real.to(self.device, non_blocking=True))
        real_c = real_c.to(self.device, non_blocking=True) if self.config.cond else real_c[:, :0].to(self.device)
        self.system.begin_step(self.nimg)
        self.augmentation.begin_step(self.system.augment_p(self.nimg))
        reals = list(zip(real.split(self.local_batch), real_c.split(self.local_batch), strict=True))
        for phase in self.phases:
            if self.step % phase.interval == 0:
                self.timer.start(phase.name)
                self.run_phase(phase, *reals[phase.reals])
                self.timer.stop(phase.name)
        update_ema(self.G_ema, self.G, self.system.ema_beta(self.nimg))
        if self.power_averages is not None:
            self.power_averages.update(self.nimg, self.nimg + self.config.batch)
        self.augmentation.step_done(self.step)
        self.nimg += self.config.batch
        self.step += 1
        self.watchdog.step_done()

    def run_phase(self, phase: Phase, real: torch.Tensor, real_c: torch.Tensor) -> torch.Tensor:
        """Accumulate the phase's gradient over micro-batches and ranks and take its optimiser step.

        Returns whether the gradient was finite, a boolean on the device; if it was not, nothing has been changed.
        """
        c = self.config
        reducer, means = self.reducers[phase.name], self.running_means[phase.name]
        phase.optimizer.zero_grad(set_to_none=True)
        if c.compile == "graphs" and phase.is_main:
            reserve_gradients(phase.module)
        phase.module.requires_grad_(True)
        means.start()
        for start in range(0, self.local_batch, c.batch_gpu):
            mb = self.micro_batch(phase, start, real, real_c)
            for term in phase.terms:
                if c.compile == "graphs":
                    torch.compiler.cudagraph_mark_step_begin()  # of the term before, only gradients live on
                if start + c.batch_gpu == self.local_batch and term is phase.terms[-1]:
                    reducer.arm()
                loss = term(mb).mean() * (phase.interval * c.batch_gpu / c.batch)
                (loss if phase.scaler is None else loss * phase.scaler.scale).backward()
            means.next_pass()
        phase.module.requires_grad_(False)
        self.watchdog.beat()
        reducer.finish()

        grads = [p.grad for p in phase.module.parameters() if p.grad is not None]
        if phase.scaler is not None:
            phase.scaler.unscale(grads)
        norm = torch.nn.utils.get_total_norm(grads)
        good = norm.isfinite()
        means.finish(good)
        if self.world.is_main:  # the same on all ranks
            self.stats.report(f"Gradient/norm/{phase.name}", norm)
        excused = None
        if phase.scaler is not None:
            if self.world.is_main and phase.scaler.is_dynamic:
                self.stats.report(f"Gradient/scale/{phase.name}", phase.scaler.scale)
            excused = phase.scaler.step_done(good)
        self.bad_steps.take_step(phase.name, phase.optimizer, good, excused)
        return good

    def micro_batch(self, phase: Phase, start: int, real: torch.Tensor, real_c: torch.Tensor) -> MicroBatch:
        """Samples start ... start + batch_gpu of this rank's part; all they need follows from their global index."""
        c = self.config
        first = self.nimg + self.world.rank * self.local_batch + start
        seed_torch(c.seed, phase.name, first)
        return MicroBatch(
            real=real[start : start + c.batch_gpu],
            real_c=real_c[start : start + c.batch_gpu],
            z=upload(latents(c.seed, f"z/{phase.name}", first, c.batch_gpu, c.z_dim), self.device),
            c=self.labels(phase.name, first, c.batch_gpu),
            rng=host_rng(c.seed, f"mix/{phase.name}", first),
            nimg=self.nimg,
            augment=lambda images, term: self.augmentation.apply(images, f"{phase.name}/{term}", first),
            rngs=lambda purpose: [
                host_rng(c.seed, f"{purpose}/{phase.name}", first + i) for i in range(c.batch_gpu)
            ],
        )

    def labels(self, purpose: str, first: int, count: int) -> torch.Tensor:
        """Labels [count, c_dim] for generated images: those of random real images."""
        if self.config.dataset.label_dim == 0:
            return torch.zeros(count, 0, device=self.device)
        picks = random_indices(self.config.seed, f"c/{purpose}", first, count, len(self.dataset))
        return upload(torch.stack([torch.from_numpy(self.dataset.get_label(i)) for i in picks]), self.device)

    # ---- what lives on ----------------------------------------------------------------------------------------------

    def count_seconds(self, seconds: float) -> None:
        """So much more time has gone into training."""
        self.seconds += seconds

    def end_tick(self, statistics: dict[str, dict[str, float]]) -> None:
        """A tick is over, with these statistics on rank 0, and the next one begins."""
        self.tick += 1
        self.tick_start_nimg, self.tick_start_seconds = self.nimg, self.seconds
        self.last_tick = statistics

    @property
    def is_at_tick_end(self) -> bool:
        """Whether nothing has been trained since a tick ended."""
        return self.tick > 0 and self.nimg == self.tick_start_nimg

    @property
    def is_over(self) -> bool:
        """Whether the run has its images, or has had its time by this rank's clock."""
        c = self.config
        return self.nimg >= c.kimg * 1000 or (c.minutes is not None and self.seconds >= c.minutes * 60)

    def state_dict(self) -> dict[str, Any]:
        """Everything that determines the rest of the run. Randomness needs no entry: see sg3.randomness.

        All ranks call it together. Statistics of the unfinished tick are added up, for whoever goes on with another
        number of processes, and also kept by rank: sums in another order have other last digits.
        """
        stats = {name: sums.cpu() for name, sums in self.stats.added_up(self.world).items()}
        by_rank = self.world.gather(self.stats.state_dict()) if self.world.size > 1 else []
        return {
            **{name: getattr(self, name) for name in COUNTERS},
            "config": self.config.to_dict(), "bad_steps": self.bad_steps.state_dict(),
            **{name: network.state_dict() for name, network in self.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            **self.system.state_dict(), **self.augmentation.state_dict(), "stats": stats,
            "stats_by_rank": by_rank, "last_tick": self.last_tick,
            **({} if self.power_averages is None else {"power_averages": self.power_averages.state_dict()}),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`'s result. Learning rates stay those of the configuration."""
        for name in COUNTERS:
            setattr(self, name, state[name])
        for name, network in self.networks.items():
            network.load_state_dict(state[name])
        for name, optimizer in self.optimizers.items():
            fresh = [(group["lr"], group["betas"]) for group in optimizer.param_groups]
            optimizer.load_state_dict(state["optimizers"][name])
            for group, (lr, betas) in zip(optimizer.param_groups, fresh, strict=True):
                group["lr"], group["betas"] = lr, betas
            lay_out_like_parameters(optimizer)
        self.bad_steps.load_state_dict(state["bad_steps"])
        self.system.load_state_dict(state)
        self.augmentation.load_state_dict(state)
        if self.power_averages is not None:
            self.power_averages.load_state_dict(state["power_averages"])
        by_rank = state.get("stats_by_rank", [])  # (which states before 0.2 have not)
        if len(by_rank) == self.world.size > 1:
            self.stats.load_state_dict(by_rank[self.world.rank], self.device)
        elif self.world.is_main:
            self.stats.load_state_dict(state["stats"], self.device)
        if self.world.is_main:
            self.last_tick = state.get("last_tick", {})  # (which states of 31a3443 have not)


def lay_out_like_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Give moments the memory format of their parameters, which `--nhwc` may have changed since they were saved.

    A fused optimiser walks through both as they lie in memory and would pair the wrong elements.
    """
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                values[name] = torch.empty_like(parameter).copy_(value)
