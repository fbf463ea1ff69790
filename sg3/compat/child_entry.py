"""Executed by path in a child process, before its sys.path need lead to sg3; see `sg3.compat.child`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # replaced by the parent's sys.path right afterwards

from sg3.compat import install

install(**globals()["OPTIONS"])  # which the parent gives
