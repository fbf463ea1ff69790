"""sg3's own `torch_utils`, for tools that come without one."""
