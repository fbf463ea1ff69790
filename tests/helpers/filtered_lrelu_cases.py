"""filtered_lrelu's cases, and what the reference makes of them between the filters and in the gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sg3.kernels.fir import design_lowpass_filter
from sg3.kernels.upfirdn2d.op import upfirdn2d_ref

F64 = torch.float64


@dataclass(frozen=True)
class Case:
    """Arguments of one call; taps are 0 for no filter, negative for a radial one, a pair for an asymmetric 2-D one."""

    up: int = 2
    up_taps: int | tuple[int, int] = 12
    down: int = 2
    down_taps: int | tuple[int, int] = 12
    padding: tuple[int, int, int, int] = (9, 8, 9, 8)
    shape: tuple[int, int, int, int] = (1, 2, 17, 15)
    clamp: float | None = 0.8
    slope: float = 0.2
    bias: bool = True
    flip: bool = False

    def filters(self, device: str) -> list[torch.Tensor | None]:
        torch.manual_seed(7)
        return [fir(taps, device) for taps in (self.up_taps, self.down_taps)]

    def arguments(self) -> tuple:
        """Those of the implementations that follow the filters and the bias."""
        return self.up, self.down, self.padding, 1.3, self.slope, self.clamp, self.flip

    def inputs(self, dtype: torch.dtype, device: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        torch.manual_seed(3)
        x = torch.randn(self.shape, dtype=F64).to(dtype).to(device)
        b = torch.randn(self.shape[1], dtype=F64).to(dtype).to(device) if self.bias else None
        return x, b


def fir(taps: int | tuple[int, int], device: str) -> torch.Tensor | None:
    if isinstance(taps, tuple):
        return (torch.randn(taps) / (taps[0] * taps[1]) ** 0.5).to(device)
    f = design_lowpass_filter(max(abs(taps), 1), cutoff=9, width=14, fs=64, radial=taps < 0)
    return None if f is None else f.to(device)


CASES = {
    "T, same size": Case(),
    "T, up": Case(up=4, up_taps=24, padding=(-6, -9, -6, -9), shape=(2, 1, 14, 20)),
    "T, last": Case(padding=(-11, -12, -11, -12), shape=(1, 1, 33, 31)),
    "R, same size": Case(down_taps=-12, padding=(11, 10, 11, 10)),
    "R, up": Case(up=4, up_taps=24, down_taps=-12, padding=(-2, -5, -2, -5), shape=(1, 2, 13, 12)),
    "ToRGB": Case(up=1, up_taps=0, down=1, down_taps=0, padding=(0, 0, 0, 0), slope=1.0, shape=(1, 3, 33, 30)),
    "several tiles": Case(shape=(1, 1, 57, 54)),
    "uneven padding": Case(padding=(3, 14, 10, 1), flip=True, bias=False),
    "up only": Case(down=1, down_taps=0, clamp=None),
    "down only": Case(up=1, up_taps=0, padding=(2, 3, 4, 5)),
    "asymmetric": Case(up=3, up_taps=(5, 7), down=2, down_taps=(4, 3), padding=(5, 2, 3, 6), shape=(1, 1, 11, 9)),
    "odd factors": Case(up=4, up_taps=13, down=3, down_taps=9, padding=(7, 8, 9, 10), shape=(1, 1, 9, 10)),
    "one pixel": Case(shape=(1, 1, 1, 1), padding=(12, 13, 12, 13)),
    "padding only": Case(up=1, up_taps=0, down=1, down_taps=0, padding=(3, 2, -1, 4), shape=(1, 1, 5, 6)),
    "no slope": Case(slope=0.0),
}
# Layers of networks for images that are not square.
CANVASES = {
    "T, canvas of 36 x 32": Case(shape=(1, 1, 32, 36)),
    "T, up on a canvas of 36 x 29": Case(up=4, up_taps=24, padding=(-6, -9, -6, -9), shape=(1, 1, 29, 36)),
    "R, canvas of 29 x 36": Case(down_taps=-12, padding=(11, 10, 11, 10), shape=(1, 1, 36, 29)),
}


def between_filters(case: Case, x: torch.Tensor, b: torch.Tensor | None, fu: torch.Tensor | None) -> torch.Tensor:
    """The signal after the leaky ReLU and before the clamp, by the reference."""
    x = x if b is None else x + b[:, None, None]
    v = upfirdn2d_ref(x, fu, (case.up, case.up), (1, 1), case.padding, case.flip, case.up**2) * 1.3
    return torch.nn.functional.leaky_relu(v, case.slope)


def gradient(case: Case, factor: torch.Tensor, fu: torch.Tensor | None, fd: torch.Tensor | None, g: torch.Tensor,
             x: torch.Tensor) -> torch.Tensor:  # fmt: skip
    """What g is for x by the reference, given the factors 0, slope or 1 between the filters."""
    x = torch.zeros_like(x, requires_grad=True)
    v = upfirdn2d_ref(x, fu, (case.up, case.up), (1, 1), case.padding, case.flip, case.up**2) * 1.3
    v = v[:, :, : factor.shape[2], : factor.shape[3]] * factor
    y = upfirdn2d_ref(v, fd, (1, 1), (case.down, case.down), (0, 0, 0, 0), case.flip, 1.0)
    return torch.autograd.grad(y, x, g)[0]
