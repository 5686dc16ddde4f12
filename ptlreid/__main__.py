"""The `ptlreid` command, also as `python -m ptlreid`."""

import sys

from ptlreid.signals import interruptible


def main() -> None:
    """Run the command line; a signal is handled from the first import on."""
    try:
        with interruptible():
            from ptlreid.cli import main as run

            run()
    except KeyboardInterrupt as stop:
        sys.exit(128 + (stop.args[0] if stop.args else 2))


if __name__ == "__main__":
    main()
