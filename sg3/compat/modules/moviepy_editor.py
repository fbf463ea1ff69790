"""`moviepy.editor`, gone in MoviePy 2: all of its names are in `moviepy` itself."""

from moviepy import *  # noqa: F403
from moviepy import afx, vfx  # noqa: F401

transfx = vfx
