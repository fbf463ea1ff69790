"""A kernel to see whether Triton works here, run by `sg3 doctor` as a program of its own:

    python -P triton_self_test.py DEVICE

So a crash of the compiler or the driver is a line in the report and not its end. DEVICE is one to launch on, or sm_80,
for which the kernel is only compiled. Nothing of sg3 is imported: what fails is not ours.
"""

import sys

import triton
import triton.language as tl


@triton.jit
def axpy(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    tl.store(y_ptr + i, 2.0 * tl.load(x_ptr + i, mask) + tl.load(y_ptr + i, mask), mask)


if __name__ == "__main__":
    if sys.argv[1] == "sm_80":
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        signature = {"x_ptr": "*fp32", "y_ptr": "*fp32", "n": "i32", "BLOCK": "constexpr"}
        source = ASTSource(axpy, signature=signature, constexprs={"BLOCK": 1024})
        assert triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm["cubin"]
    else:
        import torch

        x, y = torch.arange(1000.0, device=sys.argv[1]), torch.ones(1000, device=sys.argv[1])
        expected = 2 * x + y
        axpy[(1,)](x, y, 1000, BLOCK=1024)
        assert torch.equal(y, expected), "the kernel ran and its result is wrong"
