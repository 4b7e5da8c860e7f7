"""Entry point of the `cryptomnesia` command."""

import sys
from collections.abc import Sequence

from .errors import MissingPackage, require


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit code: 0 clear, 3 likely memorized, 2 bad input, 130 stopped."""
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
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")  # a terminal without these letters shows "?" and nothing breaks
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
