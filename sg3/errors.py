"""What can go wrong for a user, by exit code.

The message is one line that names the cause, the place (file, option, tensor) and, where there is one, the fix. The
command line prints it as it is; library users catch the type.
"""

from __future__ import annotations


class Sg3Error(Exception):
    """Something the user can understand and act on. `exit_code` is what the `sg3` command returns for it."""

    exit_code = 70


class UsageError(Sg3Error):
    """Options that do not fit together, or a value outside its range."""

    exit_code = 2


class DataError(Sg3Error):
    """An input exists but cannot be used: a broken image, an odd size, a file of an unknown format."""

    exit_code = 65


class MissingInputError(Sg3Error):
    """A named file, folder or optional package is not there."""

    exit_code = 66


class NumericalError(Sg3Error):
    """Training produced NaN or infinity too often to go on."""

    exit_code = 70


class MachineError(Sg3Error):
    """The machine has too little of something: memory, file handles, processes, shared memory."""

    exit_code = 71


class StorageError(Sg3Error):
    """Reading or writing failed: permission, disk full, device error."""

    exit_code = 74


class TrainingStopped(Sg3Error):
    """Training was asked to stop and saved its state first."""

    exit_code = 75


class RestartDue(TrainingStopped):
    """Training has saved its state and ended as --restart-every told it to: whoever started it starts it again."""

    exit_code = 3
