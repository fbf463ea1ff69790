"""A stand-in for the Hugging Face Hub: as much of its protocol as uploads and downloads of models use."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LARGE = 2000  # bytes from which on a file goes the way of large ones


@dataclass
class Repository:
    """Files of its only branch, by commits."""

    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{}])
    private: bool = False

    def sha(self) -> str:
        return f"{len(self.commits):040x}"


def card_errors(content: str) -> list[dict[str, str]]:
    """What is wrong with the metadata of a model card: what the package cannot read, or a licence in other words."""
    from huggingface_hub import ModelCard

    try:
        card = ModelCard(content)
    except ValueError as error:
        return [{"message": str(error)}]
    if not re.fullmatch(r"[a-z0-9.-]+", str(card.data.license)):
        return [{"message": '"license" must be one of [apache-2.0, mit, cc-by-4.0, other, ...]'}]
    return []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self) -> None:
        self.route("GET")

    def do_HEAD(self) -> None:
        self.route("HEAD")

    def do_POST(self) -> None:
        self.route("POST")

    def do_PUT(self) -> None:
        self.route("PUT")

    def route(self, method: str) -> None:
        path = self.path.partition("?")[0]
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(self.chunks())
        self.server.requests.append((method, path, dict(self.headers)))
        if self.server.broken:
            return self.answer(500, {"error": "out of order"})
        if path == "/api/repos/create":
            name = "/".join(filter(None, (json.loads(body).get("organization"), json.loads(body)["name"])))
            name = name if "/" in name else f"me/{name}"
            is_new = name not in self.server.repos
            is_private = json.loads(body).get("private") or json.loads(body).get("visibility") == "private"
            self.server.repos.setdefault(name, Repository(private=bool(is_private)))
            return self.answer(200 if is_new else 409, {"url": f"{self.server.url}/{name}", "id": name, "name": name})
        if path == "/api/validate-yaml":
            errors = card_errors(json.loads(body)["content"])
            return self.answer(400 if errors else 200, {"errors": errors, "warnings": []})
        if found := re.fullmatch(r"/large/(\w+)", path):
            assert hashlib.sha256(body).hexdigest() == found[1]
            self.server.large[found[1]] = body
            return self.answer(200, {})
        found = re.fullmatch(r"(?:/api/models)?/([\w.-]+/[\w.-]+?)(\.git)?(?:/(.*))?", path)
        repo = self.server.repos.get(found[1]) if found else None
        if found is None or repo is None or (repo.private and self.headers.get("Authorization") != "Bearer secret"):
            return self.answer(401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        rest = found[3] or ""
        if rest.startswith("preupload/"):
            modes = {file["path"]: "lfs" if file["size"] > LARGE else "regular" for file in json.loads(body)["files"]}
            answers = [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]
            return self.answer(200, {"files": answers})
        if rest == "info/lfs/objects/batch":
            objects = [
                {**o, "actions": {"upload": {"href": f"{self.server.url}/large/{o['oid']}", "header": {}}}}
                for o in json.loads(body)["objects"]
            ]
            return self.answer(200, {"transfer": "basic", "objects": objects})
        if rest.startswith("commit/"):
            files = dict(repo.commits[-1])
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                if line["key"] == "lfsFile":
                    files[value["path"]] = self.server.large[value["oid"]]
            repo.commits.append(files)
            url = f"{self.server.url}/{found[1]}/commit/{repo.sha()}"
            return self.answer(200, {"commitUrl": url, "commitOid": repo.sha(), "success": True})
        if rest == "" or rest.startswith("revision/"):
            revision = rest.removeprefix("revision/") or "main"
            if revision not in ("main", repo.sha()):
                return self.answer(404, {"error": "Invalid rev"}, X_Error_Code="RevisionNotFound")
            siblings = [self.described(name, content) for name, content in repo.commits[-1].items()]
            return self.answer(200, {"id": found[1], "modelId": found[1], "sha": repo.sha(), "siblings": siblings})
        if rest.startswith("resolve/"):
            name = rest.split("/", 2)[2]
            content = repo.commits[-1].get(name)
            if content is None:
                return self.answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
            etag = hashlib.sha256(content).hexdigest()
            return self.answer(200, self.server.instead.get(name, content), X_Repo_Commit=repo.sha(), ETag=f'"{etag}"')
        return self.answer(404, {"error": f"the stand-in knows no {method} {path}"})

    @staticmethod
    def described(name: str, content: bytes) -> dict[str, Any]:
        facts: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
        if len(content) > LARGE:
            sha = hashlib.sha256(content).hexdigest()
            facts["lfs"] = {"sha256": sha, "size": len(content), "pointerSize": 130}
        return facts

    def chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()

    def answer(self, status: int, content: Any, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        kind = "octet-stream" if isinstance(content, bytes) else "json"
        self.send_header("Content-Type", f"application/{kind}")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Hub(ThreadingHTTPServer):
    """`repos` by OWNER/NAME; `instead` has what is sent in place of a file; `broken` fails everything."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.repos: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.instead: dict[str, bytes] = {}
        self.broken = False


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A Hub that answers until the end of the block."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
