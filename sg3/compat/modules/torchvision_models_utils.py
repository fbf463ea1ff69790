"""`torchvision.models.utils`, gone in torchvision 0.13."""

from torch.hub import load_state_dict_from_url as load_state_dict_from_url
