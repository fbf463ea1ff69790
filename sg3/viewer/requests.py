"""What the API's answers share: failures in JSON, settings and bodies out of requests, and who may change something."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from sg3.errors import Sg3Error, UsageError
from sg3.viewer.engine import Stale
from sg3.viewer.guard import error_body
from sg3.viewer.state import State
from sg3.viewer.viewer import Forbidden, TooLarge, Viewer, Visit

JSON_BYTES = 2**16
FIELDS = 100  # in a query

Answer = Callable[[Request], Awaitable[Response]]


def place(request: Request) -> Visit:
    """The place of a request, whose body has been read, in the networks' queue: requests do not replace one another."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return Visit(request.state.role, gone)


def explained(viewer: Viewer, answer: Answer) -> Answer:
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


def state_of_query(request: Request, besides: Collection[str] = ()) -> State:
    """The settings in a query, which may have others `besides`. Raises UsageError."""
    given = request.query_params.multi_items()
    if len(given) > FIELDS or len({name for name, _ in given}) < len(given):
        raise UsageError("query: a setting appears twice")
    return State.read({name: value for name, value in given if name != "token" and name not in besides})


def needed(request: Request, name: str, what: str) -> str:
    """A parameter of the query that there is no answer without. Raises UsageError."""
    value = request.query_params.get(name)
    if not value:
        raise UsageError(f"{name}: needed, {what}")
    return value


async def json_object(request: Request, most: int = JSON_BYTES) -> dict[str, Any]:
    """The body. Raises TooLarge, and UsageError if it is no JSON object."""
    body = await body_of(request, "application/json", most)
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise UsageError("body: expected a JSON object with settings, such as {\"seed\": 0}")
    return content


async def body_of(request: Request, kind: str, most: int) -> bytes:
    """The body. Raises UsageError if it is of another type, TooLarge if larger: no more of it is read then."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != kind:
        raise UsageError(f"Content-Type: expected {kind}")
    pieces, size = [], 0
    async for piece in request.stream():
        pieces.append(piece)
        size += len(piece)
        if size > most:
            raise TooLarge(f"body: expected at most {most} bytes")
    return b"".join(pieces)


def may_change(request: Request) -> None:
    """Raise Forbidden unless the token is for more than looking."""
    if request.state.role != "full":
        raise Forbidden("this link is to look only; ask for one that may do more")
