"""Downloads: what the cache keeps, which addresses and answers are accepted, where redirections may lead."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path

import pytest

from sg3.errors import DataError, MissingInputError, StorageError, UsageError
from tests.helpers.webserver import CONTENT, PART, SUM, Server, broken, failing, get, one_line, status, visible, whole

# ---- the cache


def test_downloaded_once(server: Server, cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = get(server.url)
    assert path.read_bytes() == CONTENT
    assert path.parent == cache
    assert get(server.url) == path
    assert len(server.requests) == 1
    assert visible(cache) == ["net.pkl", "net.pkl.json"]
    record = json.loads(path.with_name(path.name + ".json").read_text())
    assert record == {"url": server.url, "size": len(CONTENT), "sha256": SUM}
    assert server.requests[0][1]["User-Agent"].startswith("sg3/")
    out, err = capfd.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first == f"downloading {server.url}"
    assert re.fullmatch(rf"saved {re.escape(str(path))} \(0.3 MB in \d+ s\)", second)


def test_addresses_have_entries_of_their_own(server: Server) -> None:
    places = "a/net.pkl", "b/net.pkl", "a/net.pkl?v=2", "", "a/..%2F..%2Fx"
    paths = {get(f"{server.base}/{place}") for place in places}
    assert len(paths) == 5
    assert len({path.parent for path in paths}) == 1
    assert get(f"{server.base}/a/net.pkl#somewhere") in paths


def test_unusual_characters(server: Server) -> None:
    path = get(f"{server.base}/my nets/é%20[1].pkl")
    assert server.requests[0][0] == "/my%20nets/%C3%A9%20[1].pkl"
    assert re.fullmatch(r"[0-9a-f]{16}-___1_\.pkl", path.name)


@pytest.mark.parametrize("damage", ["shorter", "flipped", "no record", "record of nonsense"])
def test_a_damaged_copy_is_replaced(damage: str, server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    path = get(server.url)
    record = path.with_name(path.name + ".json")
    match damage:
        case "shorter":
            path.write_bytes(CONTENT[:1000])
        case "flipped":
            path.write_bytes(CONTENT[:-1] + b"?")
        case "no record":
            record.unlink()
        case _:
            record.write_text("[]")
    assert get(server.url, sha256=SUM if damage == "flipped" else None).read_bytes() == CONTENT
    assert len(server.requests) == 2
    assert "downloading it again" in capfd.readouterr().err


def test_only_the_size_is_checked_unless_a_sum_is_given(server: Server) -> None:
    path = get(server.url)
    path.write_bytes(CONTENT[:-1] + b"?")
    assert get(server.url) == path
    assert len(server.requests) == 1


def test_default_folder(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SG3_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert get(server.url).parent == tmp_path / ".cache" / "sg3" / "downloads"

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", no_home)
    with pytest.raises(StorageError, match="set SG3_CACHE to a folder"):
        get(server.url)


def test_a_copy_in_a_folder_that_cannot_be_written(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    path = get(server.url)
    monkeypatch.setattr("pathlib.Path.mkdir", failing(errno.EROFS))
    assert get(server.url) == path


def test_on_a_terminal(server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    path = get(server.base + "/[bold]net.pkl")
    out, err = capfd.readouterr()
    assert out == ""
    assert f"saved {path}" in err.replace("\n", "")
    assert "[bold]net.pkl" in err


def test_proxies_are_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("http_proxy", server.base)
    assert get("http://example.invalid/net.pkl").read_bytes() == CONTENT
    assert server.requests[0][0] == "http://example.invalid/net.pkl"


# ---- sums


def test_the_sum_may_be_in_the_address(server: Server, cache: Path) -> None:
    assert get(f"{server.url}#sha256={SUM.upper()}").read_bytes() == CONTENT
    assert get(server.url).read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert visible(cache) == ["net.pkl", "net.pkl.json"]


def test_wrong_sum(server: Server, cache: Path) -> None:
    wrong = "0" * 64
    with pytest.raises(DataError) as caught:
        get(server.url, sha256=wrong)
    assert one_line(caught).startswith(f"{server.url}: has sha256 {SUM}, expected {wrong}")
    assert visible(cache) == []
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_wrong_sum_leaves_the_old_copy(server: Server) -> None:
    path = get(server.url)
    with pytest.raises(DataError):
        get(server.url, sha256="0" * 64)
    assert path.read_bytes() == CONTENT
    assert get(server.url) == path
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("source", "sha256", "cause"),
    [
        ("http://h/a#sha256=12", None, "'12' is not a sha256"),
        ("http://h/a", "", "'' is not a sha256"),
        ("http://h/a", "g" * 64, "is not a sha256, which has 64 hex digits"),
        (f"http://h/a#sha256={'0' * 64}", "1" * 64, "two different sha256"),
        ("ftp://h/a", None, "is not an http://, https:// or file:// address"),
        ("net.pkl", None, "is not an http"),
        ("http:///net.pkl", None, "is not an http"),
        ("http://h:port/net.pkl", None, "is not an http"),
        ("http://[h/net.pkl", None, "is not an http"),
        ("file:net.pkl", None, "is not an http"),
        ("file://server/net.pkl", None, "another machine"),
        ("http://h\x1b[2J\n/a#sha256=12", None, "not a"),
    ],
)
def test_what_is_no_address(source: str, sha256: str | None, cause: str) -> None:
    with pytest.raises(UsageError, match=re.escape(cause)) as caught:
        get(source, sha256=sha256)
    assert one_line(caught)


# ---- files of this machine


def test_file_address(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "a net #1.pkl"
    path.write_bytes(CONTENT)
    assert get(path.as_uri()) == path
    assert get(path.as_uri().replace("file://", "file://localhost"), sha256=SUM) == path
    with pytest.raises(DataError, match=f"has sha256 {SUM}, expected {'0' * 64}"):
        get(f"{path.as_uri()}#sha256={'0' * 64}")
    with pytest.raises(StorageError, match="cannot be read: Is a directory"):
        get(tmp_path.as_uri(), sha256=SUM)
    with pytest.raises(MissingInputError, match="there is no such file"):
        get((tmp_path / "b.pkl").as_uri())
    assert not cache.exists()


# ---- redirections


def test_redirections_are_followed(server: Server) -> None:
    server.steps = [
        status(302, Location="/elsewhere/x.bin?a=b"), status(308, b"moved", Location=server.base + "/y"),
        broken(PART), status(307, Location="z"), whole(),
    ]  # fmt: skip
    path = get(server.url)
    assert path.read_bytes() == CONTENT
    assert path.name.endswith("-net.pkl")
    assert [path for path, _ in server.requests] == [
        "/files/net.pkl", "/elsewhere/x.bin?a=b", "/y", "/files/net.pkl", "/files/z",
    ]  # fmt: skip
    assert server.ranges()[3:] == ["bytes=10000-"] * 2


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/a", "data:,a", "http://[", "gopher:x"])
def test_redirections_elsewhere_are_not(target: str, server: Server, cache: Path) -> None:
    server.steps = [status(302, Location=target)]
    with pytest.raises(StorageError, match=re.escape(f"{server.url}: is redirected to {target}, which is not")):
        get(server.url)
    assert visible(cache) == []
    assert len(server.requests) == 1


def test_no_way_back_from_https(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answer:
        status = 302
        headers = {"Location": "http://example.com/net.pkl"}  # noqa: RUF012

        def close(self) -> None:
            pass

    monkeypatch.setattr("urllib.request.OpenerDirector.open", lambda *_, **__: Answer())
    with pytest.raises(StorageError, match=r"is redirected to http://example.com/net.pkl, which is not followed"):
        get("https://example.com/net.pkl")


def test_redirections_in_a_circle(server: Server) -> None:
    server.steps = [status(301, Location="/files/net.pkl")]
    with pytest.raises(StorageError, match="is redirected more than 10 times"):
        get(server.url)
    assert len(server.requests) == 11


# ---- other answers


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        (404, MissingInputError, "the server has no such file (HTTP 404); check the address"),
        (410, MissingInputError, "the server has no such file (HTTP 410)"),
        (403, StorageError, "the server refuses it (HTTP 403)"),
        (204, StorageError, "HTTP 204"),
        (206, StorageError, "HTTP 206"),
        (416, StorageError, "HTTP 416"),
    ],
)
def test_refusals(code: int, error: type[Exception], message: str, server: Server, cache: Path) -> None:
    server.steps = [status(code)]
    with pytest.raises(error, match=re.escape(message)) as caught:
        get(server.url)
    assert one_line(caught).startswith(server.url)
    assert len(server.requests) == 1
    assert visible(cache) == []


PAGES = b"<!DOCTYPE html><p>Quota exceeded", b"\xef\xbb\xbf\n<html>", b"<?xml version='1'?>", b""


@pytest.mark.parametrize("page", PAGES)
def test_pages_instead_of_files(page: bytes, server: Server, cache: Path) -> None:
    server.steps = [status(200, page, Content_Type="text/html"), whole()]
    with pytest.raises(DataError, match=r"is (a web page|empty), not a network file") as caught:
        get(server.url)
    assert one_line(caught)
    assert visible(cache) == []
    assert get(server.url).read_bytes() == CONTENT
    assert server.ranges() == [None, None]


def test_a_file_that_begins_like_a_page(server: Server) -> None:
    """The length at the start of a safetensors file may be any bytes."""
    content = b"<!\0\0\0\0\0\0{" + CONTENT
    server.steps = [whole(content, Content_Type="text/html")]
    assert get(server.url).read_bytes() == content
