"""The part of `distutils` that scripts use. Python 3.12 dropped it."""
