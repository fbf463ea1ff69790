"""Candidates checked and timed on the GPU, class by class.

A candidate's values are judged against the plain formula in float64 and in the working dtype (`Tunable.expected`), by
the rule of all low-precision results with twice its bounds, since nobody chose the inputs; where there is no formula,
against what the rule's choice gives. Only right ones are timed. The fastest is chosen, but the rule's choice stays
unless another one is faster by more than times scatter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from sg3.kernels import tuning
from sg3.kernels.triton_launch import architecture
from sg3.kernels.tuning import Tunable
from sg3.tools.tune.calls import Blank, Call

MARGIN = 0.02  # a candidate replaces the rule's choice if it takes less than 1 - MARGIN of its time

Clock = Callable[[Callable[[], object]], float]  # the median time of a function, in microseconds


@dataclass(frozen=True)
class Measured:
    """What was found for a class."""

    tunable: str
    group: str
    entry: dict[str, Any]  # as in tables; without "choice" where no candidate was right


@dataclass
class Measurement:
    """Takes the place of launches that have a choice: tries all candidates for a class that it meets the first time.

    `found` is called with every result.
    """

    clock: Clock
    found: Callable[[Measured], object]
    chosen: dict[tuple[str, tuple[Any, ...]], Any] = field(default_factory=dict)

    def __call__(
        self, tunable: Tunable[Any, Any, ...], group: tuple[Any, ...], arguments: tuple[Any, ...]
    ) -> Sequence[torch.Tensor]:
        key = tunable.name, group
        if key not in self.chosen:
            self.chosen[key] = self.choose(tunable, group, arguments)
        return tunable.launch(self.chosen[key], *arguments)

    def choose(
        self, tunable: Tunable[Any, Any, ...], group: tuple[Any, ...], arguments: tuple[Any, ...]
    ) -> Any:
        """The best candidate, the rule's if none is right."""
        candidates = tunable.candidates(group, architecture(arguments[0].device))
        yardsticks = self.yardsticks(tunable, candidates[0], arguments)
        times: dict[Any, float] = {}
        tried = []
        for candidate in candidates:
            outcome: dict[str, Any] = {"configuration": tuning.as_plain(candidate)}
            try:
                fault = self.fault(tunable, candidate, arguments, yardsticks)
                if fault is None:
                    times[candidate] = self.clock(partial(tunable.launch, candidate, *arguments))
                    outcome["microseconds"] = round(times[candidate], 3)
                else:
                    outcome["wrong"] = fault
            except torch.cuda.OutOfMemoryError:
                raise
            except Exception as error:  # one that asks for too much of something; of such errors there are many kinds
                outcome["failed"] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            tried.append(outcome)
        entry: dict[str, Any] = {"tried": tried}
        best = candidates[0]
        if times:
            fastest = min(times, key=lambda candidate: times[candidate])
            if best not in times or times[fastest] < (1 - MARGIN) * times[best]:
                best = fastest
            entry = {"choice": tuning.as_plain(best), "microseconds": round(times[best], 3), **entry}
        self.found(Measured(tunable.name, tuning.class_name(group), entry))
        return best

    @staticmethod
    def yardsticks(
        tunable: Tunable[Any, Any, ...], by_rule: Any, arguments: tuple[Any, ...]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """For every tensor that is written: what it should be, and what a plain computation in its dtype gives."""
        written = [tensor.clone() for tensor in tunable.parts(tunable.launch(by_rule, *arguments), *arguments)]
        dtype = arguments[0].dtype
        pairs = zip(tunable.expected(torch.float64, *arguments), tunable.expected(dtype, *arguments), strict=True)
        return [
            (own, own) if exact is None or eager is None else (exact, eager)
            for own, (exact, eager) in zip(written, list(pairs)[: len(written)], strict=True)
        ]  # fmt: skip

    @staticmethod
    def fault(
        tunable: Tunable[Any, Any, ...], candidate: Any, arguments: tuple[Any, ...],
        yardsticks: Sequence[tuple[torch.Tensor, torch.Tensor]],
    ) -> str | None:  # fmt: skip
        """Why a candidate's values are wrong, None if they are right."""
        for tensor in tunable.parts(tunable.launch(candidate, *arguments), *arguments):
            tensor.fill_(float("nan") if tensor.is_floating_point() else 255)  # which a forgotten element keeps
        written = tunable.parts(tunable.launch(candidate, *arguments), *arguments)
        for tensor, (exact, eager) in zip(written, yardsticks, strict=True):
            fault = disagreement(tensor[: len(exact)], exact, eager, arguments[0].dtype)
            if fault is not None:
                return fault
        return None


def disagreement(result: torch.Tensor, exact: torch.Tensor, eager: torch.Tensor, dtype: torch.dtype) -> str | None:
    """How far a result exceeds |result - exact| <= 4 (|eager - exact| + eps |exact|), in the maximum norm or in L2;
    None if it does not. Signs, in bytes, may differ where rounding decides: in one of 1 / (16 eps)."""
    eps = torch.finfo(dtype).eps
    if not result.is_floating_point():
        share = (result != exact).double().mean().item()
        return f"{share:.2g} of all signs differ" if share > 16 * eps + 1 / result.numel() else None
    result, exact, eager = result.double(), exact.double(), eager.double()
    for norm in (math.inf, 2):
        error, unavoidable, size = (
            torch.linalg.vector_norm(t, norm).item() for t in (result - exact, eager - exact, exact)
        )
        if not error <= 4 * (unavoidable + eps * size):  # nor for NaN
            return f"off by {error:.3g} where plain PyTorch is by {unavoidable:.3g}, of {size:.3g} (norm {norm})"
    return None


def measure(
    groups: Iterable[Sequence[Call]], everything: Sequence[Call], device: torch.device, clock: Clock,
    found: Callable[[Measured], object], missed: Callable[[Call, str], object],
) -> None:  # fmt: skip
    """Measure the classes of each group's first, its largest, call. `everything`: calls among which those are found
    that write signs for others to read. `missed` is called for a call for which there is no memory."""
    measurement = Measurement(clock, found)

    def content(blank: Blank) -> torch.Tensor:
        return blank.noise(device) if blank.dtype.is_floating_point else signs(blank)

    def signs(blank: Blank) -> torch.Tensor:
        """By a call that writes such; zeros where none does."""
        for call in everything:
            if blank in call.results and blank.size:
                results: Sequence[torch.Tensor] = call.run(content, device)
                return results[call.results.index(blank)]
        return blank.empty(device).zero_()

    with torch.no_grad():
        for group in groups:
            try:
                arguments = group[0].prepared(content, device)
                with tuning.observed(measurement):
                    group[0].start(arguments)
            except torch.cuda.OutOfMemoryError:
                missed(group[0], "not enough memory on the GPU; try a smaller --batch")
