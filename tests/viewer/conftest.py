"""The browser of a module's tests, and its page of that module's server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module")
def browser(server: Any) -> Iterator[Any]:
    from tests.helpers.browsers import chromium

    with chromium() as made:
        yield made


@pytest.fixture
def page(browser: Any, server: Any) -> Iterator[Any]:
    from tests.helpers.browsers import opened, settled
    from tests.helpers.viewers import FULL

    with opened(browser, server.url(f"/#token={FULL}")) as made:
        settled(made)
        yield made
