"""The part of `pkg_resources` that scripts use. setuptools 82 dropped it."""

from __future__ import annotations

from importlib.metadata import Distribution, distribution
from importlib.metadata import PackageNotFoundError as DistributionNotFound
from importlib.resources import files
from typing import Any

try:
    from packaging.version import Version
except ModuleNotFoundError:  # it is no dependency of sg3, but torch brings a copy along
    from torch._vendor.packaging.version import Version  # type: ignore[assignment]

__all__ = ["DistributionNotFound", "get_distribution", "parse_version", "resource_filename", "resource_string"]


def parse_version(version: str) -> Any:
    """A version that compares as PEP 440 says. Raises ValueError for what is none."""
    return Version(str(version))


def get_distribution(name: str) -> Distribution:
    """An installed distribution, with `.version`. Raises DistributionNotFound."""
    return distribution(name)


def resource_filename(package: str, name: str) -> str:
    """The path of a file in an installed package."""
    return str(files(package) / name)


def resource_string(package: str, name: str) -> bytes:
    """The content of a file in an installed package."""
    return (files(package) / name).read_bytes()
