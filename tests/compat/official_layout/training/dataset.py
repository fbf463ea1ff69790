import collections
import sys

import numpy as np
import torch


class Noise(torch.utils.data.Dataset):
    """Eight images; each also tells who answers imports in the process that makes it."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        from torch_utils.ops import upfirdn2d

        assert isinstance([], collections.Sequence)
        image = np.random.RandomState(index).rand(3, 16, 16).astype(np.float)  # noqa: NPY001
        return image, ("sg3" in upfirdn2d.__file__, "train_like" in sys.modules["__main__"].__file__)
