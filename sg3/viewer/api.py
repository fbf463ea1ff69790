"""The HTTP API: pictures, networks and layers, for the page and for `curl` alike. Errors are JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sg3._version import __version__
from sg3.errors import Sg3Error, UsageError
from sg3.viewer import encode
from sg3.viewer.engine import Stale
from sg3.viewer.guard import error_body
from sg3.viewer.layers import statistics
from sg3.viewer.openapi import description
from sg3.viewer.state import State
from sg3.viewer.viewer import Viewer

JSON_BYTES = 2**16
FIELDS = 100  # in a query

Answer = Callable[[Request], Awaitable[Response]]


def routes(viewer: Viewer) -> list[Route]:
    """All of the API."""
    numbers = count()

    def place() -> tuple[str, int]:
        """Requests do not replace one another."""
        return "http", next(numbers)

    async def image(request: Request) -> Response:
        return await render(_state_of_query(request))

    async def posted(request: Request) -> Response:
        return await render(State.read(await _json_object(request)))

    async def render(state: State) -> Response:
        frame = await viewer.frame(place(), state)
        settings = viewer.settings(state)
        return Response(await asyncio.to_thread(encode.png, frame.pixels, settings), media_type="image/png")

    async def latent(request: Request) -> Response:
        state = _state_of_query(request)
        ws = await viewer.with_network(place(), state.network, lambda painter: painter.ws(state).cpu().numpy())
        return Response(encode.npz({"w": ws}), media_type="application/octet-stream")

    async def session(request: Request) -> Response:
        may = request.state.role == "full"
        return JSONResponse({
            "sg3": __version__, "role": request.state.role, **({"look": viewer.tokens.look} if may else {}),
        })  # fmt: skip

    async def networks(_: Request) -> Response:
        entries = await asyncio.to_thread(viewer.catalogue.entries)
        listed = [{"name": e.name, "run": e.run, "kimg": e.kimg} for e in entries.values()]
        return JSONResponse({"networks": listed})

    async def network(request: Request) -> Response:
        name = request.query_params.get("network", "")
        facts = await viewer.with_network(place(), name, lambda painter: painter.facts())
        entry = await asyncio.to_thread(viewer.catalogue.find, name)
        return JSONResponse({"name": entry.name, "run": entry.run, "kimg": entry.kimg, **facts})

    async def layers(request: Request) -> Response:
        state = _state_of_query(request)
        found = await viewer.with_network(place(), state.network, lambda painter: statistics(painter, state))
        return JSONResponse({"layers": found})

    async def openapi(_: Request) -> Response:
        return JSONResponse(description())

    gets: dict[str, Answer] = {
        "/api/image.png": image, "/api/session": session, "/api/networks": networks, "/api/network": network,
        "/api/layers": layers, "/api/latent.npz": latent, "/api/openapi.json": openapi,
    }  # fmt: skip
    answers = [Route(path, _explained(viewer, answer), methods=["GET"]) for path, answer in gets.items()]
    return [*answers, Route("/api/render", _explained(viewer, posted), methods=["POST"])]


def _explained(viewer: Viewer, answer: Answer) -> Answer:
    """The same, but whatever fails is said in JSON."""

    async def answering(request: Request) -> Response:
        try:
            return await answer(request)
        except ClientDisconnect:
            return Response(status_code=499)
        except (Stale, Sg3Error, Exception) as error:
            status, words = await asyncio.to_thread(viewer.explain, error)
            return JSONResponse(error_body(status, words), status_code=status)

    return answering


def _state_of_query(request: Request) -> State:
    given = request.query_params.multi_items()
    if len(given) > FIELDS or len({name for name, _ in given}) < len(given):
        raise UsageError("query: a setting appears twice")
    return State.read({name: value for name, value in given if name != "token"})


async def _json_object(request: Request) -> dict[str, Any]:
    """The body. Raises UsageError if it is too large or no JSON object."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise UsageError("Content-Type: expected application/json")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > JSON_BYTES:
            raise UsageError(f"body: expected at most {JSON_BYTES} bytes")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise UsageError("body: expected a JSON object with settings, such as {\"seed\": 0}")
    return content
