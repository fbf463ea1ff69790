"""Triton kernels, one file per op: the kernel, and the launcher that allocates its outputs and picks its tile.

Imported by the ops at their first Triton launch and not before: `import sg3.kernels` needs no Triton. The rules that
keep a kernel right on versions 3.6 to 3.9, in the interpreter and ahead of time are in CONTRIBUTING.md.
"""
