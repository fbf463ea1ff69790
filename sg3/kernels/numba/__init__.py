"""Kernels for CPUs, compiled by Numba: Python and the LLVM that it brings, no C compiler. `pip install 'sg3[cpu]'`."""
