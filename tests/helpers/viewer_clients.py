"""Clients that ask a viewer's application without a server between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.helpers.viewers import FULL

pytest.importorskip("httpx2", reason="httpx2, which starlette's test client needs, is not installed")

from starlette.testclient import TestClient

from sg3.viewer.server import application
from sg3.viewer.viewer import Viewer


@contextmanager
def client_of(viewer: Viewer, token: str = FULL) -> Iterator[TestClient]:
    """One that shows its token; in the end the viewer is closed."""
    with TestClient(application(viewer), base_url="http://localhost") as made:
        made.headers["authorization"] = f"Bearer {token}"
        yield made
    viewer.close()
