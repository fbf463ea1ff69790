"""The HTTP API: pictures, networks and layers, for the page and for `curl` alike. Errors are JSON."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sg3._version import __version__
from sg3.viewer import encode, features
from sg3.viewer.equivariance import readings
from sg3.viewer.layers import statistics
from sg3.viewer.openapi import description
from sg3.viewer.requests import Answer, explained, json_object, needed, place, state_of_query
from sg3.viewer.state import State
from sg3.viewer.viewer import Viewer


def routes(viewer: Viewer) -> list[Route]:
    """All of the API."""
    async def image(request: Request) -> Response:
        return await render(request, state_of_query(request))

    async def posted(request: Request) -> Response:
        return await render(request, State.read(await json_object(request)))

    async def render(request: Request, state: State) -> Response:
        frame = await viewer.frame(place(request), state)
        settings = await asyncio.to_thread(viewer.settings, state, frame.classes)
        return Response(await asyncio.to_thread(encode.png, frame.pixels, settings), media_type="image/png")

    async def latent(request: Request) -> Response:
        state = state_of_query(request)
        ws = await viewer.with_network(place(request), state.network, lambda painter, _: painter.ws(state).cpu())
        noise = {f"noise/{name}": values.numpy() for name, values in viewer.shelf.noise(state.latent).items()}
        return Response(encode.npz({"w": ws.numpy(), **noise}), media_type="application/octet-stream")

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
        facts = await viewer.facts(name)
        entry = await asyncio.to_thread(viewer.catalogue.find, name)
        return JSONResponse({"name": entry.name, "run": entry.run, "kimg": entry.kimg, **facts})

    async def layers(request: Request) -> Response:
        state = state_of_query(request)
        found = await viewer.with_network(
            place(request), state.network, lambda painter, check: statistics(painter, state, check)
        )
        return JSONResponse({"layers": found})

    async def spectrum(request: Request) -> Response:
        state = state_of_query(request)
        needed(request, "layer", "a name from /api/layers")
        return JSONResponse(await viewer.with_network(
            place(request), state.network, lambda painter, check: features.radial(painter, state, check)
        ))  # fmt: skip

    async def equivariance(request: Request) -> Response:
        state = state_of_query(request)
        return JSONResponse(await viewer.with_network(
            place(request), state.network, lambda painter, check: readings(painter, state, check)
        ))  # fmt: skip

    async def openapi(_: Request) -> Response:
        return JSONResponse(description())

    gets: dict[str, Answer] = {
        "/api/image.png": image, "/api/session": session, "/api/networks": networks, "/api/network": network,
        "/api/spectrum": spectrum, "/api/equivariance": equivariance,
        "/api/layers": layers, "/api/latent.npz": latent, "/api/openapi.json": openapi,
    }  # fmt: skip
    answers = [Route(path, explained(viewer, answer), methods=["GET"]) for path, answer in gets.items()]
    return [*answers, Route("/api/render", explained(viewer, posted), methods=["POST"])]
