"""The OpenAPI description of the HTTP API, from the declaration of the settings."""

from __future__ import annotations

from typing import Any

from sg3._version import __version__
from sg3.viewer.state import schema

PNG = {"description": "The picture, with its settings as JSON in the text field `sg3`.",
       "content": {"image/png": {}}}  # fmt: skip
ERROR = {"description": "What is wrong, and what to do about it.",
         "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}  # fmt: skip
NPZ = {"description": "Arrays for NumPy.", "content": {"application/octet-stream": {}}}
FILE = {"required": True, "description": "An .npz file.", "content": {"application/octet-stream": {}}}
IMAGE = {"required": True, "description": "A PNG, JPEG or WebP.", "content": {"application/octet-stream": {}}}
OBJECT = {"description": "As JSON.", "content": {"application/json": {"schema": {"type": "object"}}}}


def description() -> dict[str, Any]:
    """OpenAPI 3.1."""
    state = schema()
    query = [
        {"name": name, "in": "query", "description": kind["description"], "style": "form", "explode": False,
         "schema": {key: value for key, value in kind.items() if key != "description"}}
        for name, kind in state["properties"].items()
    ]  # fmt: skip
    search = [{"name": name, "in": "query", "schema": kind} for name, kind in {
        "steps": {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 300},
        "space": {"type": "string", "enum": ["w", "w+"], "default": "w"},
        "lr": {"type": "number", "minimum": 1e-6, "maximum": 10, "default": 0.1},
    }.items()]  # fmt: skip
    network = [parameter for parameter in query if parameter["name"] == "network"]
    of_layer = [{**parameter, "required": parameter["name"] == "layer"} for parameter in query]
    body = {"required": True, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/State"}}}}
    run = [{"name": "run", "in": "query", "required": True, "schema": {"type": "string"}}]
    which = {"name": "which", "in": "query", "schema": {"type": "string", "enum": ["reals", "fakes"]}}
    until = {"name": "kimg", "in": "query", "schema": {"type": "integer", "minimum": 0}}
    parents = {"required": True, "content": {"application/json": {"schema": {"type": "object", "properties": {
        "parents": {"type": "array", "items": {"$ref": "#/components/schemas/State"}, "minItems": 1},
        "count": {"type": "integer"}, "strength": {"type": "number"}, "seed": {"type": "integer"}}}}}}  # fmt: skip
    states = {"required": True, "content": {"application/json": {"schema": {"type": "object", "properties": {
        "states": {"type": "array", "items": {"$ref": "#/components/schemas/State"}, "minItems": 1}}}}}}  # fmt: skip
    names = [{"name": "latents", "in": "query", "required": True, "schema": {"type": "string"}}]
    pair = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    points = {"required": True, "content": {"application/json": {"schema": {"type": "object", "properties": {
        "state": {"$ref": "#/components/schemas/State"}, "handles": {"type": "array", "items": pair},
        "targets": {"type": "array", "items": pair}, "mask": {"type": "array", "items": {"type": "integer"}},
        "lr": {"type": "number"}, "layer": {"type": "string"}, "keep_pose": {"type": "boolean"},
        "iterations": {"type": "integer"}, "steps": {"type": "integer"},
        "mask_weight": {"type": "number"}}}}}}  # fmt: skip
    task = [{"name": "task", "in": "query", "required": True, "schema": {"type": "string"}}]
    action = {"required": True, "content": {"application/json": {"schema": {"type": "object", "properties": {
        "task": {"type": "string"}, "steps": {"type": "integer"},
        "action": {"type": "string", "enum": ["stop", "undo", "continue"]}}}}}}  # fmt: skip
    error = {"type": "object", "properties": {"error": {"type": "object", "properties": {
        "status": {"type": "integer"}, "message": {"type": "string"}}}}}  # fmt: skip
    return {
        "openapi": "3.1.0",
        "info": {"title": "sg3 view", "version": __version__},
        "security": [{"bearer": []}, {"query": []}],
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "query": {"type": "apiKey", "in": "query", "name": "token"},
            },
            "schemas": {"State": state, "Error": error},
        },
        "paths": {
            "/api/image.png": {"get": _does("The picture that sg3 generate makes with these settings", query, PNG)},
            "/api/render": {"post": {**_does("The same for a state as JSON", [], PNG), "requestBody": body}},
            "/api/latent.npz": {"get": _does("The latent, w [1, layers, width], as sg3 video --latents takes it", query,
                                             NPZ)},
            "/api/networks": {"get": _does("Networks that may be opened", [], OBJECT)},
            "/api/network": {"get": _does("What a network is: sizes, classes, layers", network, OBJECT)},
            "/api/layers": {"get": _does("Sizes and statistics of all layers for a picture", query, OBJECT)},
            "/api/spectrum": {"get": _does("Power spectrum of a layer, averaged around circles", of_layer, OBJECT)},
            "/api/equivariance": {"get": _does("EQ-T and EQ-R of this picture, in decibels", query, OBJECT)},
            "/api/run": {"get": _does("Snapshots, curves and metrics of a run", run, OBJECT)},
            "/api/run.png": {"get": _does("Its grid of real images, or the newest of fakes (up to kimg)",
                                          [*run, which, until], PNG)},
            "/api/latents": {"post": {**_does("Load latents: names for the setting `latent`", query, OBJECT),
                                      "requestBody": FILE}},
            "/api/keep": {"post": {**_does("Keep what these states show: names for the setting `latent`", [], OBJECT),
                                   "requestBody": states}},
            "/api/latents.npz": {"get": _does("Latents by their names, w [N, layers, width]", names, NPZ)},
            "/api/directions": {"post": {**_does("Load directions: a name of a set", [], OBJECT), "requestBody": FILE}},
            "/api/children": {"post": {**_does("Breed: latents, each layer from one of the parents", [], OBJECT),
                                       "requestBody": parents}},
            "/api/drag": {"post": {**_does("Drag points of the picture", [], OBJECT), "requestBody": points}},
            "/api/project": {"post": {**_does("Find the latent of an image", [*query, *search], OBJECT),
                                      "requestBody": IMAGE}},
            "/api/task": {
                "get": _does("How far a drag or a projection is", task, OBJECT),
                "post": {**_does("Stop it; take back steps of a drag, or go on with it", [], OBJECT),
                         "requestBody": action},
            },
            "/api/session": {"get": _does("What the token allows: full, or look", [], OBJECT)},
        },
    }


def _does(summary: str, parameters: list[dict[str, Any]], answer: dict[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "parameters": parameters, "responses": {"200": answer, "default": ERROR}}
