"""The ops of StyleGAN2 and StyleGAN3, each beside a plain PyTorch reference.

A room per op: `op.py` says what it computes, with the reference, the public function and the registration, the files
beside it are its implementations. What needs no room is one file. `impl='auto'` takes the best implementation for the
device (see `sg3.kernels.dispatch`), `impl='ref'` the plain formula in any floating-point type.

Of the same name are a room and its function: `from sg3.kernels import filtered_lrelu` is the function, and
`from sg3.kernels.filtered_lrelu import op` looks into the room.
"""

from sg3.kernels.bias_act.op import bias_act
from sg3.kernels.conv2d_resample import conv2d_resample
from sg3.kernels.filtered_lrelu.op import filtered_lrelu
from sg3.kernels.fir import design_lowpass_filter
from sg3.kernels.grid_sample import grid_sample
from sg3.kernels.modulated_conv2d.op import modulated_conv2d
from sg3.kernels.upfirdn2d.op import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d

__all__ = [
    "bias_act",
    "conv2d_resample",
    "design_lowpass_filter",
    "downsample2d",
    "filter2d",
    "filtered_lrelu",
    "grid_sample",
    "modulated_conv2d",
    "setup_filter",
    "upfirdn2d",
    "upsample2d",
]
