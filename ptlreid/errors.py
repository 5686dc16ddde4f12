"""The exceptions that a user may see.

Each message names three things: what was given, what was expected, and what to do next. The command line
prints the message alone and exits with 1; any other exception is our own mistake and shows its traceback.
"""


class PtlreidError(Exception):
    """Something the user can put right."""


class DataError(PtlreidError):
    """Image files, folders or feature files are not what they should be."""


class CheckpointError(PtlreidError):
    """A run folder, a checkpoint or a file of weights cannot be used."""


class OptionError(PtlreidError):
    """An option, a name or a setting has no meaning here."""


class Stopped(PtlreidError):  # noqa: N818 - it is nobody's fault
    """Work that was asked to stop, and stopped where it can go on. `code`: the exit code, 128 + the signal's number."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
