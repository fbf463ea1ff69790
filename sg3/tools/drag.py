"""Drag editing (DragGAN, Pan et al. 2023, arXiv 2305.10973): change the latent so that points of a picture move.

An iteration is motion supervision, one step of Adam on w that draws the features around each handle towards its target,
and point tracking, which finds the handles again:

    L = sum_i sum_q ||sg[F(q)] - F(q + d_i)||_1 + lambda ||(F - F0) (1 - M)||_1          (Equation 1)
    p_i <- argmin_q ||F'(q) - F0(p_i^0)||_1                                             (Equation 2)

F are the features of one layer, F0 those before the first step, d_i the unit vector from handle to target, q the pixels
around the handle, M the mask of what may move. Points are (x, y) in pixels of the picture, pixel 0 from -0.5 to 0.5;
feature maps are sampled bilinearly where they are needed, margins of StyleGAN3's maps counted. The paper's numbers are
for 512 pixels and StyleGAN2: radii scale with the picture, and the layer is the one of comparable resolution.

Both norms are means here, over channels and over the pixels around a handle or outside of the mask, so that lambda
means the same at every size; the paper's sums with its 20 hold a small network still (`python -m bench.drag --mask`).
Only what leads to the layer is run, in float32; weights are not touched.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from sg3.canvas import Size
from sg3.errors import NumericalError, UsageError
from sg3.models import StyleGenerator, stylegan2, stylegan3

PAPER_SIZE = 512  # pixels that the paper's radii are for
FEATURE_SIZE = 128  # samples across the picture of the paper's features
NEARER = 0.25  # pixels; a handle that gets no nearer by so much in `patience` iterations is stuck
Point = tuple[float, float]


@dataclass(frozen=True)
class Settings:
    """How to drag. None is what fits the network."""

    lr: float = 2e-3
    mask_weight: float = 1.0  # lambda
    radius: int | None = None  # r1, of the pixels around a handle
    reach: int | None = None  # r2, half the side of the square in which a handle is searched for
    stop: float | None = None  # pixels from the target that are near enough
    layer: str | None = None  # whose features are followed
    ws: tuple[int, ...] | None = None  # copies of w that may change
    keep_pose: bool | None = None  # StyleGAN3: leave alone the copy that moves the whole picture
    iterations: int = 300
    patience: int = 40


@dataclass(frozen=True)
class FeatureLayer:
    """A layer to follow. `size` samples a side, `rate` of them across the picture, a `margin` on each side of it;
    copies of w from number `ws` on have no effect on it."""

    name: str
    size: int
    rate: int
    margin: float
    ws: int
    run: Callable[[torch.Tensor], torch.Tensor]  # ws [1, num_ws, w_dim] -> [1, C, size, size]


@dataclass
class Moment:
    """A drag between two iterations."""

    ws: torch.Tensor  # [1, num_ws, w_dim]
    handles: torch.Tensor  # [N, 2]
    optimizer: dict[str, Any]
    nearest: float = float("inf")  # the smallest sum of distances so far
    idle: int = 0  # iterations since then


@dataclass
class Drag:
    """A drag that is under way; `step` takes it further, `undo` back. All on the network's device, without chance."""

    G: StyleGenerator
    ws: torch.Tensor  # [1, num_ws, w_dim]
    handles: torch.Tensor  # [N, 2]
    targets: torch.Tensor  # [N, 2]
    settings: Settings
    layer: FeatureLayer
    fixed: torch.Tensor | None  # [1, 1, size, size], 1 where nothing may move
    stop: float
    first: torch.Tensor = field(init=False)  # F0
    wanted: torch.Tensor = field(init=False)  # [N, C], the handles' features in F0
    history: list[Moment] = field(default_factory=list)
    ended: str = ""  # why it is over, in words

    def __post_init__(self) -> None:
        self._changing = list(_changing(self.G, self.layer, self.settings, len(self.handles), self.fixed is not None))
        self._free = self.ws[:, self._changing].clone().requires_grad_()
        self._optimizer = torch.optim.Adam([self._free], lr=self.settings.lr)
        self._nearest, self._idle = float("inf"), 0
        with torch.no_grad():
            self.first = self.layer.run(self.ws)
            self.wanted = self._sample(self.first, self.handles)

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return len(self.history)

    def distances(self) -> list[float]:
        """Of each handle to its target, in pixels."""
        return (self.targets - self.handles).norm(dim=1).tolist()

    def step(self) -> bool:
        """One iteration. False when it is over: `ended` says why. Raises NumericalError, and is then as before."""
        if self._is_over():
            return False
        before = Moment(self.ws.clone(), self.handles.clone(), copy.deepcopy(self._optimizer.state_dict()),
                        self._nearest, self._idle)  # fmt: skip
        with torch.enable_grad():
            loss = self._loss()
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
        with torch.no_grad():
            ws = self._current().detach().clone()
            features = self.layer.run(ws)
        self.history.append(before)
        if not (torch.isfinite(loss) and torch.isfinite(ws).all() and torch.isfinite(features).all()):
            self.undo()
            raise NumericalError("drag: the features stopped being numbers; use a smaller step")
        self.ws = ws
        self.handles = self._track(features)
        self._note_progress()
        return True

    def undo(self, steps: int = 1) -> None:
        """Go back by so many iterations, or to the beginning."""
        self.ended = ""
        back = min(steps, len(self.history))
        if back <= 0:
            return
        moment = self.history[-back]
        del self.history[-back:]
        self.ws, self.handles = moment.ws, moment.handles
        self._nearest, self._idle = moment.nearest, moment.idle
        with torch.no_grad():
            self._free.copy_(self.ws[:, self._changing])
        self._optimizer.load_state_dict(moment.optimizer)

    def _is_over(self) -> bool:
        if max(self.distances(), default=0.0) <= self.stop:
            self.ended = "the targets are reached"
        elif self.iteration >= self.settings.iterations:
            self.ended = f"{self.iteration} iterations are done"
        elif self._idle >= self.settings.patience:
            self.ended = "it is stuck: no handle comes nearer"
        return bool(self.ended)

    def _note_progress(self) -> None:
        nearest = sum(self.distances())
        if nearest < self._nearest - NEARER:
            self._nearest, self._idle = nearest, 0
        else:
            self._idle += 1

    def _current(self) -> torch.Tensor:
        return self.ws.index_copy(1, torch.tensor(self._changing, device=self.ws.device), self._free)

    def _loss(self) -> torch.Tensor:
        """Motion supervision, Equation 1."""
        features = self.layer.run(self._current())
        around = disc(_radius(self.G, self.settings)).to(self.handles)  # [Q, 2]
        loss = features.new_zeros(())
        for handle, target, distance in zip(self.handles, self.targets, self.distances(), strict=True):
            if distance <= self.stop:
                continue
            places = handle + around
            here = self._sample(features, places).detach()
            there = self._sample(features, places + (target - handle) / distance)
            loss = loss + (here - there).abs().mean()
        if self.fixed is not None:
            change = ((features - self.first).abs().mean(dim=1, keepdim=True) * self.fixed).sum()
            loss = loss + self.settings.mask_weight * change / self.fixed.sum().clamp(min=1)
        return loss

    def _track(self, features: torch.Tensor) -> torch.Tensor:
        """Where the handles are now, Equation 2: of equal candidates the one nearest to where it was."""
        around = square(_reach(self.G, self.settings)).to(self.handles)  # the nearest first
        found = []
        for handle, wanted in zip(self.handles, self.wanted, strict=True):
            places = handle + around
            distance = (self._sample(features, places) - wanted).abs().sum(dim=1)
            found.append(places[int(distance.argmin())])
        return torch.stack(found)

    def _sample(self, features: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Features [N, C] at places [N, 2] of the picture, by bilinear interpolation."""
        layer = self.layer
        position = (places + 0.5) * (layer.rate / self.G.img_resolution) + layer.margin - 0.5  # samples
        grid = (2 * position + 1) / position.new_tensor([features.shape[3], features.shape[2]]) - 1
        sampled = F.grid_sample(features, grid[None, None], padding_mode="border", align_corners=False)
        return sampled[0, :, 0].t()


def start(
    G: StyleGenerator,
    ws: torch.Tensor,
    handles: Sequence[Point],
    targets: Sequence[Point],
    mask: NDArray[np.bool_] | None = None,
    settings: Settings | None = None,
) -> Drag:
    """A drag of the picture of ws [1, num_ws, w_dim] from handles to targets; mask [H, W], True where it may move.

    Raises UsageError for points outside of the picture, unequal numbers of them, or a layer that is not there.
    """
    settings = settings or Settings()
    check_points(handles, targets, G.img_size)
    if mask is not None and mask.shape != G.img_size:
        raise UsageError(f"mask: got {mask.shape}, expected {G.img_size}")
    layer = feature_layer(G, settings.layer)
    on = ws.device
    fixed = None
    if mask is not None:
        still = torch.from_numpy(~mask).float()[None, None].to(on)
        inner = F.interpolate(still, size=[side * layer.rate // G.img_resolution for side in G.img_size], mode="area")
        # What lies in the margin belongs to whatever is at the border.
        fixed = F.pad(inner, [round(layer.margin)] * 4, mode="replicate") if layer.margin else inner
    stop = settings.stop
    if stop is None:
        stop = max(1.0, (1 if len(handles) <= 5 else 2) * max(G.img_size) / PAPER_SIZE)
    rounded = torch.tensor([[round(c) for c in point] for point in handles], dtype=torch.float32, device=on)
    wanted = torch.tensor(targets, dtype=torch.float32, device=on)
    return Drag(G, ws.detach().clone(), rounded, wanted, settings, layer, fixed, stop)


def check_points(handles: Sequence[Point], targets: Sequence[Point], size: int | Size) -> None:
    """Raises UsageError for points (x, y) outside of a picture of `size`, a square's side or height and width, and for
    unequal numbers of them."""
    if not handles or len(handles) != len(targets):
        raise UsageError(f"handles, targets: got {len(handles)} and {len(targets)}, expected as many, at least one")
    height, width = (size, size) if isinstance(size, int) else size
    if not all(0 <= x <= width - 1 and 0 <= y <= height - 1 for x, y in (*handles, *targets)):
        end = f"{width - 1}" if height == width else f"{width - 1}, {height - 1}"
        raise UsageError(f"handles, targets: expected places in the picture, 0 to {end}")


def feature_layer(G: StyleGenerator, name: str | None = None) -> FeatureLayer:
    """The layer to follow: the one named, or the first of at least 128 samples across, or half the picture's if that is
    less. Raises UsageError for another name."""
    layers = _layers(G)
    least = min(FEATURE_SIZE, G.img_resolution // 2)
    for layer in layers:
        if layer.name == name or (name is None and layer.rate >= least):
            return layer
    raise UsageError(f"layer={name}: cannot be followed; choose from {', '.join(layer.name for layer in layers)}")


def _layers(G: StyleGenerator) -> list[FeatureLayer]:
    found = []
    if isinstance(G, stylegan2.Generator):
        ws = 0
        for resolution in G.synthesis.block_resolutions:
            block = G.synthesis.get_submodule(f"b{resolution}")
            assert isinstance(block, stylegan2.SynthesisBlock)
            ws += block.num_conv
            found.append(FeatureLayer(f"b{resolution}", resolution, resolution, 0.0, ws, _run_blocks(G, resolution)))
        return found
    for index, name in enumerate(G.synthesis.layer_names[:-1]):
        module = G.synthesis.get_submodule(name)
        assert isinstance(module, stylegan3.SynthesisLayer)
        size, rate = module.spec.out_size, module.spec.out_sampling_rate
        found.append(FeatureLayer(name, size, rate, (size - rate) / 2, index + 2, _run_layers(G, index + 1)))
    return found


def _run_blocks(G: stylegan2.Generator, last: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def run(ws: torch.Tensor) -> torch.Tensor:
        x = image = None
        first = 0
        for resolution in G.synthesis.block_resolutions:
            block = G.synthesis.get_submodule(f"b{resolution}")
            assert isinstance(block, stylegan2.SynthesisBlock)
            x, image = block(x, image, ws[:, first : first + block.num_conv + block.num_torgb], "const", True)
            first += block.num_conv
            if resolution == last:
                break
        assert x is not None
        return x

    return run


def _run_layers(G: stylegan3.Generator, count: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def run(ws: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = G.synthesis.input(ws[:, 0])
        for index, name in enumerate(G.synthesis.layer_names[:count], 1):
            x = G.synthesis.get_submodule(name)(x, ws[:, index], "const", True, False)
        return x

    return run


def _changing(G: StyleGenerator, layer: FeatureLayer, settings: Settings, handles: int, masked: bool) -> Sequence[int]:
    """The copies of w that may change: the coarse third, as 6 of 18 in the paper, as far as they have an effect."""
    if settings.ws is not None:
        if not settings.ws or max(settings.ws) >= layer.ws:
            raise UsageError(f"ws: expected numbers from 0 to {layer.ws - 1}, the copies that have an effect")
        return settings.ws
    chosen = range(min(max(round(G.num_ws / 3), 1), layer.ws))
    keep_pose = settings.keep_pose if settings.keep_pose is not None else (handles == 1 and masked)
    return chosen[1:] if keep_pose and isinstance(G, stylegan3.Generator) and len(chosen) > 1 else chosen


def _radius(G: StyleGenerator, settings: Settings) -> int:
    if settings.radius is not None:
        return settings.radius
    radial = isinstance(G, stylegan3.Generator) and G.init_kwargs.get("use_radial_filters", False)
    return max(1, round(3 * max(G.img_size) / PAPER_SIZE)) + int(radial)  # R's features are smoother


def _reach(G: StyleGenerator, settings: Settings) -> int:
    return settings.reach if settings.reach is not None else max(3, round(12 * max(G.img_size) / PAPER_SIZE))


def disc(radius: int) -> torch.Tensor:
    """Whole steps [Q, 2] of at most that length."""
    steps = square(radius)
    return steps[steps.norm(dim=1) <= radius]


def square(reach: int) -> torch.Tensor:
    """Whole steps [Q, 2] of at most that size in x and in y, the shortest first."""
    line = torch.arange(-reach, reach + 1, dtype=torch.float32)
    steps = torch.stack(torch.meshgrid(line, line, indexing="ij"), dim=2).reshape(-1, 2)
    return steps[steps.square().sum(dim=1).argsort(stable=True)]
