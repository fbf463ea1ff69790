"""What newer releases of packages that sg3 does not need took from scripts: stand-ins with the newer names."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import sg3.compat
from sg3.compat import patches, patches_moviepy
from sg3.compat.changes import Changes
from sg3.compat.finder import DROPPED, LastFinder

CLIP = '''
class Clip:
    def __init__(self):
        self.done = []

    def with_effects(self, effects):
        self.done += [(type(effect).__name__, effect.settings) for effect in effects]
        return self

    def with_duration(self, duration, change_end=True):
        return self._note("duration", duration)

    def with_fps(self, fps):
        return self._note("fps", fps)

    def subclipped(self, start_time=0, end_time=None):
        return self._note("sub", (start_time, end_time))

    def _note(self, name, value):
        self.done.append((name, value))
        return self
'''
VIDEO = '''
from moviepy.Clip import Clip


class VideoClip(Clip):
    def __init__(self, frame_function=None, is_mask=False, duration=None):
        super().__init__()
        self.frame_function, self.is_mask, self.duration = frame_function, is_mask, duration

    def with_audio(self, audioclip):
        return self._note("audio", audioclip)

    def resized(self, new_size=None, height=None):
        return self._note("size", new_size or height)

    def image_transform(self, image_func, apply_to=None):
        return self._note("image", image_func(1))

    def write_videofile(self, filename, fps=None, codec=None, logger="bar"):
        return filename, fps, codec, logger


class ImageSequenceClip(VideoClip):
    def __init__(self, sequence, fps=None, is_mask=False):
        super().__init__(is_mask=is_mask)
        self.sequence, self.fps = sequence, fps
'''
EFFECT = '''
class {}:
    def __init__(self, *args, **settings):
        self.settings = (*args, *settings.items())
'''
EFFICIENTNET = '''
import torch

{header}
class Norm(torch.nn.BatchNorm2d):
    def __init__(self, channels):
        super().__init__(channels)
        {act}

    def forward(self, x):
        x = super().forward(x)
        return self.act(x) if hasattr(self, "act") else x


class EfficientNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_stem = torch.nn.Conv2d(3, 4, 3)
        self.bn1 = Norm(4)
        {act1}


class EfficientNetFeatures(EfficientNet):
    pass
'''


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for parent in [p for p in path.parents if p.is_relative_to(folder) and p != folder]:
            (parent / "__init__.py").touch()
        path.write_text(text)


@pytest.fixture
def newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that imports look into first; what was imported from it is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = dict(sys.modules)
    for name in [name for name in sys.modules if name.split(".")[0] in ("moviepy", "timm", "torchvision")]:
        del sys.modules[name]
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] in ("moviepy", "timm", "torchvision")]:
        del sys.modules[name]
    sys.modules.update({name: module for name, module in before.items() if name not in sys.modules})


def write_moviepy_2(folder: Path) -> None:
    write(folder, {
        "moviepy/Clip.py": CLIP, "moviepy/video/VideoClip.py": VIDEO,
        "moviepy/video/fx/__init__.py": EFFECT.format("FadeIn") + EFFECT.format("Resize") + EFFECT.format("Loop"),
        "moviepy/audio/fx/__init__.py": EFFECT.format("AudioFadeIn") + EFFECT.format("AudioFadeOut")
        + EFFECT.format("AudioNormalize") + EFFECT.format("CrossFadeIn") + EFFECT.format("CrossFadeOut")
        + EFFECT.format("FadeOut") + EFFECT.format("InvertColors") + EFFECT.format("Margin"),
        "moviepy/__init__.py": "from moviepy.audio import fx as afx\nfrom moviepy.video import fx as vfx\n"
        "from moviepy.video.VideoClip import ImageSequenceClip, VideoClip\n"
        "__all__ = ['ImageSequenceClip', 'VideoClip', 'afx', 'vfx']\n",
    })  # fmt: skip


def test_moviepy_2(newer: Path) -> None:
    """A script for MoviePy 1: the module, methods, arguments, effects as functions and as methods."""
    write_moviepy_2(newer)
    with pytest.raises(ModuleNotFoundError, match=r"moviepy\.editor"):
        importlib.import_module("moviepy.editor")
    with sg3.compat.install(quiet=True):
        mpy: Any = importlib.import_module("moviepy.editor")
        vfx: Any = importlib.import_module("moviepy.video.fx.all")
        clip = mpy.VideoClip(make_frame=len, duration=2, ismask=True)
        assert (clip.make_frame, clip.frame_function, clip.is_mask, clip.duration) == (len, len, True, 2)
        clip.set_duration(3).set_fps(fps=5).set_audio("a").resize(newsize=(4, 4)).subclip(t_start=1, t_end=2)
        clip.fl_image(lambda x: -x).fx(vfx.fadein, 0.5).fx(mpy.vfx.resize, newsize=2).loop(3).crossfadein(1)
        assert clip.done == [
            ("duration", 3), ("fps", 5), ("audio", "a"), ("size", (4, 4)), ("sub", (1, 2)), ("image", -1),
            ("FadeIn", (0.5,)), ("Resize", (("new_size", 2),)), ("Loop", (3,)), ("CrossFadeIn", (1,)),
        ]  # fmt: skip
        written = clip.write_videofile("a.mp4", fps=9, verbose=False, progress_bar=False, logger=None)
        assert written == ("a.mp4", 9, None, None)
        sequence = mpy.ImageSequenceClip([1], fps=2, ismask=False)
        assert (sequence.sequence, sequence.fps, sequence.is_mask) == ([1], 2, False)
        assert mpy.VideoClip(frame_function=len).subclipped(0, 1).done == [("sub", (0, 1))], "new names stay"
        with pytest.raises(TypeError, match="unexpected keyword"):
            clip.write_videofile("a.mp4", speed=3)
        kinds = sys.modules["moviepy"].VideoClip, sys.modules["moviepy.Clip"].Clip
    old = ("set_audio", "subclip", "fx", "make_frame", "loop")
    assert not any(hasattr(kind, name) for kind in kinds for name in old)
    with pytest.raises(TypeError, match="make_frame"):
        kinds[0](make_frame=len)


def test_moviepy_1_is_left_alone() -> None:
    moviepy, changes = types.ModuleType("moviepy"), Changes()
    patches_moviepy.first_version(moviepy, changes)
    assert not changes._undo


def test_timm_without_activations(newer: Path) -> None:
    """act1 of an EfficientNet whose batch norm has the activation: nothing is left for it to do."""
    write(newer, {"timm/models/efficientnet.py": EFFICIENTNET.format(
        header="get_norm_act_layer = None", act="self.act = torch.nn.ReLU6()", act1="")})  # fmt: skip
    with sg3.compat.install(quiet=True):
        efficientnet: Any = importlib.import_module("timm.models.efficientnet")
        network = efficientnet.EfficientNet().eval()
        x = torch.randn(1, 3, 8, 8)
        stem = torch.nn.Sequential(network.conv_stem, network.bn1, network.act1)
        assert torch.equal(stem(x), network.bn1(network.conv_stem(x)))
        assert list(stem.state_dict()) == [*(f"0.{n}" for n in ("weight", "bias")), *(
            f"1.{n}" for n in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"))]  # fmt: skip
        assert isinstance(efficientnet.EfficientNetFeatures().act1, torch.nn.Identity)
        with pytest.raises(AttributeError):
            network.act2  # noqa: B018  (there is no bn2)
    with pytest.raises(AttributeError, match="act1"):
        network.act1  # noqa: B018


def test_older_timm_is_left_alone(newer: Path) -> None:
    write(newer, {"timm/models/efficientnet.py": EFFICIENTNET.format(
        header="", act="pass", act1="self.act1 = torch.nn.ReLU6()")})  # fmt: skip
    with sg3.compat.install(quiet=True):
        network = importlib.import_module("timm.models.efficientnet").EfficientNet()
        assert isinstance(network.act1, torch.nn.ReLU6)


def test_torchvision(newer: Path) -> None:
    write(newer, {"torchvision/transforms/_functional_tensor.py": "def rgb_to_grayscale(x): return x\n",
                  "torchvision/models/__init__.py": ""})  # fmt: skip
    with sg3.compat.install(quiet=True):
        tensors: Any = importlib.import_module("torchvision.transforms.functional_tensor")
        assert tensors.rgb_to_grayscale(3) == 3
        models: Any = importlib.import_module("torchvision.models.utils")
        assert models.load_state_dict_from_url is torch.hub.load_state_dict_from_url


def test_names_of_scipy_integrate() -> None:
    integrate, changes = types.ModuleType("scipy.integrate"), Changes()
    integrate.trapezoid, integrate.simpson = len, sum
    patches.integration_names(integrate, changes)
    assert (integrate.trapz, integrate.simps, hasattr(integrate, "cumtrapz")) == (len, sum, False)
    changes.undo()
    assert not hasattr(integrate, "trapz")


def test_imp(tmp_path: Path) -> None:
    """Read from our file: Python 3.11 still has the original."""
    with sg3.compat.install(quiet=True):
        finder = next(finder for finder in sys.meta_path if isinstance(finder, LastFinder))
        assert "imp" in DROPPED
        spec: Any = finder.find_spec("imp", None)
        imp: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(imp)
        source = tmp_path / "thing.py"
        source.write_text("import builtins\nvalue = 3\n")
        try:
            thing = imp.load_source("sg3_test_thing", str(source))
            assert thing.value == 3
            assert sys.modules["sg3_test_thing"] is thing
            source.write_text("value = 44\n")
            assert imp.load_source("sg3_test_thing", str(source)) is thing
            assert thing.value == 44
        finally:
            sys.modules.pop("sg3_test_thing", None)
        assert imp.new_module("a").__name__ == "a"
        assert imp.reload is importlib.reload
