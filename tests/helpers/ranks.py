"""One rank of a small run; test_distributed starts two of them: python -m tests.helpers.ranks DATA FOLDER [larger]."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from sg3.data.dataset import ImageFolderDataset
from sg3.errors import NumericalError
from sg3.processes import World, join
from sg3.train.config import TrainConfig
from sg3.train.consistency import check_consistency
from sg3.train.feed import real_batches
from sg3.train.state import save_state
from sg3.train.trainer import Trainer
from sg3.train.watchdog import Watchdog
from tests.helpers.runs import facts, tiny_config
from tests.helpers.tiny_systems import projected_config, r3gan_config

STEPS = 10


def configurations(data: str) -> dict[str, TrainConfig]:
    """Every kind of network and randomness: ADA at a fixed strength, layer noise, style mixing, labels, path length."""
    common = {"batch": 8, "batch_gpu": 2, "mirror": True}
    labels = facts(path=data, label_dim=3, has_labels=True)
    return {
        "r3gan": r3gan_config(data, labels, cond=True, **common),
        "stylegan3-r": tiny_config(data, cfg="stylegan3-r", aug="fixed", p=0.7, **common),
        "stylegan2": tiny_config(data, labels, cfg="stylegan2", cond=True, aug="ada", target=0.5, **common),
    }


def larger_configurations(data: str) -> dict[str, TrainConfig]:
    """What takes longer: a projected discriminator. The data is of 32 x 32."""
    labels = facts(path=data, resolution=32, label_dim=3, has_labels=True)
    common = {"batch": 8, "batch_gpu": 2, "mirror": True}
    return {"fastgan": projected_config(data, labels, cond=True, aug="ada", target=0.5, gamma=0.1, **common)}


def train(world: World, config: TrainConfig, folder: Path, steps: int = STEPS) -> Trainer:
    """Train from the beginning and save the state."""
    trainer = Trainer(
        config, ImageFolderDataset(config.dataset.path, use_labels=config.cond, xflip=config.mirror), world,
        Watchdog(World(0, 1, world.device), 60, lambda *_: None),
    )  # fmt: skip
    batches = real_batches(
        trainer.dataset, batch=trainer.local_batch, seed=config.seed, start=0, workers=0, pin_memory=False,
        rank=world.rank, ranks=world.size,
    )  # fmt: skip
    for _ in range(steps):
        taken = [next(batches) for _ in range(trainer.system.real_batches)]
        trainer.train_step(*(torch.cat(parts) for parts in zip(*taken, strict=True)))
    state = trainer.state_dict()
    if world.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        save_state(folder, state)
    return trainer


def inject_nan(trainer: Trainer, world: World) -> dict[str, tuple[int, int]]:
    """One step in which rank 1 alone meets NaN: in G's mapping network, or in D's logits where G has none."""
    place = getattr(getattr(trainer.G, "mapping", None), "fc0", trainer.D)
    hook = place.register_forward_hook(lambda _m, _i, out: out * float("nan"))
    if world.rank == 0:
        hook.remove()
    n, size = trainer.local_batch * trainer.system.real_batches, trainer.config.dataset.resolution
    trainer.train_step(torch.zeros(n, 3, size, size, dtype=torch.uint8), torch.zeros(n, 3))
    hook.remove()
    return {found.phase: (found.longest, found.count) for found in trainer.bad_steps.look()}


def main(data: str, folder: Path, larger: bool) -> None:
    torch.set_num_threads(1)
    world = join("cpu", None)
    report: dict[str, object] = {}
    if larger:
        for name, config in larger_configurations(data).items():
            trainer = train(world, config, folder / name, steps=1)
            check_consistency(world, {"G": trainer.G, "D": trainer.D})
            report[name] = world.gather(inject_nan(trainer, world))
            check_consistency(world, trainer.networks)
        if world.is_main:
            torch.save(report, folder / "report.pt")
        world.close()
        return
    for name, config in configurations(data).items():
        trainer = train(world, config, folder / name)
        if name == "r3gan":
            report[name] = world.gather(inject_nan(trainer, world))
            check_consistency(world, trainer.networks)
    modules = {"G": trainer.G, "D": trainer.D}
    check_consistency(world, modules)
    skipped = inject_nan(trainer, world)
    report["skipped"] = world.gather(skipped)
    check_consistency(world, modules)
    report["finite"] = all(bool(t.isfinite().all()) for t in trainer.G_ema.state_dict().values())
    with torch.no_grad():
        trainer.D.b4.fc.bias[1] += world.rank
    try:
        check_consistency(world, modules)
    except NumericalError as error:
        report["drifted"] = str(error)
    if world.is_main:
        torch.save(report, folder / "report.pt")
    world.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), larger="larger" in sys.argv[3:])
