"""sg3: StyleGAN2 and 3, Projected GAN, FastGAN and R3GAN on Triton kernels.

    run = sg3.fit("photos.zip", outdir="runs", batch=32, gamma=2)    sg3 train        run.statistics(), run.metrics()
    pictures = sg3.generate(run, range(16), trunc=0.7)               sg3 generate     uint8 [16, H, W, C]
    sg3.evaluate(run, ["fid5k_full"])                                sg3 metrics      {"fid5k_full": ...}
    run = sg3.open_run("runs/00000-...")                             sg3 info         run.continue_training(kimg=2000)
    snapshot = sg3.load("net.pkl"); sg3.save(snapshot, "net.safetensors")             sg3 convert
    sg3.export(run, "cats.onnx"); sg3.push(run, "me/cats", licence="cc-by-4.0")       sg3 export, sg3 push

What goes wrong for a user is an `sg3.Sg3Error`; its kinds are in `sg3.errors`. Importing the package is cheap: torch is
imported only when one of these is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sg3._version import __version__
from sg3.errors import Sg3Error

if TYPE_CHECKING:
    from sg3 import sampling as sampling
    from sg3.api.evaluation import evaluate as evaluate
    from sg3.api.images import generate as generate
    from sg3.api.runs import Run as Run
    from sg3.api.runs import open_run as open_run
    from sg3.api.sharing import export as export
    from sg3.api.sharing import push as push
    from sg3.api.training import fit as fit
    from sg3.formats import Snapshot as Snapshot
    from sg3.formats import load as load
    from sg3.formats import save as save
    from sg3.train.callbacks import Event as TrainingEvent

WHERE = {  # name -> the module that has it, and its name there if it is another one
    "Run": "sg3.api.runs",
    "Snapshot": "sg3.formats",
    "TrainingEvent": "sg3.train.callbacks:Event",
    "evaluate": "sg3.api.evaluation",
    "export": "sg3.api.sharing",
    "fit": "sg3.api.training",
    "generate": "sg3.api.images",
    "load": "sg3.formats",
    "open_run": "sg3.api.runs",
    "push": "sg3.api.sharing",
    "save": "sg3.formats",
}
__all__ = [
    "Run", "Sg3Error", "Snapshot", "TrainingEvent", "__version__", "evaluate", "export", "fit", "generate", "load",
    "open_run", "push", "sampling", "save",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "sampling":
        return import_module("sg3.sampling")
    if name not in WHERE:
        raise AttributeError(f"module 'sg3' has no attribute {name!r}")
    module, _, other = WHERE[name].partition(":")
    return getattr(import_module(module), other or name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
