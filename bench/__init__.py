"""Benchmarks: `pytest bench` times, `python -m bench.report` prints and plots, `python -m bench.roofline` predicts."""
