"""Exceptions with a message for the user.

Each message states three things: what is wrong, what was expected, and what to do. The command line prints the message
alone and exits with 1; any other exception is a bug and shows its traceback.
"""


class PtlreidError(Exception):
    """Something that the user can correct."""


class DataError(PtlreidError):
    """Image files, folders or feature files are missing, damaged or of another layout."""


class CheckpointError(PtlreidError):
    """A run folder, a checkpoint or a file of weights cannot be used."""


class OptionError(PtlreidError):
    """An option, a name or a setting is wrong."""


class Stopped(PtlreidError):  # noqa: N818 - not an error
    """Training was stopped by a signal and can resume. `code`: the exit code, 128 + the signal's number."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
