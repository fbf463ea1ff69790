"""A stand-in."""

import numpy as np
import torch


class InfiniteSampler(torch.utils.data.Sampler):
    def __init__(self, dataset, rank=0, num_replicas=1):
        super().__init__(dataset)
        self.dataset, self.rank, self.num_replicas = dataset, rank, num_replicas

    def __iter__(self):
        order = np.random.RandomState(0).permutation(len(self.dataset))
        index = self.rank
        while True:
            yield int(order[index % len(order)])
            index += self.num_replicas


def assert_shape(tensor, shape):
    assert list(tensor.shape) == list(shape), (tensor.shape, shape)
