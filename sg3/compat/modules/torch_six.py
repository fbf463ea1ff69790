"""`torch._six`, which torch 2.0 dropped: names for Python 2 and 3 at once."""

from __future__ import annotations

import collections.abc as container_abcs
from math import inf, nan

__all__ = ["container_abcs", "inf", "int_classes", "nan", "string_classes"]

string_classes = (str, bytes)
int_classes = int
