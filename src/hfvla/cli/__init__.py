"""The command line: parse, call, print. Commands import what they need when they run, so that help is quick."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["app", "main"]

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        argv: words after the program's name; default: those of this process.

    Raises:
        SystemExit: always; with 0, 1 (a check failed), 2 (a mistake of the user, in one line), 130 (interrupted) or
            141 (whoever read the output has left).
    """
    try:
        from hfvla.cli.running import run
    except KeyboardInterrupt:  # the imports take a moment, and Ctrl-C in it is no error
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)
    run(sys.argv[1:] if argv is None else argv)


def __getattr__(name: str) -> Any:
    """Build the commands when they are asked for."""
    if name == "app":
        from hfvla.cli.commands import app

        return app
    raise AttributeError(f"module 'hfvla.cli' has no attribute '{name}'")
