"""Clients that ask a viewer's application without a server between."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.helpers.viewers import FULL

pytest.importorskip("httpx2", reason="httpx2, which starlette's test client needs, is not installed")

from starlette.testclient import TestClient

from sg3.viewer.guard import RATE
from sg3.viewer.server import application
from sg3.viewer.viewer import Viewer


@contextmanager
def client_of(viewer: Viewer, token: str = FULL) -> Iterator[TestClient]:
    """One that shows its token; in the end the viewer is closed."""
    with TestClient(application(viewer), base_url="http://localhost") as made:
        made.headers["authorization"] = f"Bearer {token}"
        yield made
    viewer.close()


def until(
    client: TestClient, task: str, enough: Callable[[dict[str, Any]], bool] = lambda status: not status["running"]
) -> dict[str, Any]:
    """The status of a task as soon as it is `enough`. It asks less often than the limit of requests in a second."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        answer = client.get(f"/api/task?task={task}")
        status = answer.json()
        assert answer.status_code == 200, status
        if enough(status):
            return status
        time.sleep(1.5 / RATE)
    raise AssertionError(status)
