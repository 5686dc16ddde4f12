"""Exceptions with a message for the user.

Each message states three things: what is wrong, what was expected, and what to do. The command line prints the message
alone and exits with 1; any other exception is a bug and shows its traceback.
"""

import errno


class PtlreidError(Exception):
    """Something that the user can correct.

    `on_all`: several processes raise it together, so that the main one alone prints it.
    """

    on_all = False


class DataError(PtlreidError):
    """Image files, folders or feature files are missing, damaged or of another layout."""


class CheckpointError(PtlreidError):
    """A run folder, a checkpoint or a file of weights cannot be used."""


class OptionError(PtlreidError):
    """An option, a name or a setting is wrong."""


class ExportError(PtlreidError):
    """An exported graph does not agree with the run it was made from."""


class Stopped(PtlreidError):  # noqa: N818 - not an error
    """Training was stopped by a signal and can resume. `code`: the exit code, 128 + the signal's number."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


# What torch, CUDA, HDF5, the loader of shared libraries and the system say, in lower case, when memory runs out.
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "memory allocation failed",
    "alloc_failed",
    "allocation_failed",
    "bad_alloc",
    "failed to map segment",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine or the GPU had too little memory, whichever library noticed it."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError | ImportError | OSError) and any(words in text for words in _OUT_OF_MEMORY)
