"""What lies beside the images and is not used: collected in one place, so that nothing is left out without a word."""

from __future__ import annotations

NAMED = 3  # of each reason


class Unused:
    """Files, and folders as a whole (their names end in "/"), that are not used, by reason."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, list[str]]] = {}

    def add(self, reason: str, *names: str) -> None:
        """`reason` follows "not used:" in a line."""
        if not names:
            return
        count, first = self._found.get(reason, (0, []))
        self._found[reason] = count + len(names), [*first, *names[: NAMED - len(first)]]

    def lines(self) -> list[str]:
        """A line for each reason: how many, why, the first names."""
        return [
            f"{count} not used: {reason} ({', '.join(first)}{', ...' if count > len(first) else ''})"
            for reason, (count, first) in sorted(self._found.items())
        ]
