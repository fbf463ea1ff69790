"""The viewer's page in a real browser, used while a frame is made that takes its time; see `bench.viewer`.

Every control has to answer at once, whatever the network does: what it says beside itself has been painted. The frame
of before has to be marked as old, from a moment after the change until the new one is there.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from statistics import median
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SHOWN = """() => { const { asked, frame, mime } = document.getElementById("picture").dataset;
                   return asked && frame === asked && mime === "image/png"; }"""
# Whether, and since when, something newer is wanted than is shown, and whether that is said.
WATCH = """() => {
  const old = document.getElementById("old"), picture = document.getElementById("picture");
  window.marked = window.gone = null;
  window.began = performance.now();
  new MutationObserver(() => {
    if (!old.hidden) window.marked ??= performance.now() - window.began;
    else if (picture.dataset.frame !== picture.dataset.asked) window.gone ??= performance.now() - window.began;
  }).observe(old, { attributes: true });
  const seed = document.getElementById("seed");
  seed.value = Number(seed.value) + 1;
  seed.dispatchEvent(new Event("change"));
}"""
USE = """async (seconds) => {
  const times = [], began = performance.now(), picture = document.getElementById("picture").dataset;
  const steps = [["trunc", 0.5], ["cutoff", 3], ["speed", 2], ["limit", 30], ["mutation", 0.3], ["key_seconds", 3],
                 ["brush", 9], ["trunc", 0.7], ["cutoff", 5], ["limit", 40], ["brush", 20]];
  const goesOn = () => performance.now() - began < 1000 * seconds && picture.frame !== picture.asked;
  for (let n = 0; n < steps.length || goesOn(); n++) {
    const [id, value] = steps[n % steps.length], field = document.getElementById(id), then = performance.now();
    field.value = value;
    for (const type of ["input", "change"]) field.dispatchEvent(new Event(type));
    await new Promise((painted) => requestAnimationFrame(() => setTimeout(painted)));
    times.push(performance.now() - then);
    await new Promise((later) => setTimeout(later, 50));
  }
  return times;
}"""
# From the time stamp that the browser gives an input to the paint after it.
FEEL = """() => {
  window.felt = [];
  document.getElementById("plane").addEventListener("pointermove", ({ timeStamp }) => {
    requestAnimationFrame(() => setTimeout(() => window.felt.push(performance.now() - timeStamp)));
  });
}"""


def used(url: str, seconds: float, until: float) -> dict[str, float] | str:
    """Milliseconds of the page's answers; or why there are none. Raises TimeoutError at `until`."""
    try:
        from playwright.sync_api import TimeoutError as TooLate
        from playwright.sync_api import sync_playwright
    except ImportError:
        return "not measured, playwright is not installed"
    if CHROMIUM is None:
        return "not measured, no Chromium on this machine"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 860})
            page.set_default_timeout(max(1.0, 1e3 * (until - time.monotonic())))
            page.goto(url)
            page.wait_for_function(SHOWN)
            return _numbers(page, seconds)
        except TooLate:
            raise TimeoutError from None
        finally:
            with suppress(Exception):
                browser.close()


def _numbers(page: Any, seconds: float) -> dict[str, float]:
    page.evaluate(WATCH)
    controls = page.evaluate(USE, seconds)
    page.evaluate(FEEL)
    box = page.locator("#plane").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for n in range(40):
        page.mouse.move(x - n, y - n / 2)
        page.wait_for_timeout(20)
    page.mouse.up()
    felt = page.evaluate("() => window.felt")
    marked, gone = page.evaluate("() => [window.marked, window.gone]")
    found = {
        "controls": float(len(controls)), "median_ms": median(controls), "worst_ms": max(controls),
        "dragging_median_ms": median(felt), "dragging_worst_ms": max(felt),
    }  # fmt: skip
    if marked is not None:  # where a frame takes longer than it takes to be marked
        found |= {"marked_as_old_after_ms": marked, "unmarked_too_early": float(gone is not None)}
    return found
