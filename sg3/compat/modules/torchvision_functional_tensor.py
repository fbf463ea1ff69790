"""`torchvision.transforms.functional_tensor`, private since torchvision 0.17."""

from torchvision.transforms import _functional_tensor

globals().update({name: value for name, value in vars(_functional_tensor).items() if not name.startswith("__")})
