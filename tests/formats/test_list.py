"""`sg3 list`."""

from __future__ import annotations

import json

from sg3.published import Published
from tests.helpers.webserver import status


def test_the_list_of_published_networks(run, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SG3_CACHE", str(tmp_path))
    result = run("list", "stylegan3", "afhqv2", "--json")
    assert result.code == 0
    rows = json.loads(result.out)
    assert [row["name"] for row in rows] == [
        "stylegan3-t-afhqv2-512x512", "stylegan3-r-afhqv2-512x512", "mmagic-stylegan3-r-afhqv2-512",
        "mmagic-stylegan3-t-afhqv2-512",
    ]  # fmt: skip
    assert {row["bytes"] for row in rows} == {None}
    assert not any(row["kept"] for row in rows)
    assert "stylegan2-cifar10-32x32  " in run("list").out
    nothing = run("list", "stylegan3", "nope")
    assert (nothing.code, nothing.out) == (0, "")
    assert nothing.err.startswith("note: no published network has stylegan3 and nope in its name")


def test_the_list_asks_for_sizes(run, server, monkeypatch) -> None:
    server.steps = [status(200, b"x" * (3 << 20))]
    published = Published("here", server.url, "us", "none"), Published("gone", "http://127.0.0.1:9/", "us", "-")
    monkeypatch.setattr("sg3.published.published", lambda: {network.name: network for network in published})
    assert [row["bytes"] for row in json.loads(run("list", "--sizes", "--json").out)] == [3 << 20, None]
