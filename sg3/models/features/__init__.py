"""Networks trained by others on ImageNet, frozen, as measures of what an image shows.

Inception-v3 and VGG16 serve the published metrics, VGG16 with LPIPS heads the perceptual distance, DINOv2 distances
said to agree best with people, and EfficientNet-Lite whatever has to work without a download. The modules know
their arithmetic only; files are found and opened by `sg3.metrics.detectors`.
"""

from sg3.models.features.dinov2 import DinoV2
from sg3.models.features.efficientnet_lite import EfficientNetLite, load_efficientnet_lite
from sg3.models.features.inception import InceptionV3
from sg3.models.features.vgg16 import LPIPS, VGG16

__all__ = ["LPIPS", "VGG16", "DinoV2", "EfficientNetLite", "InceptionV3", "load_efficientnet_lite"]
