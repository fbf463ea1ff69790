"""Workloads that are more than one op: a synthesis layer, a whole network, a phase of a training step.

Networks take no `impl`: peers differ in SG3_IMPL, which the ops read at each call.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from bench.roofline import Cost
from bench.shapes import Layer
from bench.workloads import Peer, Tensors, compiled, layer_dtype
from sg3.kernels.dispatch import asking_for
from sg3.models.stylegan3 import SynthesisLayer
from sg3.train.config import DatasetFacts
from sg3.train.recipes.stylegan.config import StyleGANConfig
from sg3.train.recipes.stylegan.loss import Loss
from sg3.train.recipes.stylegan.options import StyleGANOptions
from sg3.train.recipes.stylegan.system import build_networks, build_phases
from sg3.train.recipes.system import MicroBatch


@contextlib.contextmanager
def implementation(peer: str) -> Iterator[None]:
    """SG3_IMPL for a peer, 'compile(ref)' being 'ref'. Raises LookupError for one that is no implementation."""
    if peer == "original":
        raise LookupError("only single ops can be taken from elsewhere")
    with asking_for(peer.removeprefix("compile(").removesuffix(")")):
        yield


class Quiet:
    """Where loss terms leave their statistics: nowhere, they are not what is timed."""

    def report(self, name: str, value: torch.Tensor) -> None:
        """Nothing."""


@dataclass(frozen=True)
class LayerStep:
    """A synthesis layer with all of its channels, forward and backward."""

    layer: Layer
    batch: int
    device: str
    op = "networks"
    mode = "forward+backward"
    kinks = True

    @property
    def dtype(self) -> torch.dtype:
        return layer_dtype(self.layer.spec.use_fp16, torch.device(self.device))

    @property
    def title(self) -> str:
        s = self.layer.spec
        return f"synthesis layer {self.layer.title}, {s.in_channels} -> {s.out_channels} channels, batch {self.batch}"

    def cost(self) -> Cost | None:
        return None

    def exact(self, device: torch.device) -> Tensors | None:
        return None

    def prepare(self, device: torch.device) -> Callable[[str], Peer]:
        torch.manual_seed(0)
        s = self.layer.spec
        layer = SynthesisLayer(
            512, s, conv_kernel=self.layer.kernel, use_radial_filters=self.layer.radial
        ).to(device)  # fmt: skip
        x = torch.randn(self.batch, s.in_channels, s.in_size, s.in_size, device=device, requires_grad=True)
        w = torch.randn(self.batch, 512, device=device)
        leaves = [x, *layer.parameters()]

        def peer(name: str) -> Peer:
            call = compiled(layer, name[8:-1]) if name.startswith("compile(") else layer

            def run() -> Tensors:
                with implementation(name):
                    y = call(x, w)
                    grads = torch.autograd.grad(y.float().square().mean(), leaves)
                return [y.detach(), *grads]

            return Peer(run, run)

        return peer


@dataclass(frozen=True)
class Training:
    """G or D forward, or a phase of a training step: forward, backward, Adam. Networks of the real recipe."""

    part: str  # 'G', 'D' (forward), 'Gboth', 'Dmain', 'Dreg' (phases; Dreg is R1)
    cfg: str
    resolution: int
    cbase: int
    cmax: int
    batch: int
    device: str
    op = "networks"
    kinks = True

    @property
    def mode(self) -> str:
        return "forward" if self.part in "GD" else "step"

    @property
    def dtype(self) -> torch.dtype:
        return layer_dtype(True, torch.device(self.device))

    @property
    def title(self) -> str:
        what = {"G": "G", "D": "D", "Gboth": "Gmain step", "Dmain": "Dmain step", "Dreg": "R1 step"}[self.part]
        return f"{what} {self.cfg} {self.resolution} px, cbase {self.cbase}, cmax {self.cmax}, batch {self.batch}"

    def cost(self) -> Cost | None:
        return None

    def config(self) -> StyleGANConfig:
        """The recipe, as `sg3 train` would resolve it."""
        facts = DatasetFacts(
            path="-", name="-", resolution=self.resolution, channels=3, size=1, label_dim=0, has_labels=False,
            content="",
        )  # fmt: skip
        options = StyleGANOptions(
            cfg=self.cfg, batch=self.batch, cbase=self.cbase, cmax=self.cmax, mbstd_group=min(4, self.batch),
            aug="noaug",
        )  # fmt: skip
        return StyleGANConfig.resolve(options, facts)

    def exact(self, device: torch.device) -> Tensors | None:
        """On a GPU, the reference without half precision."""
        if device.type != "cuda":
            return None
        config = dataclasses.replace(self.config(), num_fp16_res=0)
        return self.peers(config, device)("ref").check()

    def prepare(self, device: torch.device) -> Callable[[str], Peer]:
        return self.peers(self.config(), device)

    def peers(self, config: StyleGANConfig, device: torch.device) -> Callable[[str], Peer]:
        """As `prepare`, for a configuration."""
        G, D = build_networks(config, device)
        start = [{k: v.clone() for k, v in net.state_dict().items()} for net in (G, D)]
        real = torch.rand(self.batch, 3, self.resolution, self.resolution, device=device) * 2 - 1
        empty = torch.zeros(self.batch, 0, device=device)
        z = torch.randn(self.batch, config.z_dim, device=device)
        mb = MicroBatch(real=real, real_c=empty, z=z, c=empty, rng=np.random.default_rng(0))
        optimizers = {p.name: p.optimizer for p in build_phases(config, Loss(G, D, Quiet()), {})}

        def restore() -> None:
            for net, state in zip((G, D), start, strict=True):
                net.load_state_dict(state)

        def peer(name: str) -> Peer:
            synthesis: Callable[..., torch.Tensor] = G.synthesis
            discriminator: Callable[..., torch.Tensor] = D
            if name.startswith("compile("):  # as a user would; the loss around them stays eager
                tag = name[8:-1]
                synthesis, discriminator = compiled(synthesis, tag), compiled(D, tag)
            loss = Loss(
                G, D, Quiet(), r1_gamma=config.gamma, device=device, synthesis=synthesis, discriminator=discriminator
            )

            def forward() -> Tensors:
                with implementation(name), torch.no_grad():
                    return [synthesis(G.mapping(z, empty)) if self.part == "G" else discriminator(real, empty)]

            if self.part in "GD":
                return Peer(forward, forward)

            module = G if self.part.startswith("G") else D
            (terms,) = [p.terms for p in build_phases(config, loss, {}) if p.name == self.part]
            optimizer = optimizers[self.part]

            def gradients() -> Tensors:
                optimizer.zero_grad(set_to_none=True)
                module.requires_grad_(True)
                losses = []
                with implementation(name):
                    for term in terms:
                        value = term(mb)
                        value.mean().backward()
                        losses.append(value.detach())
                module.requires_grad_(False)
                return losses

            def run() -> None:
                gradients()
                optimizer.step()

            def check() -> Tensors:
                restore()
                losses = gradients()
                return [*losses, torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])]

            return Peer(run, check)

        return peer
