"""VGG16: features for precision and recall, and LPIPS, the perceptual distance of PPL and of projection.

Simonyan and Zisserman, "Very Deep Convolutional Networks" (arXiv 1409.1556), configuration D; parameter names of
torchvision. Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (arXiv 1801.03924).

What rests on published descriptions and is not checked against NVIDIA's `vgg16.pt`, which is not open to us: that its
features are the second hidden layer after the ReLU, that it shrinks images to 224 px with TensorFlow 1's bilinear
rule, that both outputs start from ImageNet's mean and deviation, and that its weights are torchvision's.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from sg3.models.features.resize import resize_tf1

RESOLUTION = 224
MEAN = (0.485, 0.456, 0.406)  # of ImageNet's pixels, 0..1
DEVIATION = (0.229, 0.224, 0.225)
BLOCKS = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))  # widths of the convolutions, in units of 64
SMALLEST = 16  # pixels: four poolings come before the last block


class VGG16(nn.Module):
    """RGB images [N, 3, H, W] with values 0..255 -> features of the second hidden layer, [N, 4096].

    `width` and `hidden` are 64 and 4096 in the published network.
    """

    def __init__(self, width: int = 64, hidden: int = 4096) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.widths = tuple(block[-1] * width for block in BLOCKS)  # channels of the maps
        self._ends = [0]  # where a block ends in `features`: after its last ReLU
        cin = 3
        for block in BLOCKS:
            for multiple in block:
                layers += [nn.Conv2d(cin, multiple * width, 3, padding=1), nn.ReLU()]
                cin = multiple * width
            self._ends.append(len(layers))
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        # Dropout does nothing here, but keeps torchvision's numbering.
        self.classifier = nn.Sequential(
            nn.Linear(cin * 7 * 7, hidden), nn.ReLU(), nn.Dropout(), nn.Linear(hidden, hidden), nn.ReLU()
        )

    def forward(self, images: torch.Tensor, resize_images: bool = True) -> torch.Tensor:
        """Without `resize_images` the images have to be 224 x 224."""
        if resize_images:
            images = resize_tf1(images, RESOLUTION, RESOLUTION)
        x = self.features(normalize(images))  # [N, 512, 7, 7]
        return self.classifier(x.flatten(1))

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """What the five blocks give before pooling, at strides 1, 2, 4, 8 and 16. At least 16 x 16 pixels."""
        x = normalize(images)
        maps = []
        for start, end in pairwise(self._ends):
            x = self.features[start:end](x)
            maps.append(x)
        return maps


def normalize(images: torch.Tensor) -> torch.Tensor:
    """0..255 -> zero mean and unit deviation over ImageNet. LPIPS's own constants are the same numbers for -1..1."""
    mean, deviation = images.new_tensor(MEAN), images.new_tensor(DEVIATION)
    return (images - 255 * mean.view(3, 1, 1)) / (255 * deviation.view(3, 1, 1))


class LPIPS(nn.Module):
    """RGB images [N, 3, H, W] with values 0..255 -> vectors whose squared distance is LPIPS (equation 1).

    `heads` are the five trained vectors of channel weights, none of them negative. The vectors have
    sum(C_k * H_k * W_k) components, 117.5 for each pixel: compare images of one size only.
    """

    def __init__(self, vgg: VGG16, heads: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.vgg = vgg
        for k, head in enumerate(heads):
            self.register_buffer(f"scale{k}", head.reshape(1, -1, 1, 1).sqrt(), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        parts = []
        for k, x in enumerate(self.vgg.maps(images)):
            unit = x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + 1e-10)
            scale = self.get_buffer(f"scale{k}") * (x.shape[2] * x.shape[3]) ** -0.5  # the mean over pixels
            parts.append((unit * scale).flatten(1))
        return torch.cat(parts, dim=1)
