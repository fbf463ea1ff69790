"""What is done with trained networks: videos, sweeps, spectra, directions, projection. Functions return arrays."""
