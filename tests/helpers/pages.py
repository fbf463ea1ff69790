"""What hands do on the viewer's page."""

from __future__ import annotations

from typing import Any


def set_range(page: Any, name: str, value: float) -> None:
    """Move a slider there."""
    page.eval_on_selector(f"#{name}", "(field, value) => { field.value = value; "
                          "for (const type of ['input', 'change']) field.dispatchEvent(new Event(type)); }", value)


def drag(page: Any, selector: str, dx: float, dy: float) -> None:
    """From the middle of something, by so many pixels."""
    box = page.locator(selector).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx / 2, y + dy / 2, steps=3)
    page.mouse.move(x + dx, y + dy, steps=3)
    page.mouse.up()


def open_all(page: Any) -> None:
    """Unfold all parts of the form."""
    page.evaluate("() => document.querySelectorAll('details').forEach((part) => { part.open = true; })")
