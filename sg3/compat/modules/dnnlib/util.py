"""`dnnlib.util`: what the original's scripts use of it, written anew."""

from __future__ import annotations

import fnmatch
import hashlib
import importlib
import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from functools import reduce
from operator import mul
from pathlib import Path
from types import ModuleType, TracebackType
from typing import IO, Any, BinaryIO
from urllib.parse import urlsplit

from sg3.durations import format_time as format_time
from sg3.durations import format_time_brief as format_time_brief
from sg3.errors import MissingInputError
from sg3.formats.download import fetch


class EasyDict(dict[str, Any]):
    """A dictionary whose entries are attributes as well."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(name) from None


class Logger:
    """Copies what is printed, on stdout and stderr, into a file (or nowhere) until `close` or the end of a block."""

    def __init__(self, file_name: str | None = None, file_mode: str = "w", should_flush: bool = True) -> None:
        self.file: IO[Any] | None = None if file_name is None else open(file_name, file_mode)  # noqa: SIM115
        self.should_flush = should_flush
        self.stdout, self.stderr = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = self

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def write(self, text: str | bytes) -> None:
        if isinstance(text, bytes):
            text = text.decode()
        if text:
            for stream in filter(None, (self.file, self.stdout)):
                stream.write(text)
            if self.should_flush:
                self.flush()

    def flush(self) -> None:
        for stream in filter(None, (self.file, self.stdout)):
            stream.flush()

    def isatty(self) -> bool:
        return False

    def close(self) -> None:
        self.flush()
        if sys.stdout is self:
            sys.stdout = self.stdout
        if sys.stderr is self:
            sys.stderr = self.stderr
        if self.file is not None:
            self.file.close()
            self.file = None


# ---- objects by name


def get_module_from_obj_name(obj_name: str) -> tuple[ModuleType, str]:
    """'package.module.Class.method' -> (the module, 'Class.method'). 'np.' stands for 'numpy.'.

    Raises ImportError, with the reason, if no part of the name is a module that has the rest of it.
    """
    parts = re.sub(r"^np\.", "numpy.", obj_name).split(".")
    reason: Exception | None = None
    for split in range(len(parts) - 1, 0, -1):
        module_name, rest = ".".join(parts[:split]), ".".join(parts[split:])
        try:
            module = importlib.import_module(module_name)
            get_obj_from_module(module, rest)
            return module, rest
        except ModuleNotFoundError as error:
            if error.name is None or not module_name.startswith(error.name):  # the module is there, but needs another
                raise
            reason = reason or error
        except AttributeError as error:
            reason = reason or error
    raise ImportError(f"{obj_name}: no module has an object of this name ({reason or 'a module belongs in front'})")


def get_obj_from_module(module: ModuleType, obj_name: str) -> Any:
    """An object by its dotted name in a module; the module itself for ''."""
    return reduce(getattr, filter(None, obj_name.split(".")), module)


def get_obj_by_name(name: str) -> Any:
    """An object by its full name. Raises ImportError."""
    return get_obj_from_module(*get_module_from_obj_name(name))


def call_func_by_name(*args: Any, func_name: str, **kwargs: Any) -> Any:
    """Call a function by its full name."""
    return get_obj_by_name(func_name)(*args, **kwargs)


def construct_class_by_name(*args: Any, class_name: str, **kwargs: Any) -> Any:
    """Make an object of a class by its full name."""
    return call_func_by_name(*args, func_name=class_name, **kwargs)


# ---- files and addresses


def set_cache_dir(path: str) -> None:
    """Keep `make_cache_dir_path`'s files there, in this process and its children."""
    os.environ["DNNLIB_CACHE_DIR"] = path


def make_cache_dir_path(*paths: str) -> str:
    """A path in the cache: $DNNLIB_CACHE_DIR, else ~/.cache/dnnlib. It need not exist."""
    root = os.environ.get("DNNLIB_CACHE_DIR") or os.path.join(Path.home(), ".cache", "dnnlib")
    return os.path.join(root, *paths)


def is_url(obj: Any, allow_file_urls: bool = False) -> bool:
    """Whether it is the address of something with a host and a name (or of a file, if allowed)."""
    if not isinstance(obj, str):
        return False
    address = urlsplit(obj)
    if allow_file_urls and address.scheme == "file":
        return bool(address.path)
    return address.scheme in ("http", "https") and "." in address.netloc


def open_url(
    url: str, cache_dir: str | None = None, num_attempts: int = 10, verbose: bool = True,
    return_filename: bool = False, cache: bool = True,
) -> BinaryIO | str:  # fmt: skip
    """Open a file, or what an address names, for reading; with `return_filename`, its local path instead.

    A copy that the original's tools have downloaded is used. Else sg3's own cache keeps one (`cache_dir`, if given,
    is where), whatever `cache` says; it does its own retries and messages. Raises sg3's errors.
    """
    path = _local_path(url, cache_dir)
    return str(path) if return_filename else path.open("rb")


def _local_path(url: str, cache_dir: str | None) -> Path:
    if not re.match("[a-zA-Z]+://", url):
        if not Path(url).is_file():
            raise MissingInputError(f"{url}: there is no such file")
        return Path(url)
    theirs = Path(cache_dir or make_cache_dir_path("downloads"))
    copies = sorted(theirs.glob(f"{hashlib.md5(url.encode()).hexdigest()}_*"))
    if copies:
        return copies[0]
    fetched = fetch(url)
    if cache_dir is None:
        return fetched
    theirs.mkdir(parents=True, exist_ok=True)
    copy = theirs / f"{hashlib.md5(url.encode()).hexdigest()}_{fetched.name}"
    partial = copy.with_name(f".{copy.name}.{os.getpid()}")
    shutil.copyfile(fetched, partial)
    partial.replace(copy)
    return copy


def list_dir_recursively_with_ignore(
    dir_path: str, ignores: Sequence[str] | None = None, add_base_to_relative: bool = False
) -> list[tuple[str, str]]:
    """(path, path relative to the folder) of all files in it. Names and folders that match a pattern of `ignores` are
    left out. `add_base_to_relative` puts the folder's own name in front of the relative paths."""
    root = Path(dir_path)
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not _matches(name, ignores))
        for name in sorted(files):
            if not _matches(name, ignores):
                path = Path(folder, name)
                relative = path.relative_to(root)
                found.append((str(path), str(root.name / relative if add_base_to_relative else relative)))
    return found


def _matches(name: str, patterns: Iterable[str] | None) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns or ())


def copy_files_and_create_dirs(files: Iterable[tuple[str, str]]) -> None:
    """Copy (source, destination) pairs, making the folders that are missing."""
    for source, destination in files:
        Path(destination).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, destination)


# ---- numbers and questions


def tuple_product(t: Iterable[int]) -> int:
    """The product of all entries; 1 if there are none."""
    return reduce(mul, t, 1)


def ask_yes_no(question: str) -> bool:
    """Ask on the terminal until the answer is one of yes, y, no, n and the like."""
    words = {"y": True, "yes": True, "t": True, "true": True, "on": True, "1": True,
             "n": False, "no": False, "f": False, "false": False, "off": False, "0": False}  # fmt: skip
    while True:
        answer = input(f"{question} [y/n] ").strip().lower()
        if answer in words:
            return words[answer]
        print("please answer yes or no", file=sys.stderr)
