"""The discriminator of Projected GAN (Sauer et al. 2021, "Projected GANs Converge Faster", arXiv 2111.01007).

    image -> differentiable augmentation -> 224 x 224 if smaller -> frozen ImageNet network, four maps
          -> random 1x1 convolutions across channels (CCM), from coarse to fine across scales (CSM), frozen
          -> a small trained head on each map -> logits side by side

Constructor arguments and state_dict names are those of the paper's code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self, runtime_checkable

import torch
import torch.nn.functional as F
from torch import nn

from sg3.models.diffaug import DiffAugDraws, diff_augment
from sg3.models.features.efficientnet_lite import (
    LITE0,
    LITE1,
    MAP_CHANNELS,
    LiteLayers,
    Variant,
    load_efficientnet_lite,
)
from sg3.models.projected_heads import CLASSES, MultiScaleD
from sg3.transparency import BLACK, WHITE, has_alpha, over

BACKBONES = {"lite0": LITE0, "lite1": LITE1}
ENLARGED = 224  # pixels, what Lite0 was trained at
TAP_SIZES = (64, 32, 16, 8)  # of the maps of an image of 256 x 256: heads go by these whatever the image's size
SMALLEST, LARGEST = 128, 1024  # pixels to enlarge to; of fewer, heads cannot make a logit
MULTIPLE = 32  # of pixels: other sizes give maps that do not double from one to the next


@runtime_checkable
class FeatureNetwork(Protocol):
    """What `ProjectedDiscriminator` looks through: a module that turns images [N, 3, H, W] in -1..1 into maps.

    `CHANNELS` are the maps' channels, finest map first, `RESOLUTIONS` the sizes that they would have for images of
    256 x 256. Its parameters are frozen and it stays in eval mode; gradients pass through it to the images.
    """

    CHANNELS: Sequence[int]
    RESOLUTIONS: Sequence[int]

    def __call__(self, x: torch.Tensor) -> Sequence[torch.Tensor]: ...


def trained_layers(variant: Variant) -> LiteLayers:
    """The trained network as Projected GAN uses it, which is not quite as it was published.

    Its batch norms have seen one more image in train mode: a grey one, of 224 x 224 zeros. That moves their means and
    variances by a tenth, and features by about 15 %; the numbers recorded from the paper's code cannot be had without.

    Raises MissingInputError where the weights are not installed.
    """
    layers = load_efficientnet_lite(variant).layers.train()
    with torch.no_grad():
        layers(torch.zeros(1, 3, ENLARGED, ENLARGED))
    return layers.eval()


class Csm(nn.Module):
    """One step of cross-scale mixing: [N, I, H, W] -> [N, O, 2 H, 2 W]."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(cin, cout, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out_conv(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))


class RandomProjection(nn.Module):
    """Maps of a network, mixed by random convolutions that are never trained.

    `layers` gives four maps, each half as large as the one before, of these `channels`. `proj_type` 0 leaves them as
    they are, 1 mixes channels, 2 channels and then scales. They get `cout` channels, with `expand` more the coarser
    they are.
    """

    def __init__(
        self, layers: nn.Module, channels: Sequence[int] = MAP_CHANNELS, proj_type: int = 2, cout: int = 64,
        expand: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if proj_type not in (0, 1, 2):
            raise ValueError(f"proj_type: got {proj_type}, expected 0, 1 or 2")
        self.proj_type = proj_type
        self.pretrained = layers
        self.CHANNELS: Sequence[int] = list(channels)
        self.RESOLUTIONS: Sequence[int] = list(TAP_SIZES)
        if proj_type >= 1:
            self.scratch = nn.Module()
            self.CHANNELS = mixed = [cout * factor for factor in ((1, 2, 4, 8) if expand else (1, 1, 1, 1))]
            for level, (cin, width) in enumerate(zip(channels, mixed, strict=True)):
                self.scratch.add_module(f"layer{level}_ccm", nn.Conv2d(cin, width, 1))
        if proj_type == 2:
            self.CHANNELS = [cout * factor for factor in ((1, 1, 2, 4) if expand else (1, 1, 1, 1))]
            self.RESOLUTIONS = [2 * size for size in TAP_SIZES]
            for level in (3, 2, 1, 0):
                self.scratch.add_module(f"layer{level}_csm", Csm(mixed[level], self.CHANNELS[level]))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Images [N, 3, H, W] in -1..1 -> four maps, finest first."""
        maps = list(self.pretrained(x))
        if self.proj_type == 0:
            return maps
        maps = [self.scratch.get_submodule(f"layer{level}_ccm")(x) for level, x in enumerate(maps)]
        if self.proj_type == 1:
            return maps
        above = None
        for level in (3, 2, 1, 0):
            x = maps[level] if above is None else maps[level] + above
            maps[level] = above = self.scratch.get_submodule(f"layer{level}_csm")(x)
        return maps


class ProjectedDiscriminator(nn.Module):
    """Image and, with labels, one-hot c -> logits [N, K], one for each place in each map: 25 a head at 256 x 256.

    An image with alpha is seen twice, over black and over white, and has twice as many logits. Grey is repeated.

    `backbone_kwargs` are those of the projection (cout, expand, proj_type) and of the heads (num_discs, ndf, cond,
    separable, patch). `diffaug` augments every image; `interp224` enlarges images to 224 x 224, or to `enlarged`
    pixels, a multiple of 32, which is meant for those that are smaller.

    What it looks through is `feature_network` if given, else EfficientNet-Lite0 or -Lite1, by `backbone`, under a
    `RandomProjection`; with its trained weights unless `pretrained` is false. It is frozen: it is in eval mode
    whatever the mode, and neither trained nor made trainable by `requires_grad_`.

    Raises ValueError for arguments that do not fit, MissingInputError where the backbone's weights are not installed.
    """

    def __init__(
        self,
        diffaug: bool = True,
        interp224: bool = True,
        backbone_kwargs: dict[str, Any] | None = None,
        backbone: str = "lite0",
        feature_network: nn.Module | None = None,
        pretrained: bool = True,
        c_dim: int = 0,
        img_resolution: int | None = None,
        img_channels: int = 3,
        enlarged: int = ENLARGED,
    ) -> None:
        super().__init__()
        projection: dict[str, Any] = {"cout": 64, "expand": True, "proj_type": 2}
        heads: dict[str, Any] = {"num_discs": 4, "ndf": None, "cond": False, "separable": False, "patch": False}
        given = dict(backbone_kwargs or {})
        if unknown := sorted(given.keys() - projection.keys() - heads.keys()):
            raise TypeError(f"backbone_kwargs: got {', '.join(unknown)}, expected {', '.join(projection | heads)}")
        projection |= {name: value for name, value in given.items() if name in projection}
        heads |= {name: value for name, value in given.items() if name in heads}
        if not 1 <= img_channels <= 4:
            raise ValueError(f"img_channels: got {img_channels}, expected 3 or 1, and one more for alpha")
        if img_resolution is not None and not interp224 and img_resolution % MULTIPLE:
            raise ValueError(f"img_resolution: got {img_resolution}, expected a multiple of {MULTIPLE} or interp224")
        if not SMALLEST <= enlarged <= LARGEST or enlarged % MULTIPLE:
            raise ValueError(f"enlarged: got {enlarged}, expected a multiple of {MULTIPLE}, {SMALLEST} to {LARGEST}")
        if heads["cond"] and c_dim > CLASSES:
            raise ValueError(f"c_dim: got {c_dim}, expected at most {CLASSES} classes, the size of the embedding")
        if backbone not in BACKBONES:
            raise ValueError(f"backbone: got {backbone!r}, expected {' or '.join(BACKBONES)}")
        self.init_args: tuple[Any, ...] = ()
        self.init_kwargs: dict[str, Any] = {
            "diffaug": diffaug, "interp224": interp224, "backbone_kwargs": projection | heads, "backbone": backbone,
            "c_dim": c_dim, "img_resolution": img_resolution, "img_channels": img_channels,
        }  # fmt: skip
        if enlarged != ENLARGED:  # which other programs' classes do not know
            self.init_kwargs["enlarged"] = enlarged
        self.diffaug = diffaug
        self.interp224 = interp224
        self.enlarged = enlarged
        self.c_dim = c_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.cond = bool(heads["cond"])
        self.has_own_features = feature_network is not None
        if feature_network is None:
            variant = BACKBONES[backbone]
            layers = trained_layers(variant) if pretrained else LiteLayers(variant)
            feature_network = RandomProjection(layers, **projection)
        if not isinstance(feature_network, FeatureNetwork):
            raise TypeError("feature_network: has no CHANNELS or RESOLUTIONS, see sg3.models.projected.FeatureNetwork")
        self.feature_network = feature_network.requires_grad_(False).eval()
        self.discriminator = MultiScaleD(feature_network.CHANNELS, feature_network.RESOLUTIONS, **heads)

    def forward(
        self,
        img: torch.Tensor,
        c: torch.Tensor | None = None,
        draws: DiffAugDraws | None = None,
        update_emas: bool = False,
        force_fp32: bool = False,
    ) -> torch.Tensor:
        """img [N, C, R, R] in -1..1, c [N, c_dim] -> logits [N, K].

        `draws` decides about the augmentation; without it, it is drawn from torch's default generator on the host.
        `update_emas` and `force_fp32` have nothing to act on: all is in the type of the weights.
        """
        self._check(img, c)
        if self.diffaug:
            draws = draws or DiffAugDraws.from_torch(len(img), *img.shape[2:])
            img = diff_augment(img, draws)
        transparent = has_alpha(self.img_channels)
        if transparent:
            img = torch.cat([over(img, BLACK), over(img, WHITE)])
            c = None if c is None else torch.cat([c, c])
        if img.shape[1] == 1:
            img = img.expand(-1, 3, -1, -1)
        if self.interp224:
            img = F.interpolate(img, self.enlarged, mode="bilinear", align_corners=False)
        logits = self.discriminator(self.feature_network(img), c)
        return torch.cat(logits.chunk(2), dim=1) if transparent else logits

    def _check(self, img: torch.Tensor, c: torch.Tensor | None) -> None:
        size = self.img_resolution
        channels = self.img_channels
        if img.ndim != 4 or img.shape[1] != channels or (size is not None and img.shape[2:] != (size, size)):
            expected = "H, W" if size is None else f"{size}, {size}"
            raise ValueError(f"img: got shape {list(img.shape)}, expected [N, {channels}, {expected}]")
        if not self.interp224 and (img.shape[2] % MULTIPLE or img.shape[3] % MULTIPLE):
            raise ValueError(f"img: got {img.shape[2]} x {img.shape[3]} pixels, expected multiples of {MULTIPLE}")
        if self.cond and (c is None or c.ndim != 2 or len(c) != len(img) or c.shape[1] == 0):
            got = "None" if c is None else f"shape {list(c.shape)}"
            raise ValueError(f"c: got {got}, expected [{len(img)}, classes] (this network takes labels)")

    def train(self, mode: bool = True) -> Self:
        """Train or eval mode for the heads."""
        super().train(mode)
        self.feature_network.eval()
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Whether the heads are trained."""
        self.discriminator.requires_grad_(requires_grad)
        return self

    def extra_repr(self) -> str:
        return f"diffaug={self.diffaug}, interp224={self.interp224}, cond={self.cond}"
