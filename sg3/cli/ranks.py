"""Commands that torchrun or srun starts several times: one piece of work, shared out among all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sg3.processes import World


def may_be_one_of_several() -> bool:
    """Whether torchrun or srun may have started this process, without asking PyTorch, whose import takes seconds."""
    return "RANK" in os.environ or "SLURM_STEP_ID" in os.environ


@contextmanager
def ranks(device: str, gpus: int | None = None) -> Iterator[World]:
    """All processes of this command: those that torchrun or srun started, or this one alone. What goes wrong is said
    once, by rank 0: a step that can fail in one process alone belongs into `World.together`.

    Raises what `sg3.processes.join` raises.
    """
    from sg3.device import device_for_work
    from sg3.errors import Sg3Error
    from sg3.processes import SLOWEST_IN_METRICS, World, find_place, join

    if find_place(os.environ) is None:
        yield World(0, 1, device_for_work(device))
        return
    world = join(device, gpus, SLOWEST_IN_METRICS)
    try:
        yield world
    except Sg3Error as error:
        if world.is_main:
            raise
        raise SystemExit(error.exit_code) from None
    finally:
        world.close()
