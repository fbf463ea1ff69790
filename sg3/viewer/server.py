"""The application: page, API and websocket behind the guard; and the server that runs it."""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import suppress
from importlib import resources
from typing import cast

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute

from sg3.errors import UsageError
from sg3.viewer import api, runs, shelf_api, tasks_api
from sg3.viewer.guard import Guard, error_body
from sg3.viewer.sockets import MESSAGE_BYTES, Sockets
from sg3.viewer.viewer import Viewer

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
CONNECTIONS = 512
ENDING_SECONDS = 2


def application(viewer: Viewer, host: str = "127.0.0.1") -> Guard:
    """Everything that a browser may ask for, as ASGI; `host` is the name that it is served under."""
    files = page_files()

    async def page(request: Request) -> Response:
        path = request.path_params.get("path") or "index.html"
        if path not in files:
            return JSONResponse(error_body(404, "there is no such page; the viewer is at /"), status_code=404)
        body, media_type = files[path]
        return Response(body, media_type=media_type, headers={"cache-control": "no-cache"})

    async def nothing(_: Request, error: Exception) -> Response:
        status = int(getattr(error, "status_code", 500))
        return JSONResponse(error_body(status, "there is nothing like that here; see /api/openapi.json"), status)

    async def other_method(_: Request, error: Exception) -> Response:
        given = dict(getattr(error, "headers", None) or {})
        methods = [method for method in given.get("Allow", "").split(", ") if method != "HEAD"]
        return JSONResponse(error_body(405, f"this address takes {' and '.join(sorted(methods))}"), 405, given)

    answers = [*api.routes(viewer), *shelf_api.routes(viewer), *runs.routes(viewer), *tasks_api.routes(viewer)]
    app = Starlette(
        routes=[
            *answers, WebSocketRoute("/api/socket", Sockets(viewer).serve), Route("/", page), Route("/{path}", page),
        ],
        exception_handlers={404: nothing, 405: other_method},
    )
    return Guard(app, viewer.tokens, host)


def page_files() -> dict[str, tuple[bytes, str]]:
    """The page's files by name, with their types: what is served is what was there at the start."""
    found = {}
    for file in (resources.files("sg3.viewer") / "static").iterdir():
        suffix = "." + file.name.rpartition(".")[2]
        if suffix in TYPES:
            found[file.name] = (file.read_bytes(), TYPES[suffix])
    return found


def listen(host: str, port: int) -> socket.socket:
    """A socket to serve at; port 0 is any that is free. Raises UsageError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        hint = "try --port=0 for any that is free" if error.errno in (13, 48, 98) else "choose another one"
        raise UsageError(f"--host={host} --port={port}: cannot listen there: {error.strerror}; {hint}") from None
    return listening


def configuration(app: Guard) -> uvicorn.Config:
    """How uvicorn serves it."""
    return uvicorn.Config(
        app, http=cast(type[asyncio.Protocol], app.lines.protocol), log_config=None,
        access_log=False, lifespan="off", server_header=False, proxy_headers=False,
        ws_max_size=MESSAGE_BYTES, ws_per_message_deflate=False, limit_concurrency=CONNECTIONS, timeout_keep_alive=30,
        timeout_graceful_shutdown=ENDING_SECONDS, log_level="critical",
    )  # fmt: skip


def take_short_turns() -> None:
    """Have Python's threads change places every millisecond, in place of five: an answer needs several turns, and while
    a network is read another thread always wants its own."""
    sys.setswitchinterval(0.001)


def serve(app: Guard, listening: socket.socket) -> None:
    """Answer until the process is interrupted."""
    take_short_turns()
    with suppress(KeyboardInterrupt):
        uvicorn.Server(configuration(app)).run(sockets=[listening])
