"""How optional packages are installed, in the words of messages."""

from __future__ import annotations


def install(extra: str) -> str:
    """The command for an extra of sg3, and the one in a checkout, which is how sg3 itself gets installed."""
    return f"pip install 'sg3[{extra}]' (in a checkout: pip install -e '.[{extra}]')"
