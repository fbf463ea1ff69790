"""Who may ask: tokens, names of the server, other sites, floods."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.for_tools import saved, tiny3
from tests.helpers.viewers import FULL, LOOK, viewer_of

pytest.importorskip("httpx2", reason="httpx2, which starlette's test client needs, is not installed")

from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from sg3.viewer import guard
from sg3.viewer.guard import Buckets, Tokens
from sg3.viewer.server import application


@pytest.fixture(scope="module")
def viewer(tmp_path_factory) -> Iterator:
    made = viewer_of(saved(tiny3(), tmp_path_factory.mktemp("networks") / "net.pkl"))
    yield made
    made.close()


@pytest.fixture
def client(viewer) -> Iterator[TestClient]:
    with TestClient(application(viewer), base_url="http://localhost:8765") as made:
        yield made


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_tokens() -> None:
    tokens = Tokens()
    assert tokens.full is not None
    assert len(tokens.full) >= 32
    assert tokens.full != tokens.look != Tokens().look
    assert (tokens.role(tokens.full), tokens.role(tokens.look)) == ("full", "look")
    for wrong in ("", "x", tokens.full[:-1], tokens.full + "x", "\udcff", "é"):
        assert tokens.role(wrong) is None
    assert Tokens(None, "look").role("") is None


def test_every_part_of_the_api_needs_a_token(client: TestClient) -> None:
    for path in ("/api/image.png", "/api/networks", "/api/network", "/api/layers", "/api/session", "/api/openapi.json",
                 "/api/nothing"):  # fmt: skip
        for headers in ({}, bearer("wrong"), {"authorization": "Basic x"}, {"cookie": f"token={FULL}"}):
            answer = client.get(path, headers=headers)
            assert answer.status_code == 401, path
            assert "that sg3 view has printed" in answer.json()["error"]["message"]
    assert client.post("/api/render", json={}).status_code == 401
    assert client.get("/api/session", headers=bearer(FULL)).json()["role"] == "full"
    assert client.get(f"/api/session?token={LOOK}").json()["role"] == "look"
    assert client.get(f"/api/session?token=&token={LOOK}").status_code == 200


def test_a_socket_needs_a_token_and_our_own_page(client: TestClient) -> None:
    cases = [("", {}), ("?token=wrong", {}), (f"?token={FULL}", {"origin": "http://evil.example"}),
             (f"?token={FULL}", {"host": "evil.example"}), (f"?token={FULL}", {"origin": "null"})]  # fmt: skip
    for query, headers in cases:
        with pytest.raises(WebSocketDisconnect), client.websocket_connect(f"/api/socket{query}", headers=headers):
            pass


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8765", "localhost.evil.example", "127.0.0.1.evil.example", "", "localhost:x",
     "localhost@evil.example", "localhost/x", "192.168.0.1", "[::1", "localhost#", "LOCALHOST.evil"],
)  # fmt: skip
def test_names_that_are_not_ours(client: TestClient, host: str) -> None:
    for path in ("/", "/api/session"):
        answer = client.get(path, headers={"host": host, **bearer(FULL)})
        assert answer.status_code == 403
        assert "is not one of this server's" in answer.json()["error"]["message"]


@pytest.mark.parametrize("host", ["localhost", "LocalHost:9000", "127.0.0.1:1", "[::1]:8765"])
def test_names_that_are_ours_at_any_port_as_ssh_forwards_them(client: TestClient, host: str) -> None:
    assert client.get("/api/session", headers={"host": host, **bearer(FULL)}).status_code == 200


def test_a_server_for_others_is_called_by_numbers_too(viewer) -> None:
    with TestClient(application(viewer, "0.0.0.0"), base_url="http://192.168.0.7:8765") as client:
        assert client.get("/api/session", headers=bearer(FULL)).status_code == 200
        assert client.get("/api/session", headers={"host": "evil.example", **bearer(FULL)}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://localhost:9999"},
     {"origin": "file://localhost:8765"}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}],
)  # fmt: skip
def test_other_sites(client: TestClient, headers: dict[str, str]) -> None:
    assert client.get("/api/session", headers={**headers, **bearer(FULL)}).status_code == 403
    assert client.post("/api/render", json={}, headers={**headers, **bearer(FULL)}).status_code == 403


def test_a_link_from_elsewhere_leads_to_the_page(client: TestClient) -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/", headers=link).status_code == 200
    assert client.get("/api/session", headers={**link, **bearer(FULL)}).status_code == 403


def test_headers_that_keep_browsers_in_order(client: TestClient) -> None:
    for path in ("/", "/api/session", "/nothing"):
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "set-cookie" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers


def test_buckets(monkeypatch) -> None:
    now = 100.0
    monkeypatch.setattr(guard.time, "monotonic", lambda: now)
    buckets = Buckets(rate=10, burst=3)
    assert [buckets.take("a") for _ in range(5)] == [True, True, True, False, False]
    assert buckets.take("b")
    now += 0.15
    assert [buckets.take("a") for _ in range(2)] == [True, False]
    for n in range(2 * guard.ADDRESSES):
        buckets.take(str(n))
    assert len(buckets._left) == guard.ADDRESSES


def test_a_flood_of_requests_is_held_back(viewer, monkeypatch) -> None:
    monkeypatch.setattr(guard.Buckets.__init__, "__defaults__", (0.001, 5.0))
    with TestClient(application(viewer), base_url="http://localhost") as client:
        statuses = [client.get("/api/session", headers=bearer("wrong")).status_code for _ in range(8)]
        assert statuses[:5] == [401] * 5
        assert statuses[5:] == [429] * 3
        assert client.get("/api/session", headers=bearer(FULL)).status_code == 200  # who has a token is not held back
        assert client.get("/").status_code == 200


def test_no_path_gets_out(tmp_path: Path) -> None:
    from sg3.errors import DataError
    from sg3.viewer.catalogue import Catalogue, public

    path = saved(tiny3(), tmp_path / "net.pkl")
    catalogue = Catalogue([path], [])
    for text in (f"{path}: is damaged", f"{path.resolve()}: is damaged; see {tmp_path}/other/file.txt,", "C:\\a\\b"):
        shown = public(DataError(text), catalogue)
        assert str(tmp_path) not in shown
        assert "/" not in shown
    assert public(DataError(f"{path}: is damaged"), catalogue) == "net.pkl: is damaged"
