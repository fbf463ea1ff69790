"""Tiny networks of FastGAN and R3GAN, and the files that their own code would make of them."""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch
from torch import nn

from sg3.models import fastgan, r3gan

THEIR_MODULES = {
    "sg3.models.r3gan": "R3GAN.Networks",
    "sg3.models.fastgan": "pg_modules.networks_fastgan",
    "sg3.models.spectral": "pg_modules.blocks",
    "sg3.models.layers": "torch.nn.modules.batchnorm",  # (BatchNorm2d, which is torch's there)
}


def r3gan_pair(c_dim: int = 0) -> tuple[nn.Module, nn.Module]:
    """G and D."""
    stages = {"CardinalityPerStage": [2, 2], "c_dim": c_dim}
    G = r3gan.Generator(
        5, [8, 4], BlocksPerStage=[1, 2], **stages, ConditionEmbeddingDimension=6, FP16Stages=[-1]
    )
    D = r3gan.Discriminator([4, 8], BlocksPerStage=[2, 1], **stages, ConditionEmbeddingDimension=7)
    return G, D


def fastgan_generator(c_dim: int = 0, lite: bool = False) -> nn.Module:
    return fastgan.Generator(
        6, c_dim, img_resolution=32, ngf=4, cond=c_dim > 0, synthesis_kwargs={"lite": lite}
    )


def adam_state(network: nn.Module) -> dict[str, Any]:
    """An optimizer's state after one step on random gradients."""
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-3, betas=(0.0, 0.9))
    for parameter in trained:
        parameter.grad = torch.rand_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return optimizer.state_dict()


class _TheirPickler(pickle._Pickler):
    """Python's own pickles, with our classes under their modules' names."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        theirs = THEIR_MODULES.get(getattr(obj, "__module__", ""))
        if theirs is None:
            super().save_global(obj, name)
            return
        self.save(theirs)
        self.save(obj.__name__)
        self.write(pickle.STACK_GLOBAL)
        self.memoize(obj)


def pickled_by_their_code(content: dict[str, Any]) -> bytes:
    """A plain pickle of networks: no source, no constructor arguments."""
    for network in content.values():
        if isinstance(network, nn.Module):
            for name in ("init_args", "init_kwargs"):
                network.__dict__.pop(name, None)
    stream = io.BytesIO()
    _TheirPickler(stream, protocol=4).dump(content)
    return stream.getvalue()
