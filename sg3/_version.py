"""sg3's version: read by the wheel's build, shown by `sg3 --version`, written into files. It imports nothing."""

__version__ = "0.2.0"
