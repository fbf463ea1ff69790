"""A static model of a GPU's multiprocessor: how many cycles the compiled kernels should take, without a GPU.

Predictions, not measurements. docs/static-model.md says what the model knows, what it assumes and what it cannot know.
"""
