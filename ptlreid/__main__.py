"""`python -m ptlreid` is the `ptlreid` command."""

from ptlreid.cli import main

main()
