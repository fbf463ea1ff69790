"""A browser to test pages with: the system's Chromium, headless, driven by Playwright."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SETTLED = """() => {
  const picture = document.getElementById("picture").dataset;
  return picture.asked && picture.frame === picture.asked && picture.mime === "image/png";
}"""
PIXELS = """() => {
  const canvas = document.getElementById("picture");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let text = "";
  for (const byte of data) text += String.fromCharCode(byte);
  return [canvas.height, canvas.width, btoa(text)];
}"""


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser. Skips with the reason where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (sg3[test])")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, url: str, **context: Any) -> Iterator[Any]:
    """A page in a window of its own. Whatever it complains of on the console fails the test."""
    window = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **context})
    page = window.new_page()
    page.set_default_timeout(60_000)
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(url)
    yield page
    expected = ("status of 4", "status of 5", "WebSocket connection to", "willReadFrequently")
    assert [text for text in complaints if not any(words in text for words in expected)] == []
    window.close()


def settled(page: Any) -> None:
    """Wait until the newest picture is shown, without loss."""
    page.wait_for_function(SETTLED)


def shown(page: Any) -> np.ndarray:
    """The pixels of the newest picture, [H, W, 3]."""
    settled(page)
    height, width, data = page.evaluate(PIXELS)
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)[..., :3]


def state(page: Any) -> dict[str, str]:
    """What the page's address says, without the token."""
    pairs = page.evaluate("() => [...new URLSearchParams(location.hash.slice(1))]")
    return {name: value for name, value in pairs if name != "token"}
