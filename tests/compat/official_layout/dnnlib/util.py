"""A stand-in."""

import importlib
import sys


class EasyDict(dict):
    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


class Logger:
    def __init__(self, file_name):
        self.file, self.stdout = open(file_name, "w"), sys.stdout  # noqa: SIM115
        sys.stdout = self

    def write(self, text):
        self.file.write(text)
        self.stdout.write(text)

    def flush(self):
        self.file.flush()
        self.stdout.flush()

    def close(self):
        sys.stdout = self.stdout
        self.file.close()


def construct_class_by_name(*args, class_name, **kwargs):
    module, name = class_name.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)(*args, **kwargs)
