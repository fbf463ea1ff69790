"""The HTTP API of long work: start a drag or a projection, see how far it is, stop it, go back."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sg3.errors import UsageError
from sg3.tools import drag, project
from sg3.viewer.requests import body_of, explained, json_object, may_change, needed, place, state_of_query
from sg3.viewer.settings import Choice, Kind, Pair, Real, Switch, Text, Whole
from sg3.viewer.state import State
from sg3.viewer.tasks import MOST_EDITS, Task, Tasks, dragging, projecting, report_drag, steps
from sg3.viewer.viewer import Viewer

A_TASK = "the name that /api/drag or /api/project has answered with"
MOST_POINTS = 32
MOST_RUNS = 20_000  # of a mask
IMAGE_BYTES = 2**25
DRAG_BYTES = 2**18  # of a mask's runs, mostly
DRAG_SETTINGS: dict[str, Kind] = {
    "lr": Real(1e-6, 1), "layer": Text(100), "keep_pose": Switch(), "iterations": Whole(1, 5_000),
    "mask_weight": Real(0, 1e6),
}  # fmt: skip


def routes(viewer: Viewer) -> list[Route]:
    """All of it."""
    tasks = Tasks(viewer)

    async def start_drag(request: Request) -> Response:
        may_change(request)
        asked = await json_object(request, DRAG_BYTES)
        given = asked.get("state")
        state = State.read(given if isinstance(given, dict) else {})
        handles, targets = (_points(name, asked.get(name)) for name in ("handles", "targets"))
        settings = {name: _read(name, kind, asked[name]) for name, kind in DRAG_SETTINGS.items()
                    if asked.get(name) is not None}  # fmt: skip
        runs = _runs(asked.get("mask"))
        drag.check_points(handles, targets, tuple((await viewer.facts(state.network))["size"]))
        begin = dragging(viewer, state, handles, targets, runs, drag.Settings(**settings), _most(asked))
        task = tasks.start("drag", state, begin)
        return JSONResponse(task.shown())

    async def start_projection(request: Request) -> Response:
        may_change(request)
        more = {name: request.query_params.get(name) for name in ("steps", "space", "lr")}
        settings = project.Settings(
            steps=_read("steps", Whole(1, 10_000), more["steps"] or 300),
            space=_read("space", Choice(("w", "w+")), (more["space"] or "w").replace(" ", "+")),
            lr=_read("lr", Real(1e-6, 10), more["lr"] or 0.1),
        )
        state = state_of_query(request, besides=("steps", "space", "lr"))
        image = await body_of(request, "application/octet-stream", IMAGE_BYTES)
        await viewer.facts(state.network)  # the network is read before the work begins
        return JSONResponse(tasks.start("project", state, projecting(viewer, state, image, settings)).shown())

    async def look(request: Request) -> Response:
        return JSONResponse(tasks.find(needed(request, "task", A_TASK)).shown())

    async def change(request: Request) -> Response:
        may_change(request)
        asked = await json_object(request)
        if "task" not in asked:
            raise UsageError(f"task: needed, {A_TASK}")
        task = tasks.find(asked["task"])
        action = _read("action", Choice(("stop", "undo", "continue")), asked.get("action"))
        if action == "stop":
            task.stopping.set()
        else:
            edit = task.edit
            if edit is None or task.status.get("running"):
                raise UsageError(f"action={action}: is for one of the last {MOST_EDITS} drags, when it has stopped")
            if action == "undo":
                count, network = asked.get("steps", 1), task.state.network
                await viewer.with_network(place(request), network, lambda _, __: _undo(viewer, task, edit, count))
            else:
                tasks.resume(task, steps(viewer, task.state, _most(asked)))
        return JSONResponse(task.shown())

    async def task(request: Request) -> Response:  # one address, so that others are told of both methods
        return await (change if request.method == "POST" else look)(request)

    return [
        Route("/api/drag", explained(viewer, start_drag), methods=["POST"]),
        Route("/api/project", explained(viewer, start_projection), methods=["POST"]),
        Route("/api/task", explained(viewer, task), methods=["GET", "POST"]),
    ]


def _most(asked: dict[str, Any]) -> int | None:
    """Steps after which a drag is to stop by itself."""
    given = asked.get("steps")
    return None if given is None else _read("steps", Whole(1, 10_000), given)


def _undo(viewer: Viewer, task: Task, edit: drag.Drag, count: object) -> None:
    edit.undo(_read("steps", Whole(1, 10_000), count))
    task.report(ended=None)
    report_drag(viewer, task, edit, passing=False)


def _points(name: str, value: object) -> list[drag.Point]:
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_POINTS:
        raise UsageError(f"{name}: expected 1 to {MOST_POINTS} points, such as [[10, 20]]")
    return [_read(name, Pair(0, 10**5), point) for point in value]


def _runs(value: object) -> list[int] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > MOST_RUNS:
        raise UsageError(f"mask: expected at most {MOST_RUNS} lengths of runs")
    return [_read("mask", Whole(0, 2**26), length) for length in value]


def _read(name: str, kind: Kind, value: object) -> Any:
    try:
        return kind.read(value)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None
