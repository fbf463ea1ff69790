"""Training: configuration, one visible loop, losses, exact resume."""
