"""The commands, put together. Whatever is wrong with the input costs one line on stderr, never a traceback."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from .. import __version__
from ..errors import CryptomnesiaError, NotApplicable
from .attribute import attribute
from .audit import audit
from .calibrate import calibrate
from .check import check
from .console import EXIT_BAD_INPUT, EXIT_CLEAR, EXIT_NO_VERDICT, EXIT_STOPPED, fail
from .demo import demo
from .identify import identify
from .keys import keys
from .lineage import lineage
from .locate import locate
from .membership import membership
from .rewrite import rewrite
from .signature import signature
from .verify import verify

# typer's base of all usage errors; it has no public name of its own
_UsageError: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="cryptomnesia",
    help="Tells, before an image is made, whether a diffusion model is about to recite its training data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, check, calibrate, rewrite, locate, signature, identify, attribute, membership, lineage, verify):
    app.command()(command)
app.add_typer(audit)
app.add_typer(keys)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"cryptomnesia {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def run_app(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit code.

    The codes are those of `console`, the same for every command. Raises BrokenPipeError where nobody reads any more.
    """
    try:
        code: Any = app(args=list(arguments), prog_name="cryptomnesia", standalone_mode=False)
        return code if isinstance(code, int) else EXIT_CLEAR
    except (typer.Abort, KeyboardInterrupt):
        return EXIT_STOPPED
    except _UsageError as error:
        if str(error):  # otherwise the help was shown
            fail(_usage(error))
    except NotApplicable as error:
        fail(str(error))
        return EXIT_NO_VERDICT
    except CryptomnesiaError as error:
        fail(str(error))
    except UnicodeDecodeError as error:
        fail(f"some input is not UTF-8 text ({error.reason}): save it as UTF-8")
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # which typer makes a 1 of
            raise stop.__context__ from None
        raise
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    return EXIT_BAD_INPUT


def _usage(error: Any) -> str:
    """A usage error in one line, with where to look."""
    message = error.format_message()
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "cryptomnesia"
    return f"{message.rstrip('.')}: see `{path} --help`"
