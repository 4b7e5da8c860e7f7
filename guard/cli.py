"""Entry point of the `cryptomnesia` command."""

import gc
import os
import sys
from collections.abc import Sequence

from .errors import MissingPackage, require


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit code, one of those in `commands.console`."""
    try:
        for package in ("typer", "rich"):
            require(package, "cli")
    except MissingPackage as error:
        sys.stderr.write(f"cryptomnesia: {error}\n")
        return 2
    from .commands.app import run_app

    return run_app(arguments)


def main() -> None:
    """Takes the arguments from the command line, and leaves with the exit code."""
    # packages and weights are objects by the million and no garbage: looking through them takes a sixth of a short run
    gc.set_threshold(50_000, 20, 20)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")  # a terminal without these letters shows "?" and nothing breaks
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # `| head`: the reader has seen enough
        from .commands.console import EXIT_NOBODY_READS

        # Python flushes it once more at the end, and would tell of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(EXIT_NOBODY_READS)
    sys.exit(code)


if __name__ == "__main__":
    main()
