"""`moviepy.video.fx.all` and `moviepy.audio.fx.all`, gone in MoviePy 2: what the package above has."""

from importlib import import_module

globals().update({name: value for name, value in vars(import_module(__name__.removesuffix(".all"))).items()
                  if not name.startswith("_")})  # fmt: skip
