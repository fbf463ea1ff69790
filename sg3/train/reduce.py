"""Sums over all processes: gradients, while they are still being computed, and running means, once per step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sg3.processes import World

BUCKET_BYTES = 8 * 2**20


class GradientReducer:
    """Adds up the gradients of all processes, bucket by bucket, overlapping with the backward pass.

    `arm()` before the last backward pass of a step: from then on a bucket whose gradients are complete is on its way
    while the pass goes on. `finish()` afterwards sends the rest, waits, and puts the sums into `.grad`. Buckets leave
    in the same order everywhere, the parameters' from last to first, which is about the order they are ready in.

    torch's DDP wrapper does the same for one forward and one backward pass; a step here has several of both, on a
    network that is sometimes frozen, and differentiates inside the forward pass (R1, path length).
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], world: World) -> None:
        self._world = world
        self._buckets = _buckets(parameters) if world.size > 1 else []
        self._bucket_of = {p: index for index, bucket in enumerate(self._buckets) for p in bucket}
        self._missing: list[set[torch.nn.Parameter]] = []
        self._sent: list[tuple[torch.Tensor, Any]] = []  # (flat gradients, work)
        self._is_armed = False
        self._has_hooks = False

    def arm(self) -> None:
        """The next backward pass is the last one before `finish`."""
        if not self._has_hooks:  # a parameter takes hooks only while it requires gradients
            for parameter in self._bucket_of:
                parameter.register_post_accumulate_grad_hook(self._ready)
            self._has_hooks = True
        self._missing = [set(bucket) for bucket in self._buckets]
        self._is_armed = True

    def _ready(self, parameter: torch.Tensor) -> None:
        if not self._is_armed:
            return
        assert isinstance(parameter, torch.nn.Parameter)
        self._missing[self._bucket_of[parameter]].discard(parameter)
        while len(self._sent) < len(self._buckets) and not self._missing[len(self._sent)]:
            self._send()

    def _send(self) -> None:
        bucket = self._buckets[len(self._sent)]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket])
        self._sent.append((flat, self._world.begin_to_add_up(flat)))

    def finish(self) -> None:
        """Wait until every `.grad` is the sum over all processes. A parameter that has none keeps none."""
        self._is_armed = False
        while len(self._sent) < len(self._buckets):
            self._send()
        for bucket, (flat, work) in zip(self._buckets, self._sent, strict=True):
            work.wait()
            for parameter, total in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                if parameter.grad is not None:
                    parameter.grad.copy_(total.view_as(parameter))
        self._sent.clear()


def _buckets(parameters: Sequence[torch.nn.Parameter]) -> list[list[torch.nn.Parameter]]:
    buckets: list[list[torch.nn.Parameter]] = [[]]
    size = 0
    for parameter in reversed(parameters):
        if buckets[-1] and size + parameter.nbytes > BUCKET_BYTES:
            buckets.append([])
            size = 0
        buckets[-1].append(parameter)
        size += parameter.nbytes
    return buckets


class RunningMeans:
    """Moves running means once per step, by the mean over all micro-batches of all processes.

    The networks move them once per forward pass. Each pass therefore starts from the step's values, and as
    `mean + (1 - beta) * (value - mean)` is linear in the value, the mean of what the passes made of it is what one pass
    over the whole batch would have made.
    """

    def __init__(self, means: Sequence[torch.Tensor], world: World) -> None:
        self._means = list(means)
        self._world = world
        self._before = torch.empty(0)
        self._total = torch.empty(0)
        self._passes = 0

    def start(self) -> None:
        """The step's values are those of now."""
        if self._means:
            self._before = self._flat()
            self._total = torch.zeros_like(self._before)
        self._passes = 0

    def next_pass(self) -> None:
        """Take note of where a micro-batch has moved the means, and put them back."""
        if self._means:
            self._total += self._flat()
            self._set(self._before)
        self._passes += 1

    def finish(self, good: torch.Tensor) -> None:
        """Set the means, or leave them if the boolean scalar `good` (on the device) is false."""
        if self._means:
            mean = self._world.add_up(self._total) / (self._passes * self._world.size)
            self._set(torch.where(good, mean, self._before))

    def _flat(self) -> torch.Tensor:
        return torch.cat([mean.flatten() for mean in self._means])

    def _set(self, flat: torch.Tensor) -> None:
        for mean, values in zip(self._means, flat.split([mean.numel() for mean in self._means]), strict=True):
            mean.copy_(values.view_as(mean))
