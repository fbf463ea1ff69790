"""The part of `sg3.compat.patches` that is about MoviePy: names of its version 1 that version 2 replaced in 2024.

`moviepy.editor` and `moviepy.video.fx.all`, which are gone as modules, are in `finder.DROPPED`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from sg3.compat.changes import Changes

METHODS = {  # of clips: what they are called now
    "set_audio": "with_audio", "set_duration": "with_duration", "set_end": "with_end", "set_fps": "with_fps",
    "set_ismask": "with_is_mask", "set_layer": "with_layer_index", "set_make_frame": "with_updated_frame_function",
    "set_mask": "with_mask", "set_memoize": "with_memoize", "set_opacity": "with_opacity",
    "set_position": "with_position", "set_pos": "with_position", "set_start": "with_start",
    "add_mask": "with_mask", "crop": "cropped", "cutout": "with_section_cut_out", "fl": "transform",
    "fl_image": "image_transform", "fl_time": "time_transform", "on_color": "with_background_color",
    "resize": "resized", "rotate": "rotated", "speedx": "with_speed_scaled", "subclip": "subclipped",
    "volumex": "with_volume_scaled",
}  # fmt: skip
EFFECTS = {  # functions of moviepy.video.fx and moviepy.audio.fx: the classes that they are now
    "blackwhite": "BlackAndWhite", "blink": "Blink", "colorx": "MultiplyColor", "crop": "Crop",
    "even_size": "EvenSize", "fadein": "FadeIn", "fadeout": "FadeOut", "freeze": "Freeze",
    "gamma_corr": "GammaCorrection", "invert_colors": "InvertColors", "loop": "Loop", "lum_contrast": "LumContrast",
    "make_loopable": "MakeLoopable", "margin": "Margin", "mirror_x": "MirrorX", "mirror_y": "MirrorY",
    "resize": "Resize", "rotate": "Rotate", "speedx": "MultiplySpeed", "time_mirror": "TimeMirror",
    "time_symmetrize": "TimeSymmetrize", "crossfadein": "CrossFadeIn", "crossfadeout": "CrossFadeOut",
    "audio_fadein": "AudioFadeIn", "audio_fadeout": "AudioFadeOut", "audio_loop": "AudioLoop",
    "audio_normalize": "AudioNormalize", "volumex": "MultiplyVolume",
}  # fmt: skip
EFFECTS_AS_METHODS = ("audio_fadein", "audio_fadeout", "audio_normalize", "crossfadein", "crossfadeout", "fadein",
                      "fadeout", "invert_colors", "loop", "margin")  # fmt: skip
ARGUMENTS = {
    "make_frame": "frame_function", "mf": "frame_function", "ismask": "is_mask", "newsize": "new_size", "fun": "func",
    "t_start": "start_time", "t_end": "end_time", "t_func": "time_func", "ta": "start_time", "tb": "end_time",
}  # fmt: skip
GONE = ("verbose", "progress_bar", "rewrite_audio", "program", "opt", "fuzz", "tempfiles", "dispose", "colors")


def first_version(moviepy: ModuleType, changes: Changes) -> None:
    """Methods `set_...`, `resize`, `subclip` and so on, `make_frame` and `ismask`, effects as functions, and arguments
    of the writers that mean nothing any more. Does nothing for MoviePy 1, which has no clips in its package itself."""
    if not hasattr(moviepy, "VideoClip"):
        return
    classes = {value for value in vars(moviepy).values() if isinstance(value, type) and hasattr(value, "with_duration")}
    bases = {base for kind in classes for base in kind.__mro__ if base.__module__.startswith("moviepy.")}
    for kind in bases:
        for old, new in METHODS.items():
            if new in vars(kind):
                changes.set_missing(kind, old, _with_old_arguments(vars(kind)[new]))
        if "__init__" in vars(kind):
            changes.set(kind, "__init__", _with_old_arguments(vars(kind)["__init__"]))
        for writer in ("write_videofile", "write_gif", "write_audiofile", "write_images_sequence"):
            if writer in vars(kind):
                changes.set(kind, writer, _with_old_arguments(vars(kind)[writer], GONE))
    for effects in (moviepy.vfx, moviepy.afx):
        for old, new in EFFECTS.items():
            if hasattr(effects, new):
                changes.set_missing(effects, old, _effect(getattr(effects, new)))
    (clip,) = [kind for kind in bases if kind.__name__ == "Clip"]
    for name in EFFECTS_AS_METHODS:
        owner = next(effects for effects in (moviepy.vfx, moviepy.afx) if hasattr(effects, name))
        changes.set_missing(clip, name, getattr(owner, name))
    changes.set_missing(clip, "fx", lambda self, function, *args, **kwargs: function(self, *args, **kwargs))
    changes.set_missing(clip, "make_frame", property(lambda self: self.frame_function))


def _with_old_arguments(function: Callable[..., Any], gone: tuple[str, ...] = ()) -> Callable[..., Any]:
    """The function, also taking its arguments by their old names, and those that it no longer has."""
    names = inspect.signature(function).parameters
    wanted: Mapping[str, str] = {old: new for old, new in ARGUMENTS.items() if new in names and old not in names}
    dropped = [name for name in gone if name not in names]

    @functools.wraps(function)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        for name in dropped:
            kwargs.pop(name, None)
        return function(self, *args, **{wanted.get(name, name): value for name, value in kwargs.items()})

    return call


def _effect(effect: Callable[..., Any]) -> Callable[..., Any]:
    """An effect as a function of the clip and its settings."""

    def apply(clip: Any, *args: Any, **kwargs: Any) -> Any:
        new = {ARGUMENTS.get(name, name): value for name, value in kwargs.items()}
        return clip.with_effects([effect(*args, **new)])

    return apply
