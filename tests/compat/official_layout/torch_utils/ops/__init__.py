"""As in a fork that has ops of its own."""
