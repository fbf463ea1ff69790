"""The checkout's own torch_utils."""
