"""A stand-in."""

import torch

_sums = {}
_device = None


def init_multiprocessing(rank, sync_device):
    global _device
    _device = sync_device


def report(name, value):
    value = torch.as_tensor(value, dtype=torch.float64)
    _sums[name] = _sums.get(name, torch.zeros(2)) + torch.tensor([value.numel(), float(value.sum())])
    return value


def collect():
    result = {}
    for name in sorted(_sums):
        moments = _sums[name].clone()
        if _device is not None:
            torch.distributed.all_reduce(moments)
        result[name] = float(moments[1] / moments[0])
    return result
