"""When something is due: what the loop tells its parts after each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Moment:
    """A step is over; the same on all ranks but for `now`, the time in seconds of a clock that only runs forward.

    `ends_run` and `ends_tick` say what else is over; `snapshot` asks for images, networks and metrics (at the end of
    every `--snap`th tick, and of the run), `state` for a training state because the last one is long ago. `restart`
    says that this life has had its time (`--restart-every`), `asked` that the program has asked it to stop.
    """

    now: float
    step: int
    ends_run: bool
    ends_tick: bool
    snapshot: bool
    state: bool
    restart: bool = False
    asked: bool = False


class Part(Protocol):
    """Something that happens now and then. Each decides by itself whether it is due; all ranks ask and run together."""

    what: str  # what goes on meanwhile, for the live line

    def is_due(self, moment: Moment) -> bool:
        """Whether to run after this step."""

    def run(self, moment: Moment) -> None:
        """Do it."""
