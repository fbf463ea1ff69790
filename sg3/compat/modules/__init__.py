"""The files that `sg3.compat` answers imports with, laid out by the names they are imported as.

Nothing in sg3 imports them, and they are not on sys.path: `sg3.compat.finder` executes them under those names.
"""
