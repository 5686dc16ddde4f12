"""Adapt a person re-identification model to a new camera network."""


def __getattr__(name: str) -> str:
    # Looked up only when asked for: importlib.metadata costs a start-up more than the command line does.
    if name == "__version__":
        from importlib.metadata import version

        return version("ptlreid")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
