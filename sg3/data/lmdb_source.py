"""Images in an LMDB database, such as LSUN's, read through a process beside: see `lmdb_child`, which has it open."""

from __future__ import annotations

import importlib.util
import struct
import subprocess
import sys
from pathlib import Path

from sg3 import limits
from sg3.errors import DataError, MissingInputError, StorageError
from sg3.extras import install
from sg3.plain_files import refuse_special

_CHILD = Path(__file__).with_name("lmdb_child.py")
_KEY_BYTES = 511  # LMDB's own limit
_RESTARTS = 20  # after a value that killed the process; more means that the file as a whole is damaged


class LmdbImages:
    """The values of a database by their keys, as text. Raises MissingInputError without the package, DataError."""

    def __init__(self, path: Path) -> None:
        refuse_special(path / "data.mdb", advice="; copy it again")  # LMDB would wait for a pipe's writer
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None
        self._restarts_left = _RESTARTS
        try:
            self.keys = {key.decode("utf8", "backslashreplace"): key for key in self._list()}
        except BaseException:
            self.close()
            raise
        if not self.keys:
            self.close()
            raise DataError(f"{path}: no images in it; name an LMDB that has some")

    def read(self, key: str) -> bytes:
        """One value. Raises DataError."""
        if self._process is None:
            if self._restarts_left == 0:
                raise DataError(f"{self._path}: {key}: not read, the database is damaged in many places; copy it again")
            self._restarts_left -= 1
        self._ask(self.keys[key])
        answer = self._record(max(limits.IMAGE_BYTES, 1000) + 1, key)  # a value, or a reason
        if not answer.startswith(b"+"):
            raise DataError(f"{self._path}: {key}: {answer[1:200].decode('utf8', 'replace')}")
        return answer[1:]

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _list(self) -> list[bytes]:
        self._ask(b"")
        keys = []
        while key := self._record(1 + _KEY_BYTES, ""):
            keys.append(key[1:])
            if len(keys) > limits.IMAGES:
                raise DataError(f"{self._path}: more than {limits.IMAGES} images in it; split it")
        return keys

    def _ask(self, request: bytes) -> None:
        if self._process is None:
            package = importlib.util.find_spec("lmdb")
            if package is None or package.origin is None:
                raise MissingInputError(f"{self._path}: reading LMDB needs a package; {install('lmdb')}")
            numbers = (limits.LMDB_MEMORY, limits.LMDB_SECONDS, limits.LMDB_VALUE_SECONDS, limits.IMAGE_BYTES)
            most = ",".join(map(str, numbers))
            words = [sys.executable, "-I", _CHILD, most, self._path, Path(package.origin).parent.parent]
            try:
                self._process = subprocess.Popen(
                    [str(word) for word in words],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                )  # fmt: skip
            except OSError as error:
                raise StorageError(f"{self._path}: cannot start the process that reads it: {error.strerror}") from error
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(struct.pack("<Q", len(request)) + request)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # why, its answer says, or the lack of one

    def _record(self, most: int, key: str) -> bytes:
        """The next record of the answer. Raises DataError if there is none, because the process has ended."""
        assert self._process is not None
        assert self._process.stdout is not None
        head = self._process.stdout.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        answer = self._process.stdout.read(length) if length <= most else b""
        if len(head) == 8 and len(answer) == length and not answer.startswith(b"!"):
            return answer
        self.close()
        where = f"{self._path}: {key}" if key else f"{self._path}"
        cause = answer[1:200].decode("utf8", "replace") if answer.startswith(b"!") else "reading it ended the reader"
        raise DataError(f"{where}: not a readable LMDB ({cause}); copy it again")
