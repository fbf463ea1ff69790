"""One step of StyleGAN2 and StyleGAN3 training, and everything that lives from step to step.

A step shows the discriminator one batch of real images and runs every phase that is due: Gmain and Greg (path length,
StyleGAN2) or Gboth, then Dmain and Dreg (R1); see `sg3.train.phases`. The batch is made of micro-batches of
`--batch-gpu` images: micro-batch k always holds the samples k * batch_gpu ... of the step, whichever rank computes it,
so the number of ranks changes nothing but the order of sums.

Nothing here waits for the device: whether a step was good stays there, as a flag that the optimiser obeys.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from sg3.data.dataset import ImageFolderDataset
from sg3.device import upload
from sg3.models.augment import SPECS, AugmentPipe
from sg3.train.adaptive import AdaController
from sg3.train.compiled import compiled, reserve_gradients, warm_up
from sg3.train.config import TrainConfig
from sg3.train.distributed import World
from sg3.train.ema import ema_beta, update_ema
from sg3.train.log import Stats
from sg3.train.loss import Loss, MicroBatch
from sg3.train.phases import Phase, build_networks, build_phases
from sg3.train.randomness import host_rng, latents, random_indices, seed_torch
from sg3.train.reduce import GradientReducer, RunningMeans
from sg3.train.timing import PhaseTimer
from sg3.train.watchdog import Watchdog

COUNTERS = ("nimg", "step", "tick", "tick_start_nimg", "tick_start_seconds", "seconds", "augment_p")


class Trainer:
    """Networks, optimisers, counters; `train_step` moves all of them on by one batch."""

    def __init__(self, config: TrainConfig, dataset: ImageFolderDataset, world: World, watchdog: Watchdog) -> None:
        self.config = config
        self.dataset = dataset
        self.world = world
        self.watchdog = watchdog
        self.device = world.device
        self.stats = Stats()
        self.timer = PhaseTimer(self.device)
        self.G, self.D = build_networks(config, self.device)
        self.G_ema = copy.deepcopy(self.G).eval()
        self.loss = Loss(
            self.G, self.D, self.stats, r1_gamma=config.gamma, style_mixing_prob=config.style_mixing_prob,
            pl_weight=config.pl_weight, pl_batch_shrink=config.pl_batch_shrink, pl_decay=config.pl_decay,
            device=self.device,
            synthesis=compiled(self.G.synthesis, config.compile), discriminator=compiled(self.D, config.compile),
        )  # fmt: skip
        if config.compile == "graphs":
            warm_up(self.G, self.D, config.batch_gpu, self.device)
        self.phases = build_phases(config, self.G, self.D, self.loss)
        reducers = {id(module): GradientReducer(list(module.parameters()), world) for module in (self.G, self.D)}
        self.reducers = {phase.name: reducers[id(phase.module)] for phase in self.phases}
        self.running_means = {phase.name: RunningMeans(phase.means, world) for phase in self.phases}

        self.pipe = AugmentPipe(**dict[str, Any](SPECS[config.augpipe])).requires_grad_(False).to(self.device)
        self.augment_p = config.p
        self.ada = AdaController(config.target, config.batch, config.ada_kimg, config.ada_interval)
        self.ada_signs = torch.zeros(2, device=self.device)  # number and sum of D's signs, of the interval before

        self.nimg = 0  # real images shown so far
        self.step = 0
        self.tick = 0
        self.tick_start_nimg = 0
        self.tick_start_seconds = 0.0
        self.seconds = 0.0  # of training, over all lives of the run
        # By phase: steps without a finite gradient in a row, the longest such row and their number since last asked.
        self.bad_steps = torch.zeros(len(self.phases), 3, dtype=torch.int64, device=self.device)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """What is trained and what is kept, by the names that files use."""
        return {"G": self.G, "D": self.D, "G_ema": self.G_ema}

    @property
    def local_batch(self) -> int:
        """How many of a step's images this rank computes."""
        return self.config.batch // self.world.size

    # ---- one step ---------------------------------------------------------------------------------------------------

    def train_step(self, real: torch.Tensor, real_c: torch.Tensor) -> None:
        """Run the phases that are due on this rank's part of a batch: uint8 images, labels; advance the counters."""
        real = real.to(self.device, non_blocking=True).to(torch.float32) / 127.5 - 1
        real_c = real_c.to(self.device, non_blocking=True) if self.config.cond else real_c[:, :0].to(self.device)
        for index, phase in enumerate(self.phases):
            if self.step % phase.interval == 0:
                self.timer.start(phase.name)
                good = self.run_phase(phase, real, real_c)
                row, longest, count = self.bad_steps[index].unbind()
                row = torch.where(good, 0, row + 1)
                self.bad_steps[index] = torch.stack([row, longest.maximum(row), count + ~good])
                self.timer.stop(phase.name)
        beta = ema_beta(self.config.batch, self.nimg, self.config.ema_kimg, self.config.ema_rampup)
        update_ema(self.G_ema, self.G, beta)
        if self.config.aug == "ada" and self.step % self.config.ada_interval == 0:
            self.adapt_augmentation()
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
                (term(mb).mean() * (phase.interval * c.batch_gpu / c.batch)).backward()
            means.next_pass()
        phase.module.requires_grad_(False)
        self.watchdog.beat()
        reducer.finish()

        grads = [p.grad for p in phase.module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        good = norm.isfinite()
        means.finish(good)
        if self.world.is_main:  # the same on all ranks
            self.stats.report(f"Gradient/norm/{phase.name}", norm)
        # As torch's GradScaler tells a fused optimiser to leave a step out without waiting for the device.
        phase.optimizer.grad_scale, phase.optimizer.found_inf = None, (~good).float()  # type: ignore[attr-defined]
        phase.optimizer.step()
        return good

    def micro_batch(self, phase: Phase, start: int, real: torch.Tensor, real_c: torch.Tensor) -> MicroBatch:
        """Samples start ... start + batch_gpu of this rank's part; all they need follows from their global index."""
        c = self.config
        first = self.nimg + self.world.rank * self.local_batch + start
        seed_torch(c.seed, phase.name, first)

        def augment(images: torch.Tensor, term: str) -> torch.Tensor:
            if c.aug == "noaug":
                return images
            rngs = [host_rng(c.seed, f"aug/{phase.name}/{term}", first + i) for i in range(images.shape[0])]
            chosen = self.pipe.draw(rngs, images.shape[2], images.shape[3], images.shape[1], self.augment_p)
            return self.pipe(images, chosen.to(images.device))

        return MicroBatch(
            real=real[start : start + c.batch_gpu],
            real_c=real_c[start : start + c.batch_gpu],
            z=upload(latents(c.seed, f"z/{phase.name}", first, c.batch_gpu, c.z_dim), self.device),
            c=self.labels(phase.name, first, c.batch_gpu),
            rng=host_rng(c.seed, f"mix/{phase.name}", first),
            blur_sigma=self.blur_sigma(),
            augment=augment,
        )

    def labels(self, purpose: str, first: int, count: int) -> torch.Tensor:
        """Labels [count, c_dim] for generated images: those of random real images."""
        if self.config.dataset.label_dim == 0:
            return torch.zeros(count, 0, device=self.device)
        picks = random_indices(self.config.seed, f"c/{purpose}", first, count, len(self.dataset))
        return upload(torch.stack([torch.from_numpy(self.dataset.get_label(i)) for i in picks]), self.device)

    def blur_sigma(self) -> float:
        """Width in pixels of the blur in front of D; fades to 0 over the first images of configuration R."""
        c = self.config
        if c.blur_init_sigma == 0 or c.blur_fade_kimg == 0:
            return 0.0
        return max(1 - self.nimg / (c.blur_fade_kimg * 1000), 0) * c.blur_init_sigma

    def adapt_augmentation(self) -> None:
        """Move p by what D made of the real images of the interval before the last one.

        One interval late, because p is needed on the host: by now that number has long been computed, and reading it
        stops nothing.
        """
        number, total = self.ada_signs.tolist()
        if number > 0:
            self.augment_p = self.ada.update(self.augment_p, total / number)
        self.ada_signs = self.world.add_up(self.loss.real_signs.clone())
        self.loss.real_signs.zero_()

    # ---- what lives on ----------------------------------------------------------------------------------------------

    def take_bad_steps(self) -> dict[str, tuple[int, int]]:
        """By phase: the longest row of steps without a finite gradient and their number, since last asked."""
        rows = self.bad_steps.tolist()
        self.bad_steps[:, 1:] = 0
        return {phase.name: (row[1], row[2]) for phase, row in zip(self.phases, rows, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """Everything that determines the rest of the run. Randomness needs no entry: see sg3.train.randomness.

        All ranks call it together: statistics are added up, and from then on kept by rank 0.
        """
        self.stats.add_up(self.world)
        signs = self.world.add_up(self.loss.real_signs)
        if not self.world.is_main:
            self.loss.real_signs = torch.zeros_like(signs)
        optimizers = {phase.name[0]: phase.optimizer.state_dict() for phase in self.phases}
        return {
            **{name: getattr(self, name) for name in COUNTERS},
            "config": self.config.to_dict(), "bad_steps": self.bad_steps[:, 0].tolist(),
            **{name: network.state_dict() for name, network in self.networks.items()},
            "optimizers": optimizers, "pl_mean": self.loss.pl_mean, "ada_signs": self.ada_signs,
            "real_signs": signs, "ada_capped": self.ada.capped, "stats": self.stats.state_dict(),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`'s result. Learning rates stay those of the configuration."""
        for name in COUNTERS:
            setattr(self, name, state[name])
        for name, network in self.networks.items():
            network.load_state_dict(state[name])
        for phase in self.phases:
            if phase.is_main:
                fresh = [(group["lr"], group["betas"]) for group in phase.optimizer.param_groups]
                phase.optimizer.load_state_dict(state["optimizers"][phase.name[0]])
                for group, (lr, betas) in zip(phase.optimizer.param_groups, fresh, strict=True):
                    group["lr"], group["betas"] = lr, betas
                lay_out_like_parameters(phase.optimizer)
        if len(state["bad_steps"]) == len(self.phases):  # --gamma=0 has one less
            self.bad_steps[:, 0] = torch.tensor(state["bad_steps"])
        self.loss.pl_mean.copy_(state["pl_mean"])
        self.ada_signs.copy_(state["ada_signs"])
        self.ada.capped = state["ada_capped"]
        if self.config.aug != "ada" or state["config"]["aug"] != "ada":
            self.augment_p = self.config.p
        if self.world.is_main:
            self.loss.real_signs.copy_(state["real_signs"])
            self.stats.load_state_dict(state["stats"], self.device)


def lay_out_like_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Give moments the memory format of their parameters, which `--nhwc` may have changed since they were saved.

    A fused optimiser walks through both as they lie in memory and would pair the wrong elements.
    """
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                values[name] = torch.empty_like(parameter).copy_(value)
