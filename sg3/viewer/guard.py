"""Who may ask for what: the gate in front of everything.

- Token: a secret in the page's address, after the #, where browsers keep it to themselves. There is no cookie, so other
  sites cannot ask in the user's name. A second token only looks.
- Host: a site that points its own name at this machine (DNS rebinding) is known by that name.
- Origin: a browser says which page asks; only our own may.
- Rate: one address gets so many answers in a second, with each token and without one.
- Connections that only hold the server up: see `lines`.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
import socket
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sg3.viewer.lines import Lines

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
ADDRESSES = 1_000  # that are remembered
RATE = 50.0  # requests in a second
BURST = 400.0
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin", "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}  # fmt: skip


@dataclass(frozen=True)
class Tokens:
    """`full` may everything, `look` only look."""

    full: str | None = field(default_factory=lambda: secrets.token_urlsafe(24))
    look: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def role(self, given: str) -> str | None:
        """'full', 'look' or None, in a time that tells nothing of the tokens."""
        said = given.encode("utf-8", "replace")
        looks = compare_digest(said, self.look.encode())
        does = compare_digest(said, (self.full or "").encode()) and self.full is not None
        return "full" if does else "look" if looks else None


class Buckets:
    """So many requests in a second from an address, and a number of them at once."""

    def __init__(self, rate: float = RATE, burst: float = BURST) -> None:
        self._rate, self._burst = rate, burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address -> (requests left, when)

    def take(self, address: str) -> bool:
        """Whether there is one left."""
        now = time.monotonic()
        left, then = self._left.pop(address, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._rate)
        self._left[address] = (left - 1 if left >= 1 else left, now)
        while len(self._left) > ADDRESSES:
            self._left.popitem(last=False)
        return left >= 1


class Guard:
    """ASGI middleware. What passes has `scope["state"]["role"]`: 'full', 'look', or None for the page's own files."""

    def __init__(self, app: ASGIApp, tokens: Tokens, host: str) -> None:
        self._app = app
        self._tokens = tokens
        self._buckets = Buckets()
        self.lines = Lines()  # that lead here
        self._names = {*LOCAL_NAMES, host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
        self._anywhere = not is_local(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is None:
            await self._app(scope, receive, _with_headers(send) if scope["type"] == "http" else send)
        elif scope["type"] == "http":
            await _refuse(_with_headers(send), *refusal)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": refusal[1][:100]})

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not self._may_be_called(host):
            return 403, "this name is not one of this server's; open the address that sg3 view has printed"
        origin = headers.get("origin")
        if origin is not None and not _same(origin, host):
            return 403, "another site asks; open the address that sg3 view has printed"
        # A link from elsewhere to the page itself leads to nothing but its form.
        is_link = scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not is_link:
            return 403, "another site asks; open the address that sg3 view has printed"
        scope.setdefault("state", {})["role"] = None
        if not scope["path"].startswith("/api/"):
            return None
        role = self._tokens.role(_token(scope, headers))
        address = str((scope.get("client") or ("",))[0])  # the same for all that come through ssh
        if not self._buckets.take(f"{address} {role}"):
            return 429, f"too many requests; no more than {RATE:.0f} in a second"
        if role is None:
            return 401, "the token is missing or wrong; add ?token=... or 'Authorization: Bearer ...' with the one " \
                        "that sg3 view has printed"
        scope["state"]["role"] = role
        if scope.get("client"):
            self.lines.trust(tuple(scope["client"]))
        return None

    def _may_be_called(self, host: str) -> bool:
        """Whether this is a name of ours. Ports may differ: `ssh -L` gives another one."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
            _ = urlsplit(f"//{host}").port
        except ValueError:
            return False
        if not name or any(c in host for c in "/@?#\\"):
            return False
        return name in self._names or (self._anywhere and _is_address(name))


def is_local(host: str) -> bool:
    """Whether only programs on this machine reach what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_address(name: str) -> bool:
    """Numbers, unlike names, are nobody's to point elsewhere."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _same(origin: str, host: str) -> bool:
    parts = urlsplit(origin)
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _token(scope: Scope, headers: dict[str, str]) -> str:
    kind, _, word = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return word.strip()
    try:
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"), max_num_fields=100)
    except ValueError:
        return ""
    return query.get("token", [""])[0]


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name.lower() for name, _ in message.get("headers", [])}
            extra = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in given]
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        await send(message)

    return sending


async def _refuse(send: Send, status: int, why: str) -> None:
    body = json.dumps(error_body(status, why)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def error_body(status: int, message: str) -> dict[str, Any]:
    """What every failure looks like, as JSON."""
    return {"error": {"status": status, "message": message}}
