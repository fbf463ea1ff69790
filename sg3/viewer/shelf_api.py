"""The HTTP API of what is kept for clients: latents and directions that are loaded, children that are bred."""

from __future__ import annotations

import asyncio

import torch
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sg3.errors import UsageError
from sg3.viewer.breeding import breed
from sg3.viewer.encode import npz
from sg3.viewer.pictures import Painter
from sg3.viewer.requests import Answer, body_of, explained, json_object, may_change, needed, place, state_of_query
from sg3.viewer.settings import Real, Whole
from sg3.viewer.shelf import UPLOAD, Maps, read_latents
from sg3.viewer.state import SEED, State
from sg3.viewer.viewer import Check, Viewer

BYTES = "application/octet-stream"
MOST_PARENTS = 16
MOST_CHILDREN = 36
MOST_KEYS = 200  # latents that are kept, or fetched, together
KEEP_BYTES = 2**18


def routes(viewer: Viewer) -> list[Route]:
    """All of it."""

    async def latents(request: Request) -> Response:
        may_change(request)
        state = state_of_query(request)
        data = await body_of(request, BYTES, UPLOAD)

        def put(ws: torch.Tensor, noise: Maps) -> list[str]:
            return [viewer.shelf.put_latent(one[None], noise) for one in ws]

        # On the networks' thread is only what takes the network: a file of a hundred million bytes takes a while.
        G = await viewer.with_network(place(request), state.network, lambda painter, _: painter.walkable)
        loaded = await asyncio.to_thread(read_latents, data, G)
        ws = await viewer.with_network(place(request), state.network, lambda _, __: loaded.ws(G, state.class_idx))
        return JSONResponse({"latents": await asyncio.to_thread(put, ws, loaded.noise)})

    async def keep(request: Request) -> Response:
        may_change(request)
        given = (await json_object(request, KEEP_BYTES)).get("states")
        if not isinstance(given, list) or not 1 <= len(given) <= MOST_KEYS \
                or not all(isinstance(state, dict) for state in given):  # fmt: skip
            raise UsageError(f"states: expected 1 to {MOST_KEYS} objects with settings")
        states = [State.read(state) for state in given]
        if any(state.network != states[0].network for state in states):
            raise UsageError("states: expected one network for all of them")

        def put(painter: Painter, _: Check) -> list[str]:
            return [viewer.shelf.put_latent(painter.ws(state)) for state in states]

        return JSONResponse({"latents": await viewer.with_network(place(request), states[0].network, put)})

    async def kept(request: Request) -> Response:
        names = needed(request, "latents", "names from /api/keep, with commas between them").split(",")
        if len(names) > MOST_KEYS:
            raise UsageError(f"latents: expected at most {MOST_KEYS} names")
        return Response(npz({"w": await asyncio.to_thread(viewer.shelf.together, names)}), media_type=BYTES)

    async def directions(request: Request) -> Response:
        may_change(request)
        data = await body_of(request, BYTES, UPLOAD)
        name, count = await asyncio.to_thread(viewer.shelf.put_directions, data)
        return JSONResponse({"name": name, "count": count})

    async def children(request: Request) -> Response:
        may_change(request)
        asked = await json_object(request)
        given = asked.get("parents")
        if not isinstance(given, list) or not 1 <= len(given) <= MOST_PARENTS \
                or not all(isinstance(parent, dict) for parent in given):  # fmt: skip
            raise UsageError(f"parents: expected 1 to {MOST_PARENTS} objects with settings")
        parents = [State.read(parent) for parent in given]
        count = _read("count", Whole(1, MOST_CHILDREN), asked.get("count", 9))
        strength = _read("strength", Real(0, 1), asked.get("strength", 0.2))
        seed = _read("seed", SEED, asked.get("seed", 0))

        def make(painter: Painter, _: Check) -> list[str]:
            return [viewer.shelf.put_latent(ws) for ws in breed(painter, parents, int(count), strength, int(seed))]

        return JSONResponse({"latents": await viewer.with_network(place(request), parents[0].network, make)})

    posts: dict[str, Answer] = {
        "/api/latents": latents, "/api/directions": directions, "/api/children": children, "/api/keep": keep,
    }  # fmt: skip
    answers = [Route(path, explained(viewer, answer), methods=["POST"]) for path, answer in posts.items()]
    return [*answers, Route("/api/latents.npz", explained(viewer, kept), methods=["GET"])]


def _read(name: str, kind: Whole | Real, value: object) -> float:
    try:
        return kind.read(value)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None
