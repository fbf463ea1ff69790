"""The file that `sg3 tune` writes: one table for each GPU and Triton version that it was run with."""

from __future__ import annotations

from pathlib import Path

import triton

from sg3.atomic import write_json
from sg3.errors import StorageError
from sg3.kernels import tuning
from sg3.kernels.tuning import DamagedTableError, Table
from sg3.tools.tune.measure import Measured


class TableFile:
    """A file of tables, with the one for this GPU and Triton version among them. What it has of others, and of this
    one's other classes, stays."""

    def __init__(self, path: Path, gpu: str) -> None:
        """Writes the file once, to find out before anything is measured whether it can be written.

        Raises StorageError. `self.replaced` says why a file that was there could not be kept.
        """
        self.path, self.replaced = path, ""
        tables: list[Table] = []
        try:
            tables = tuning.read(path)
        except FileNotFoundError:
            pass
        except DamagedTableError as error:
            self.replaced = str(error)
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error.strerror}; --output names another file") from error
        here = gpu, triton.__version__
        self.others = [table for table in tables if (table.gpu, table.triton) != here]
        of_this = [table for table in tables if (table.gpu, table.triton) == here]
        self.table = of_this[0] if of_this else Table(path, *here, {})
        self.write()

    def add(self, measured: Measured) -> None:
        """Put in what was measured for a class, and write."""
        if "choice" in measured.entry:
            self.table.classes.setdefault(measured.tunable, {})[measured.group] = measured.entry
            self.write()

    def write(self) -> None:
        """Raises StorageError."""
        content = [table.content() for table in (*self.others, self.table)]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"format": tuning.FORMAT, "tables": content}, indent=1)
        except StorageError as error:
            raise StorageError(f"{error}; --output names another file") from error
        except OSError as error:
            reason = error.strerror or error
            raise StorageError(f"{self.path}: cannot be written: {reason}; --output names another file") from error
