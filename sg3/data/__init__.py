"""Images for training.

Reading a set: `dataset` (items), `folder_or_zip` (its files), `dataset_json` (its labels), `decode` (its pixels).
In which order: `sampler`. Making a set: `prepare` takes a source (`sources`, with `cifar`, `idx`, `lmdb_source` and
`openmoji`), looks at every image (`scan`), crops and scales (`transforms`) and writes (`writer`).

Only `dataset` and `sampler` need torch; importing `sg3.data` or `sg3.data.prepare` does not load it.
"""
