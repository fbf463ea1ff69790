"""Long work for a client: drags and projections.

They run on the networks' thread between frames, but for what needs no network. Their status is asked for, and what they
find is a latent on the shelf, which the page shows as any other.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from math import degrees, isfinite
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sg3.canvas import Size, middle
from sg3.errors import MissingInputError, UsageError
from sg3.models import StyleGenerator
from sg3.sampling import set_transform
from sg3.terminal import printable
from sg3.tools import drag, project
from sg3.tools.files import Pixels, without_bars
from sg3.tools.perceptual import Perceptual, open_perceptual
from sg3.tools.targets import Target
from sg3.viewer.engine import Busy, Steps
from sg3.viewer.state import State
from sg3.viewer.viewer import Viewer

KEPT = 20  # that are over, or not
MOST_EDITS = 3  # drags that can be gone on with: each holds a network, features and its history
Make = Callable[["Task"], Steps]


class Stopped(Exception):
    """Somebody has asked for the end."""


class Task:
    """One of them. `status` is replaced as a whole, so that whoever reads it sees one moment."""

    def __init__(self, kind: str, state: State) -> None:
        self.name = secrets.token_hex(8)
        self.kind = kind
        self.state = state  # that it began with
        self.status: dict[str, Any] = {"running": True}
        self.stopping = threading.Event()
        self.edit: drag.Drag | None = None
        self.corner = (0, 0)  # x and y of the picture's in the network's image, which may have black bars

    def report(self, **now: object) -> None:
        """What there is to say now."""
        self.status = {**self.status, **now}

    def shown(self) -> dict[str, Any]:
        """For a client."""
        return {"task": self.name, "kind": self.kind, **self.status}


class Tasks:
    """All that there are."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._tasks: OrderedDict[str, Task] = OrderedDict()

    def start(self, kind: str, state: State, make: Make) -> Task:
        """Take up work. Raises Busy."""
        task = Task(kind, state)
        self._viewer.engine.start(task.name, self._guarded(task, make))
        self._tasks[task.name] = task
        while len(self._tasks) > KEPT:
            _, oldest = self._tasks.popitem(last=False)
            oldest.stopping.set()
        self._free_edits()
        return task

    def resume(self, task: Task, make: Make) -> None:
        """Go on with a task that has stopped. Raises Busy."""
        before = task.status
        task.stopping.clear()
        task.report(running=True, ended=None)  # before it runs: it may end at once
        try:
            self._viewer.engine.start(task.name, self._guarded(task, make))
        except Busy:
            task.status = before
            raise

    def _free_edits(self) -> None:
        """The oldest drags that are over cannot be gone on with any more."""
        drags = [task for task in self._tasks.values() if task.kind == "drag"]
        for task in drags[:-MOST_EDITS]:
            if not task.status["running"]:
                task.edit = None

    def find(self, name: object) -> Task:
        """Raises MissingInputError."""
        task = self._tasks.get(name) if isinstance(name, str) else None
        if task is None:
            raise MissingInputError(f"task={printable(name, 40)}: there is none of that name any more")
        return task

    def _guarded(self, task: Task, make: Make) -> Steps:
        try:
            yield from make(task)
        except Stopped:
            task.report(ended="stopped")
        except Exception as error:
            full = self._viewer.memory_full(error)
            task.report(error=dict(zip(("status", "message"), self._viewer.explain(full or error), strict=True)))
        finally:
            if task.edit is not None:
                task.report(latent=self._viewer.shelf.put_latent(task.edit.ws))
            task.report(running=False)


# ---- drags ----------------------------------------------------------------------------------------------------------


def dragging(
    viewer: Viewer, state: State, handles: list[drag.Point], targets: list[drag.Point], runs: list[int] | None,
    settings: drag.Settings, most: int | None = None,
) -> Make:  # fmt: skip
    """A drag of what a state shows; `runs` are lengths, row by row, of what may not and what may move in turns. After
    `most` steps it stops."""

    def begin(task: Task) -> Steps:
        painter = viewer.painter(state.network)
        G = painter.G
        if not isinstance(G, StyleGenerator):
            raise UsageError("drag: this network has no w to move in; StyleGAN2 and StyleGAN3 have")
        ws = painter.ws(state)
        rows, columns = middle(G.img_size, painter.visible or G.img_size)
        mask = None
        if runs is not None:
            mask = np.zeros(G.img_size, bool)  # black bars stay
            mask[rows, columns] = unpacked(runs, painter.visible or G.img_size)
        task.corner = (columns.start, rows.start)
        first, last = ([(x + columns.start, y + rows.start) for x, y in points] for points in (handles, targets))
        set_transform(G, state.translate, state.rotate, state.scale)
        task.edit = drag.start(G, ws, first, last, mask, settings)
        yield from steps(viewer, state, most)(task)

    return begin


def steps(viewer: Viewer, state: State, most: int | None = None) -> Make:
    """The steps of a drag that has begun, until it ends or is stopped; at most so many."""

    def go_on(task: Task) -> Steps:
        edit = task.edit
        assert edit is not None
        report_drag(viewer, task, edit)
        begun = edit.iteration
        while not task.stopping.is_set() and (most is None or edit.iteration - begun < most):
            set_transform(edit.G, state.translate, state.rotate, state.scale)  # frames in between may have changed it
            if not edit.step():
                task.report(ended=edit.ended)
                return
            report_drag(viewer, task, edit)
            yield None
        raise Stopped

    return go_on


def report_drag(viewer: Viewer, task: Task, edit: drag.Drag, passing: bool = True) -> None:
    """Where it is: the latent (`passing`: one of many on the way), the handles, how far they have to go."""
    corner = edit.handles.new_tensor(task.corner)
    task.report(
        latent=viewer.shelf.put_latent(edit.ws, passing=passing), iteration=edit.iteration,
        handles=(edit.handles - corner).tolist(), targets=(edit.targets - corner).tolist(), distances=edit.distances(),
        layer=edit.layer.name,
    )  # fmt: skip


def unpacked(runs: list[int], size: int | Size) -> NDArray[np.bool_]:
    """Bool, a square of this side, or of this height and width. Raises UsageError."""
    height, width = (size, size) if isinstance(size, int) else size
    if sum(runs) != height * width:
        raise UsageError(f"mask: its runs add up to {sum(runs)}, expected {height * width} pixels")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)


# ---- projections ----------------------------------------------------------------------------------------------------


def projecting(viewer: Viewer, state: State, image: bytes, settings: project.Settings) -> Make:
    """A search for the latent whose picture is closest to an image; others move between its steps."""

    def search(task: Task) -> Steps:
        painter = viewer.painter(state.network)
        G = painter.G
        if not isinstance(G, StyleGenerator):
            raise UsageError("project: this network has no w to search in; StyleGAN2 and StyleGAN3 have")
        # Both take seconds, so another thread does them; frames are made meanwhile.
        prepared = viewer.aside(lambda: (_target(image, G, painter.visible), _perceptual(painter.device)))
        yield prepared
        if task.stopping.is_set():
            raise Stopped
        target, perceptual = prepared.result()

        def report(done: int, total: int, distance: float) -> None:
            task.report(step=done, steps=total, distance=distance)

        steps = project.project_steps(
            G, target, perceptual, settings, class_idx=state.class_idx if G.c_dim else None, report=report
        )
        while True:
            yield None
            if task.stopping.is_set():
                raise Stopped
            try:
                next(steps)
            except StopIteration as end:
                found: project.Projection = end.value
                break
        place: dict[str, Any] = {}
        if found.pose is not None:
            angle, x, y = found.pose.tolist()
            place = {"rotate": degrees(angle), "translate": [x, y]}
        latent = viewer.shelf.put_latent(found.w, found.noise)
        wanted, got = (without_bars(one, painter.visible) for one in (target, project.picture(G, found)))
        psnr = project.psnr(wanted, got)
        task.report(latent=latent, place=place, ended="done", psnr=psnr if isfinite(psnr) else None)

    return search


def _target(image: bytes, G: StyleGenerator, visible: Size | None) -> Pixels:
    return Target("image", "the image", lambda: image).pixels(G.img_size, G.img_channels, visible)


def _perceptual(device: torch.device) -> Perceptual:
    return open_perceptual("efflite", device)
