"""Images for training: reading a set (`dataset`), its order (`sampler`), making one (`prepare`, `openmoji`).

Only `dataset` and `sampler` need torch; importing `sg3.data` or `sg3.data.prepare` does not load it.
"""
