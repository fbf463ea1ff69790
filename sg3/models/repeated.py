"""A network that is called many times for the same sizes: on a GPU it is recorded once, as a CUDA graph.

Replaying a recording takes the host a few launches instead of hundreds. What a network does must then be the same each
time but for the values in its inputs and weights: see `Repeated` for what is noticed.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

MOST_RECORDINGS = 4  # kinds of calls; each holds on to its inputs and output, all share their intermediate memory

Setting = str | float | bool | None


class Recording(Protocol):
    """Something recorded; `replay` computes it again from what its inputs hold now."""

    output: torch.Tensor

    def replay(self) -> None: ...


class CudaGraph:
    """`run()` as a CUDA graph. Everything that it prepares (compiled kernels, filters as matrices) must be there."""

    def __init__(self, run: Callable[[], torch.Tensor], pool: Any) -> None:
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):  # libraries allocate their working space at the first call on a stream
            run()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool, stream=side):
            self.output = run()
        current.wait_stream(side)

    def replay(self) -> None:
        self._graph.replay()


@dataclass
class _Known:
    """A kind of call: the network's state when it was first made, its inputs and, from the second call on, the rest."""

    state: Hashable
    inputs: tuple[torch.Tensor, ...]
    recording: Recording | None = None


class Repeated:
    """A network, to be called as itself, without gradients.

    The first call of a kind (sizes, types, settings) runs plainly and prepares; the second one is recorded; later ones
    are replayed. Weights may change their values at any time. Weights at new addresses, filters written to, modules
    in another mode or type: recorded anew. What draws random numbers, and all of a network on other devices than GPUs,
    always runs plainly; so does everything with `graphs` False or once a recording has failed, which is logged.

    `record` makes recordings, of what runs on a GPU unless given.
    """

    def __init__(
        self,
        network: nn.Module,
        graphs: bool = True,
        record: Callable[[Callable[[], torch.Tensor]], Recording] | None = None,
    ) -> None:
        self._network = network
        self._record = record if graphs else None
        if graphs and record is None and next(network.parameters()).is_cuda:
            pool = torch.cuda.graph_pool_handle()
            self._record = lambda run: CudaGraph(run, pool)
        self._known: OrderedDict[Hashable, _Known | None] = OrderedDict()  # None: this kind runs plainly

    @torch.no_grad()
    def __call__(self, *inputs: torch.Tensor, **settings: Setting) -> torch.Tensor:
        """The network's image, in memory of its own. `inputs` are tensors on the network's device."""
        if self._record is None:
            return self._run(inputs, settings)
        kind = tuple((t.shape, t.dtype, t.device) for t in inputs), tuple(sorted(settings.items()))
        state = self._state()
        known = self._known.get(kind)
        if kind in self._known and known is None:
            return self._run(inputs, settings)
        if known is None or known.state != state:
            return self._first(kind, state, inputs, settings)
        self._known.move_to_end(kind)
        for static, given in zip(known.inputs, inputs, strict=True):
            static.copy_(given)
        if known.recording is None:
            try:
                known.recording = self._record(lambda: self._run(known.inputs, settings))
            except RuntimeError as error:  # of the driver, of PyTorch or of a library that cannot be recorded
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                logging.getLogger("sg3").warning(f"sg3: running without CUDA graphs, recording failed: {reason}")
                self._record = None
                self._known.clear()
                return self._run(inputs, settings)
        known.recording.replay()
        return known.recording.output.clone()

    def _first(
        self, kind: Hashable, state: Hashable, inputs: tuple[torch.Tensor, ...], settings: dict[str, Setting]
    ) -> torch.Tensor:
        """Run plainly, and see whether random numbers are drawn: a recording would draw others."""
        before = _random_state(inputs[0].device)
        output = self._run(inputs, settings)
        with torch.inference_mode(False):  # written to by later calls, in whichever mode these are
            static = tuple(torch.empty_like(t).copy_(t) for t in inputs)
        self._known[kind] = _Known(state, static) if torch.equal(before, _random_state(inputs[0].device)) else None
        while len(self._known) > MOST_RECORDINGS:
            self._known.popitem(last=False)
        return output

    def _run(self, inputs: tuple[torch.Tensor, ...], settings: dict[str, Setting]) -> torch.Tensor:
        output: torch.Tensor = self._network(*inputs, **settings)
        return output

    def _state(self) -> Hashable:
        """What a recording holds on to: where tensors lie, what filters are made of, how modules are set."""
        parts: list[Hashable] = [os.environ.get("SG3_IMPL")]
        for module in self._network.modules():
            parts += [module.training, getattr(module, "half_type", None), getattr(module, "half_on_cpu", None)]
            parts += [None if t is None else (t.data_ptr(), t.dtype) for t in module._parameters.values()]
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    constant = "filter" in name and not buffer.is_inference()
                    parts += [buffer.data_ptr(), buffer.dtype, buffer._version if constant else None]
        return tuple(parts)


def _random_state(device: torch.device) -> torch.Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
