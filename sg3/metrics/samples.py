"""The generated images: number i is a function of (network, seed, i), whoever makes it and beside which others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from sg3.canvas import Size
from sg3.data.dataset import ImageFolderDataset
from sg3.errors import UsageError
from sg3.metrics.views import framed
from sg3.models import Generator, fastgan
from sg3.models.repeated import Repeated
from sg3.randomness import derive_seed, latents, random_indices, seed_torch
from sg3.sampling import is_small, quantized
from sg3.side_by_side import MANY
from sg3.transparency import has_alpha, possible

Labels = Callable[[int, int], torch.Tensor]  # (first sample, how many) -> [n, c_dim]

NOISE_GROUP = 4  # images that share a draw of StyleGAN2's noise; always the same ones, whatever the batch
CPU_GROUP = 4  # images that a CPU makes at a time where they are large: no slower than more, and threads have one each


def has_noise(G: nn.Module) -> bool:
    """Whether its layers add noise, which they draw for a batch and not for an image."""
    return any(name.endswith("noise_const") for name, _ in G.named_buffers()) or (
        isinstance(G, fastgan.Generator) and not G.synthesis.lite
    )


def randomize_noise(G: nn.Module, seed: int, purpose: str, index: int) -> None:
    """Draw StyleGAN2's constant noise anew, as a function of (seed, purpose, index)."""
    buffers = [buffer for name, buffer in G.named_buffers() if name.endswith("noise_const")]
    rng = torch.Generator().manual_seed(derive_seed(seed, purpose, index))
    for buffer in buffers:
        buffer.copy_(torch.randn(buffer.shape, generator=rng))


def chunks(count: int, size: int) -> list[range]:
    """range(count) in runs of `size`."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def random_labels(G: Generator, dataset: ImageFolderDataset | None, seed: int) -> Labels:
    """Labels of random real images, as in the original. Raises UsageError without a dataset that has them."""
    if G.c_dim == 0:
        return lambda _start, count: torch.zeros(count, 0)
    if dataset is None:
        raise UsageError("--data: needed, the network is conditional and takes its labels from there")
    if dataset.label_dim != G.c_dim:
        raise UsageError(f"--data: its labels are {dataset.label_dim} wide, the network's {G.c_dim}; name the dataset "
                         "that it was trained on")
    known = dataset

    def labels(start: int, count: int) -> torch.Tensor:
        picks = random_indices(seed, "metrics/c", start, count, len(known))
        return torch.stack([torch.from_numpy(known.get_label(pick)) for pick in picks])

    return labels


def one_class(G: Generator, index: int) -> Labels:
    """The same class for every sample."""
    row = torch.zeros(1, G.c_dim)
    row[0, index] = 1
    return lambda _start, count: row.expand(count, -1)


class _Drawing(TorchFunctionMode):
    """Inside, this thread draws normal numbers from a generator of its own; torch's default one is everybody's."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        given = dict(kwargs or {})
        return func(*args, **({**given, "generator": self._generator} if func is torch.randn else given))


class Samples:
    """Generated images in uint8, as the feature networks see them; by CUDA graphs if `graphs`, see `Repeated`.

    Those with alpha are premultiplied, in -1..1: the views of them (`sg3.metrics.views`) are rounded. `visible`: only
    this part of each, height and width in the middle.
    """

    def __init__(
        self, G: Generator, labels: Labels, seed: int, batch: int, graphs: bool = False, visible: Size | None = None
    ) -> None:
        self.G = G
        self.labels = labels
        self.seed = seed
        self.device = next(G.parameters()).device
        self._has_noise = has_noise(G)
        large = self.device.type == "cpu" and not is_small(G)
        self._group = NOISE_GROUP if self._has_noise else CPU_GROUP if large else batch
        self.most_at_a_time = max(batch // CPU_GROUP, 1) if large else MANY  # chunks, each a group at a time
        self.batch = -(-batch // NOISE_GROUP) * NOISE_GROUP if self._has_noise else batch
        self.graphs = graphs
        self.visible = visible
        self._repeated = Repeated(G, graphs)

    def chunks(self, count: int) -> list[range]:
        """The batches that hold samples 0 .. count - 1.

        The last one is as large as the others: how many samples are made beside one must not depend on how many are
        wanted, for the sake of equal rounding and, with layer noise, equal draws.
        """
        return [range(start, start + self.batch) for start in range(0, count, self.batch)]

    @torch.no_grad()
    def images(self, which: range) -> torch.Tensor:
        """uint8 [len(which), C, H, W] of one of the chunks; truncated, as the original's. With alpha, float."""
        return torch.cat(list(self._groups(which)))

    def _groups(self, which: range) -> Iterator[torch.Tensor]:
        for start in range(which.start, which.stop, self._group):
            count = min(self._group, which.stop - start)
            z = latents(self.seed, "metrics/z", start, count, self.G.z_dim).to(self.device)
            c = self.labels(start, count).to(self.device)
            with self._noise(start):
                images = framed(self._repeated(z, c, noise_mode="random"), self.visible)
            yield possible(images) if has_alpha(self.G.img_channels) else quantized(images)

    def _noise(self, start: int) -> AbstractContextManager[object]:
        """Inside, layer noise is that of the images from `start` on."""
        if self.device.type == "cpu" and self._has_noise:
            return _Drawing(torch.Generator().manual_seed(derive_seed(self.seed, "metrics/noise", start)))
        seed_torch(self.seed, "metrics/noise", start)
        return nullcontext()
